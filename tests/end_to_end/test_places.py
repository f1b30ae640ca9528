"""Paths of kinds that are not read, in every flag and field that takes one."""
import importlib.util
import re

from etils import epath
import pytest

from video_diffusion import sample
from video_diffusion import train
from video_diffusion.config import config_files
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import given_video
from video_diffusion.config import init_from
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import text_inputs
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

OTHERS = (
    's3://bucket/x', 'az://x/y', 'hf://user/model', 'http://host/x',
    'https://host/x', 'file:///etc/passwd', 'ftp://x', 'GS://bucket/x',
    's3:/bucket/x', ' s3://bucket/x',
)


@pytest.mark.parametrize('path', OTHERS)
@pytest.mark.parametrize('bucket', [False, True])
def test_other_schemes_are_one_sentence(path, bucket):
  with pytest.raises(UserError) as error:
    files.expand(path, '--workdir', bucket=bucket)
  kinds = 'a local path' + ' or gs://BUCKET/NAME' * bucket
  assert str(error.value) == f'--workdir is {path!r}; it must be {kinds}.'


def test_buckets_where_they_are_read(monkeypatch):
  assert files.expand('gs://a/b', 'x', bucket=True) == 'gs://a/b'
  with pytest.raises(UserError, match="x is 'gs://a/b'; it must be a local pa"):
    files.expand('gs://a/b', 'x')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='through TensorFlow or gcsfs; install'):
    files.expand('gs://a/b', 'x', bucket=True)


@pytest.mark.parametrize('path', ['a', '/a/b:c', 'a b/c', './s3:', '', 'a//b'])
def test_local_paths_stay_as_they_are(path):
  assert files.expand(path, 'x') == path


def config(name, value):
  c = defaults_lib.get_config()
  group, field = name.split('.')
  c[group][field] = value
  c.text.encoder = 't5'
  return c


def videos(**fields):
  c = defaults_lib.get_config()
  with c.unlocked():
    c.data.update(name='video_folder', **fields)
  return c


@pytest.mark.parametrize('name, read', [
    ('--workdir', lambda path: train.train(defaults_lib.get_config(), path)),
    ('--workdir', lambda path: sample.sample({}, path)),
    ('--workdir', config_files.of_run),
    ('--config', config_files.get_config),
    ('text.path', lambda path: text_inputs.check_t5(config('text.path', path))),
    ('text.tokenizer', lambda path: text_inputs.check_t5(
        config('text.tokenizer', path))),
    ('train.init_from', lambda path: init_from.folder(
        config('train.init_from', path))),
    ('sample.video', lambda path: given_video.read(
        config('sample.video', path))),
    ('data.path', lambda path: inputs.make_source(
        videos(path=path), 'train')),
    ('data.dir', lambda path: inputs.make_source(
        videos(path='x', dir=path), 'train')),
])
def test_every_field_that_takes_a_path(name, read):
  with pytest.raises(UserError, match=f"^{name} .*'s3:?.*"):
    read('s3://bucket/x')


def test_a_workdir_in_another_store_is_one_sentence(run_main_here):
  code, output = run_main_here('--workdir=s3://bucket/run')
  assert code == 1
  assert output.strip().splitlines()[-1] == (
      "video_diffusion: --workdir is 's3://bucket/run'; it must be a local "
      'path or gs://BUCKET/NAME.'
  )
  assert 'Traceback' not in output


def test_the_paths_of_a_config_file_count_as_flags(tmp_path):
  given = config('sample.video', '/a b/v.mp4')
  given.sample.prompts = ('a "b"', "c's")
  with given.unlocked():
    given.data.path = '/data'  # the run has no such field
  flags = config_files.places_as_flags(given, defaults_lib.get_config())
  assert sorted(flags) == [
      """--config.sample.prompts=('a "b"', "c's")""",
      '--config.sample.video=/a b/v.mp4',
  ]


MINE = '''
import runpy

def get_config():
  config = runpy.run_path('configs/video_folder.py')['get_config']('laptop')
  config.data.path = '/nowhere/given'
  return config
'''


def test_evaluation_opens_what_its_own_call_names(run_main_here, tmp_path):
  (tmp_path / 'mine.py').write_text(MINE)
  trained = config_files.get_config(str(tmp_path / 'mine.py'))
  trained.data.path = '/nowhere/saved'
  run_dir.claim(trained, epath.Path(tmp_path / 'run'), '')
  call = ('--mode=evaluate', f'--workdir={tmp_path / "run"}')
  for flags, words in (
      ((), "--config.data.path must be given: .* names '/nowhere/saved', but"),
      ((f'--config={tmp_path / "mine.py"}',), '/nowhere/given'),
      (('--config.data.path=/nowhere/flag',), '/nowhere/flag'),
  ):
    code, output = run_main_here(*call, *flags, tiny=False)
    last = output.strip().splitlines()[-1]
    assert code == 1 and re.match(f'video_diffusion: .*{words}', last), output
