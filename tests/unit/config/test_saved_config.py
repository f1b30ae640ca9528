"""config.json of a run, which another person or version may have written."""
import json
import logging
import time

from etils import epath
import pytest

from tests.support.configs import config
from tests.support.configs import mixed
from video_diffusion.config import data_options
from video_diffusion.config import run_dir
from video_diffusion.config import saved_config
from video_diffusion.errors import UserError


def test_a_mixture_comes_back_and_only_its_places_may_change(tmp_path):
  workdir = epath.Path(tmp_path)
  run_dir.claim(mixed(), workdir, '')
  (workdir / 'metrics.jsonl').touch()
  run_dir.claim(mixed(path='/c', dir='/d'), workdir, '')
  with pytest.raises(ValueError, match=r'data.mixture.more.clip_frames \(9'):
    run_dir.claim(mixed(clip_frames=8), workdir, '')
  with pytest.raises(ValueError, match='another .*more.clip_frames .9 there'):
    run_dir.claim(config(), workdir, '')
  call = {'data.mixture.more.path': '/e'}
  got = saved_config.load(call, workdir, ('sample',))
  # What only the run names is left out.
  want = data_options.complete(mixed(path='/e', dir='')).data
  assert got.data.to_dict() == want.to_dict()
  assert got.data.frameskips == (1,)
  with pytest.raises(ValueError, match='data.mixture.more.weight cannot be'):
    saved_config.load({'data.mixture.more.weight': 2}, workdir, ())


def test_sampling_takes_the_config_of_the_run(tmp_path):
  workdir = epath.Path(tmp_path)
  with pytest.raises(ValueError, match='holds no run'):
    saved_config.load({}, workdir, ('sample',))
  trained = config(seed=3)
  trained.model.base_channels = 32
  trained.sample.gamma = 0.7
  run_dir.claim(trained, workdir, '')
  call = {'sample.num_steps': 7, 'data.loader': 'threads'}
  got = saved_config.load(call, workdir, ('sample',))
  assert (got.seed, got.model.base_channels) == (3, 32)
  assert (got.sample.num_steps, got.sample.gamma) == (7, 0.7)
  assert got.data.loader == 'threads'
  assert got.model.channel_mults == (1, 2, 4, 8)
  for name in ('model.base_channels', 'seed', 'eval.num_clips'):
    with pytest.raises(ValueError, match=f'--config.{name} cannot be set'):
      saved_config.load({name: 1}, workdir, ('sample',))


def spoil(workdir, change):
  """Changes a run's config.json, as the one that made the run could."""
  path = workdir / 'config.json'
  if isinstance(change, bytes):
    path.write_bytes(change)
    return
  saved = json.loads(path.read_text())
  for name, value in change.items():
    *groups, field = name.split('.')
    holder = saved
    for group in groups:
      holder = holder.setdefault(group, {})
    holder[field] = value
  path.write_text(json.dumps(saved))


@pytest.mark.parametrize('change, words', [
    (b'', 'no valid JSON (line 1, column 1'),
    (b'[1, 2]', 'the top is [1, 2], not an object'),
    (b'null', 'the top is None, not an object'),
    (b'{"seed": 1, "seed": 2}', "'seed' is given twice"),
    (b'{"a": ' * 20 + b'1' + b'}' * 20, 'nested more than 16 deep'),
    (b'[' * 100_000, 'nested more than 16 deep'),
    (b'{"a":' * 100_000, 'nested more than 16 deep'),
    (b'{"optim": {"lr": NaN}}', 'NaN is no number of JSON'),
    (b'{"optim": {"lr": -Infinity}}', '-Infinity is no number of JSON'),
    (b'{"optim": {"lr": 1e999}}', '1e999 is too large'),
    (b'{"seed": 1' + b'0' * 5000 + b'}', 'has more than 64 bits'),
    (b'{"seed": "\xff"}', 'byte 10 is not UTF-8'),
    (b'{"seed": 1', "Expecting ',' delimiter"),
    (b' ' * (4 * 2**20 + 1), 'has 4,194,305 bytes, and at most 4,194,304'),
    ({'batch_size': '8'}, "batch_size is '8'; it must be a whole number"),
    ({'model.base_channels': 'many'}, "model.base_channels is 'many'; it must"),
    ({'model.base_channels': 16.0}, 'model.base_channels is 16.0; it must be'),
    ({'model.base_channels': True}, 'model.base_channels is True; it must be'),
    ({'model.dropout': '0.1'}, "model.dropout is '0.1'; it must be a number"),
    ({'model.channel_mults': 3}, 'model.channel_mults is 3; it must be a t'),
    ({'model.channel_mults': [1, [2]]}, 'is (1, [2]); it must be a tuple'),
    ({'data.flip': 1}, 'data.flip is 1; it must be True or False'),
    ({'data.name': None}, 'data.name is None; it must be text'),
    ({'model': [1, 2]}, 'model is (1, 2); it must be a group of fields'),
    ({'optim': []}, 'optim is (); it must be a group of fields'),
    ({'sample': None}, 'sample is None; it must be a group of fields'),
    ({'data.mixture': []}, 'data.mixture is (); it must be a group of fields'),
    ({'data.mixture.a': 3}, 'data.mixture.a has no field name'),
    ({'seed': {'a': 1}}, "seed is {'a': 1}; it must be a whole number"),
    ({'model.width': 8}, "a field 'model.width', which this version does not"),
    ({'model.\x1b[2J': 8}, "a field 'model.\\x1b[2J', which this version do"),
    ({'data.fast': True}, "a field 'data.fast', which this version does not"),
    ({'data_fingerprint': 3}, 'data_fingerprint is 3; it must be text'),
    ({'sample.num_videos': 10**12}, 'num_videos is 1000000000000; it mus'),
    ({'model.emb_layers': 100_000}, 'emb_layers is 100000; it must be at most'),
    ({'data.frames': 10**9}, 'data.frames is 1000000000; it must be at'),
    ({'data.height': 2**30}, 'data.height is 1073741824; it must be'),
    ({'sample.num_steps': 10**15}, 'sample.num_steps is 1000000000000000; it'),
    ({'sample.labels': [[0] * 1000]}, 'sample.labels has 1,000 values; it may'),
    ({'text.path': 'x' * 5000}, 'text.path has 5,000 characters; it may have'),
    ({'text.path': 'a\0b'}, 'it must be text in UTF-8, without zero bytes'),
])
def test_a_config_that_is_damaged_or_hostile_is_one_sentence(
    tmp_path, change, words
):
  workdir = epath.Path(tmp_path)
  run_dir.claim(config(), workdir, '')
  spoil(tmp_path, change)
  began = time.process_time()
  for read in (
      lambda: saved_config.load({}, workdir, ()),
      lambda: run_dir.claim(config(), workdir, ''),
  ):
    with pytest.raises(UserError) as error:
      read()
    sentence = str(error.value)
    assert words in sentence and str(tmp_path / 'config.json') in sentence
    assert sentence.isprintable() and len(sentence) < 400
  assert time.process_time() - began < 5


def test_a_file_of_any_size_is_refused_unread(tmp_path):
  workdir = epath.Path(tmp_path)
  with (tmp_path / 'config.json').open('wb') as file:
    file.truncate(2**30)  # takes no room on the disk
  began = time.process_time()
  with pytest.raises(UserError, match='has 1,073,741,824 bytes, and at most 4'):
    saved_config.load({}, workdir, ())
  assert time.process_time() - began < 1


def test_options_of_another_version_are_passed_over(tmp_path, caplog):
  workdir = epath.Path(tmp_path)
  run_dir.claim(config(), workdir, '')
  spoil(tmp_path, {'sample.spacing': 'even', 'optim.rule': 3})
  got = saved_config.load({}, workdir, ())
  assert 'spacing' not in got.sample and 'rule' not in got.optim
  run_dir.claim(config(), workdir, '')  # the training goes on
  said = [line for line in caplog.messages if 'version does not have' in line]
  assert len(said) == 2 and "a field 'sample.spacing', which" in said[1]


PRIVATE = {
    'sample.video': '/home/me/private.mp4',
    'sample.refine_workdir': '/home/me/runs/other',
    'sample.prompts': ('a secret',),
    'data.path': '/home/me/videos',
    'data.dir': '/home/me',
    'train.init_from': '/home/me/run',
    'text.path': '/home/me/t5',
    'text.dir': '/home/me/cache',
    'text.tokenizer': '/home/me/.ssh/id',
}


def shared(workdir):
  """A run that names private files in every field that can."""
  c = mixed()
  with c.unlocked():
    c.data.path = c.data.dir = ''
  run_dir.claim(c, workdir, '')
  spoil(workdir, PRIVATE)


def test_a_shared_run_names_no_file_no_folder_and_no_prompt(tmp_path, caplog):
  workdir = epath.Path(tmp_path)
  shared(workdir)
  got = saved_config.load({}, workdir, ('sample',))
  assert saved_config.places(got) == {}
  assert '/home/me' not in got.to_json() and 'secret' not in got.to_json()
  call = {'data.path': '/mine', 'sample.prompts': ('mine',)}
  got = saved_config.load(call, workdir, ('sample',))
  assert saved_config.places(got) == call
  with caplog.at_level(logging.INFO):
    saved_config.tell_places(call, workdir)
  assert "sample.video '/home/me/private.mp4', which is not" in caplog.text
  assert 'a secret' not in caplog.text


def test_what_a_mode_needs_must_be_on_the_command_line(tmp_path):
  workdir = epath.Path(tmp_path)
  shared(workdir)
  with pytest.raises(UserError) as error:
    saved_config.require_places({'data.dir': ''}, workdir, 'data')
  assert str(error.value) == (
      '--config.data.mixture.more.dir and --config.data.mixture.more.path and '
      f'--config.data.path must be given: {tmp_path}/config.json names '
      "'/b' and '/a' and '/home/me/videos', but as a run may come from others, "
      'only what the command line names is opened.'
  )
  with pytest.raises(UserError, match='^--config.text.path must be given: .* '
                     "names '/home/me/t5', but .* opened; or give --prompt.$"):
    saved_config.require_places(
        {}, workdir, 'text.path', advice='; or give --prompt'
    )
  saved_config.require_places(PRIVATE, workdir, 'text', 'sample')


def test_a_field_that_the_run_lacks_is_refused(tmp_path):
  workdir = epath.Path(tmp_path)
  run_dir.claim(config(), workdir, '')
  for name in ('data.path', 'data.mixture.more.path'):
    with pytest.raises(UserError, match=f'{name} cannot be set here: the run'):
      saved_config.load({name: '/x'}, workdir, ())
    got = saved_config.load({name: '/x'}, workdir, (), optional=[name])
    assert saved_config.places(got) == {}
