"""A run goes on with the data that it had, and with no other."""
import os
import shutil
import time

from etils import epath
import numpy as np
import pytest

from tests.unit.config import test_configs
from tests.unit.data.test_frame_cache import write_gif
from video_diffusion.config import inputs
from video_diffusion.config import run_dir

for module in ['av', 'PIL', 'tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)


@pytest.fixture(name='folder')
def captioned_videos(tmp_path):
  for i in range(3):
    write_gif(tmp_path / 'videos' / f'{i}.gif', 20, 10 * i)
  (tmp_path / 'videos' / 'captions.csv').write_text(
      'file,caption\n0.gif,a\n1.gif,b\n2.gif,c\n'
  )
  return tmp_path / 'videos'


@pytest.fixture(name='start')
def start_a_run(tmp_path, folder):
  """What a start of `train` asks of its data; a data set mixed in, or not."""

  def start(path=folder, data='data', mixed=False):
    config = test_configs.load('video_folder', 'laptop')
    config.data.path, config.data.dir = str(path), str(tmp_path / data)
    if mixed:
      fields = inputs.data_sets(config)['data']
      config.data.path = str(tmp_path / 'others')
      config.data.mixture.more = fields
    workdir = epath.Path(tmp_path / f'run{mixed}')
    source = inputs.make_source(config, 'train')
    run_dir.claim(config, workdir, source.fingerprint)
    (workdir / 'metrics.jsonl').touch()  # it has results
    return source

  write_gif(tmp_path / 'others' / 'x.gif', 20)
  return start


def replace(file, make):
  """Changes a file; its name, size and time of writing stay."""
  before = file.stat()
  make()
  assert file.stat().st_size == before.st_size
  # The time of a change has a coarse clock.
  while file.stat().st_ctime_ns == before.st_ctime_ns:
    time.sleep(0.001)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
  os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize('mixed', [False, True])
def test_replaced_videos_are_refused(start, folder, mixed):
  source = start(mixed=mixed)
  assert start(mixed=mixed).fingerprint == source.fingerprint
  file = folder / '1.gif'
  replace(file, lambda: write_gif(file, 20, 110))
  with pytest.raises(ValueError, match='was trained on other data: since then'):
    start(mixed=mixed)
  # Nor with a data.dir that has never seen the others.
  with pytest.raises(ValueError, match='was trained on other data'):
    start(data='other', mixed=mixed)
  replace(file, lambda: write_gif(file, 20, 10))
  assert start(mixed=mixed).fingerprint == source.fingerprint


def test_replaced_captions_are_refused(start, folder):
  start()
  file = folder / 'captions.csv'
  content = file.read_text()
  replace(file, lambda: file.write_text(content.replace(',b', ',d')))
  with pytest.raises(ValueError, match='captions or labels have changed'):
    start()
  replace(file, lambda: file.write_text(content))
  start()


def test_the_same_data_elsewhere_are_accepted(start, folder, tmp_path, capfd):
  source = start()
  moved = tmp_path / 'deep' / 'moved'
  moved.parent.mkdir()
  folder.rename(moved)
  capfd.readouterr()
  again = start(moved)
  assert again.fingerprint == source.fingerprint
  # Neither decoded nor packed once more.
  assert len(list(tmp_path.glob('data/video_folder/*/2*'))) == 1
  (tmp_path / 'copied').mkdir()
  for file in sorted(moved.iterdir(), reverse=True):
    shutil.copy(file, tmp_path / 'copied')  # as on another machine
  assert start(tmp_path / 'copied', 'other').fingerprint == source.fingerprint
  example = again.example(0, np.random.default_rng(0), 4)
  assert example['caption'] in 'abc'


def test_a_file_more_or_less_is_refused(start, folder):
  start()
  shutil.move(folder / '2.gif', folder.parent)
  with pytest.raises(ValueError, match='was trained on other data'):
    start()
  shutil.move(folder.parent / '2.gif', folder)
  start()
  # What cannot be used is not among the data, wherever it stands.
  for name in ('00.mp4', 'broken.mp4'):
    (folder / name).write_text('no video')
    start()
