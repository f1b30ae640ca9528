"""A disk that is full, or refuses, is one sentence; nothing done is lost."""
import errno
import os
import shutil
import stat
import subprocess

import numpy as np
import pytest

from tests.unit.text import test_embedding_cache as test_embeddings
from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import tfds_originals
from video_diffusion.data.builders import video_folder
from video_diffusion.errors import UserError

SIZE = 2**20  # of the full disk
FULL = 'dir cannot be written ({}: No space left on device); set it to a '
FULL += 'folder with space.'
SETTINGS = file_plans.Settings(
    height=32, width=32, clip_frames=16, min_frames=4
)


@pytest.mark.parametrize('error, sentence', [
    (OSError(errno.ENOSPC, 'words', '/data/x/part'),
     '/data: No space left on device); set it to a folder with space.'),
    (OSError(errno.EDQUOT, 'words'),
     '/data: Disk quota exceeded); set it to a folder with space.'),
    (OSError(errno.EACCES, 'words', '/data/x'),
     '/data/x: Permission denied); set it to a folder that can be written.'),
    (OSError(errno.EROFS, 'words'),
     '/data: Read-only file system); set it to a folder that can be written.'),
    (OSError(errno.EIO, 'words'),
     '/data: Input/output error); set it to a folder that can be written.'),
    (RuntimeError('write() failed: No space left on device; writing /data/x'),
     '/data: No space left on device); set it to a folder with space.'),
])
def test_what_the_disk_refuses_is_one_sentence(error, sentence):
  with pytest.raises(storage.StorageError) as raised:
    with storage.writing_to('/data'):
      raise error
  assert str(raised.value) == f'dir cannot be written ({sentence}'


@pytest.mark.parametrize('error', [
    RuntimeError('a bug'), ValueError('No space left on device'),
    OSError(errno.EMFILE, 'Too many open files'),
    UserError('No space left on device'),
])
def test_what_is_no_error_of_the_disk_stays_as_it_is(error):
  with pytest.raises(type(error)) as raised:
    with storage.writing_to('/data'):
      raise error
  assert raised.value is error


@pytest.fixture(name='disk')
def small_disk(tmp_path):
  """A file system of SIZE bytes."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={SIZE}', 'tmpfs', disk]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('only an administrator can mount a small file system')
  yield disk
  subprocess.run(['umount', '-l', disk], check=True)


def fill(disk, left):
  """Leaves so many bytes of a disk; returns the file that takes the rest."""
  filler = disk / 'filler'
  free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
  filler.write_bytes(bytes(max(0, free - left)))
  return filler


@pytest.fixture(name='noise')
def videos_of_noise(tmp_path):
  """Three videos, of 96 kB each in the cache and hardly less in records."""
  av = pytest.importorskip('av')
  pytest.importorskip('array_record')
  (tmp_path / 'videos').mkdir()
  rng = np.random.default_rng(0)
  for i in range(3):
    path = str(tmp_path / 'videos' / f'{i}.avi')
    with av.open(path, 'w') as container:
      stream = container.add_stream('rawvideo', rate=25)
      stream.width = stream.height = 32
      stream.pix_fmt = 'yuv420p'
      for _ in range(32):
        picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  return tmp_path / 'videos'


def entries(disk):
  """Whole entries of the cache -> their inodes."""
  return {p: p.stat().st_ino for p in disk.glob('decoded/??/*.json')}


def prepare(videos, disk):
  return video_folder.prepare(videos, SETTINGS, data_dir=disk)


@pytest.mark.parametrize('left, decoded', [
    (0, 0),  # not even a folder
    (150_000, 1),  # in a worker, at the second video
    (420_000, 3),  # while records are packed, in C++
])
def test_a_full_disk_costs_nothing_that_is_done(
    disk, noise, left, decoded, monkeypatch
):
  # Two at once would both fail where there is room for one of them.
  monkeypatch.setattr(processes, 'usable_cores', lambda: 1)
  filler = fill(disk, left)
  with pytest.raises(storage.StorageError) as error:
    prepare(noise, disk)
  place = disk if decoded == 3 else disk / 'decoded'
  assert str(error.value) == FULL.format(place)
  before = entries(disk)
  assert len(before) == decoded
  assert not list(disk.rglob('.*'))  # no part, no mark
  filler.unlink()
  directory = prepare(noise, disk)
  assert (directory / 'report.json').exists()
  assert len(entries(disk)) == 3 and before.items() <= entries(disk).items()


def test_a_read_only_disk_serves_a_copy_of_the_videos(disk, noise):
  directory = prepare(noise, disk)
  copied = shutil.copytree(noise, noise.parent / 'copied')
  subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
  assert prepare(copied, disk) == directory
  shutil.copy(copied / '0.avi', copied / '3.avi')
  with pytest.raises(storage.StorageError, match='Read-only file system'):
    prepare(copied, disk)


@pytest.mark.parametrize('runner, left, place', [
    ('local', 110_000, ''),  # of 16x16 they take a quarter
    ('beam', 40_000, '/decoded'),  # in a worker, at the second video
])
def test_a_full_disk_ends_main_in_a_sentence(
    disk, noise, run_main, runner, left, place
):
  if runner == 'beam':
    pytest.importorskip('apache_beam')
  fill(disk, left)
  code, output = run_main(
      '--mode=prepare', '--config=configs/video_folder.py:laptop',
      f'--config.prepare.runner={runner}',
      f'--config.data.path={noise}', f'--config.data.dir={disk}', tiny=False,
  )
  assert code == 1 and 'Traceback' not in output, output
  last = output.strip().splitlines()[-1]
  assert last == f'video_diffusion: data.{FULL.format(f"{disk}{place}")}'


def test_embeddings_on_a_full_disk(disk):
  filler = fill(disk, 4000)
  made = test_embeddings.open_cache(disk)
  with pytest.raises(storage.StorageError) as error:
    made.fill(test_embeddings.TEXTS, test_embeddings.encode)
  assert str(error.value) == (
      f'dir cannot be written ({made.directory}: No space left on '
      'device); set it to a folder with space.'
  )
  filler.unlink()
  report = made.fill(test_embeddings.TEXTS, test_embeddings.encode)
  assert report.computed == 100


def test_a_tfds_download_on_a_full_disk(tmp_path, monkeypatch):
  tfds = pytest.importorskip('tensorflow_datasets')

  class Builder:
    def is_prepared(self):
      return False

    def download_and_prepare(self, **_):
      raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(tfds, 'builder', lambda *_, **__: Builder())
  with pytest.raises(storage.StorageError) as error:
    tfds_originals.open_original('mnist', tmp_path)
  assert str(error.value) == FULL.format(tmp_path)


@pytest.mark.parametrize('umask', [0o002, 0o022, 0o077])
def test_all_that_is_prepared_has_the_rights_of_the_umask(
    tmp_path, noise, umask
):
  before = os.umask(umask)
  try:
    data = tmp_path / f'data{umask}'
    directory = prepare(noise, data)
    made = test_embeddings.open_cache(data / 'text')
    made.fill(test_embeddings.TEXTS, test_embeddings.encode)
  finally:
    os.umask(before)
  found = {p.relative_to(data): p.stat().st_mode for p in data.rglob('*')}
  for path, mode in found.items():
    wanted = 0o777 if stat.S_ISDIR(mode) else 0o666
    assert stat.S_IMODE(mode) == wanted & ~umask, path
  kinds = {p.suffix for p in found}
  assert {'.frames', '.json', '.jsonl', '.listing', '.embeddings'} < kinds
  records = {p.name for p in directory.iterdir()}
  assert {'report.json', 'videos.npz', 'features.json'} < records
