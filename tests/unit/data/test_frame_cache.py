"""cache: each content decoded once, whatever happens to whoever decodes it."""
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from tests.support.waiting import until
from video_diffusion.data import cache_entries
from video_diffusion.data import frame_cache
from video_diffusion.data import storage
from video_diffusion.data import video

pytest.importorskip('av')
image = pytest.importorskip('PIL.Image')

SIZE = dict(height=8, width=8)


def write_gif(path, num_frames, first_level=0):
  """A video whose frame i is plain grey of level first_level + i."""
  path.parent.mkdir(parents=True, exist_ok=True)
  frames = [
      image.fromarray(np.full((12, 16), first_level + i, np.uint8))
      for i in range(num_frames)
  ]
  frames[0].save(
      path, 'GIF', save_all=True, append_images=frames[1:], duration=100
  )


def logged_read(path, *, fps):
  """The decoder of these tests, called in processes of their own.

  Notes each call in DECODED_LOG. The file's content may ask for trouble.
  """
  with open(os.environ['DECODED_LOG'], 'a') as log:
    log.write(f'{path.name}\n')
  content = path.read_bytes()
  if content.startswith(b'signal '):
    # The signal comes when another file may be half decoded.
    time.sleep(0.2)
    os.kill(os.getpid(), int(content.split()[1]))
    time.sleep(10)
  if content.startswith(b'hang'):
    time.sleep(LIMIT)
  if content.startswith(b'raise'):
    raise RuntimeError('a bug of the decoder')
  if content.startswith(b'slow'):
    time.sleep(0.15)
    begun = len(pathlib.Path(os.environ['DECODED_LOG']).read_text().split())
    if begun > int(os.environ.get('STAND_STILL_AFTER', 1000)):
      time.sleep(LIMIT)  # until it is killed
    yield video.Frame(np.full((4, 4, 3), content[-1], np.uint8), 1.0)
    return
  yield from video.read_timed(path, fps=fps)


@pytest.fixture(name='decoded')
def names_of_decoded_files(tmp_path, monkeypatch):
  log = tmp_path / 'log'
  monkeypatch.setenv('DECODED_LOG', str(log))

  def take():
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(names)

  return take


@pytest.fixture(name='decode')
def decode_into(tmp_path, decoded):
  def decode(files, **changed):
    return frame_cache.decode(
        files,
        **{
            'directory': tmp_path / 'cache', 'read': logged_read, **SIZE,
            'workers': 2, **changed,
        },
    )

  return decode


def test_entries_hold_the_frames_and_what_is_known(tmp_path, decode):
  write_gif(tmp_path / 'a.gif', 7, 30)
  entry, = decode([tmp_path / 'a.gif'])
  digest = hashlib.sha256((tmp_path / 'a.gif').read_bytes()).hexdigest()
  assert entry._replace(path='') == cache_entries.Entry(
      '', 7, pytest.approx(0.7), 12, 16, '', (8, 8, 3), digest
  )
  frames = entry.load()
  assert frames.shape == (7, 8, 8, 3)
  assert frames[:, 0, 0, 0].tolist() == list(range(30, 37))


def test_content_is_decoded_once_for_each_setting(tmp_path, decode, decoded):
  a, b, moved = tmp_path / 'a.gif', tmp_path / 'b.gif', tmp_path / 'moved.gif'
  write_gif(a, 3)
  write_gif(b, 5)
  first = decode([a, b])
  assert decoded() == ['a.gif', 'b.gif']
  assert decode([a, b]) == first and decoded() == []
  a.rename(moved)
  os.utime(b)
  assert decode([b, moved]) == first[::-1] and decoded() == []
  for changed in (dict(height=4), dict(width=4), dict(fps=5)):
    decode([b], **changed)
    assert decoded() == ['b.gif']
  write_gif(b, 6)
  assert decode([b])[0].frames == 6 and decoded() == ['b.gif']


def test_files_are_not_read_again(tmp_path, decode, monkeypatch):
  write_gif(tmp_path / 'a.gif', 3)
  first = decode([tmp_path / 'a.gif'])
  # Nor is a worker started: reading would raise in this process only.
  monkeypatch.setattr(
      frame_cache.processes, 'run', lambda work, jobs, **_: iter(jobs and 1 / 0)
  )
  assert decode([tmp_path / 'a.gif']) == first


def test_half_a_line_of_hashes_costs_one_file(tmp_path, decode, decoded):
  files = [tmp_path / 'a.gif', tmp_path / 'b.gif']
  for n, file in enumerate(files, 2):
    write_gif(file, n)
  first = decode(files)
  decoded()
  hashes = tmp_path / 'cache' / 'hashes.jsonl'
  hashes.write_bytes(hashes.read_bytes()[:-9])
  assert decode(files) == first and decoded() == []
  assert len([x for x in hashes.read_text().split('\n') if x]) == 3
  # All three lines but the broken one can be read.
  assert len(frame_cache.hashes_lib.Hashes(hashes)._known) == 2


def test_reasons_are_kept_but_for_those_that_may_pass(
    tmp_path, decode, decoded
):
  (tmp_path / 'text.mp4').write_text('no video\n' * 40)
  (tmp_path / 'empty.mp4').touch()
  (tmp_path / 'bug.mp4').write_text('raise')
  files = [
      tmp_path / name
      for name in ('text.mp4', 'empty.mp4', 'gone.mp4', 'bug.mp4')
  ]
  reasons = [entry.reason for entry in decode(files)]
  assert reasons[:2] == ['Invalid data found when processing input'] * 2
  assert reasons[2] == 'No such file or directory'
  assert reasons[3] == 'RuntimeError: a bug of the decoder'
  assert decoded() == ['bug.mp4', 'empty.mp4', 'text.mp4']
  assert [entry.reason for entry in decode(files)] == reasons
  assert decoded() == ['bug.mp4']
  assert not list(tmp_path.glob('cache/??/.*'))
  write_gif(tmp_path / 'gone.mp4', 2)
  assert decode(files)[2].frames == 2


@pytest.mark.parametrize(
    'number, reason, kept',
    [
        (signal.SIGSEGV, 'the decoder crashed (SIGSEGV)', True),
        (signal.SIGKILL, 'the decoder was ended by SIGKILL, perhaps', False),
    ],
)
def test_a_crash_of_the_decoder_costs_one_file(
    tmp_path, decode, decoded, number, reason, kept
):
  files = []
  for i in range(6):
    files.append(tmp_path / f'{i}.gif')
    write_gif(files[-1], i + 1)
  files[2].write_text(f'signal {int(number)}')
  entries = decode(files)
  assert entries[2].reason.startswith(reason)
  assert [e.frames for e in entries] == [1, 2, 0, 4, 5, 6]
  decoded()
  assert decode(files)[2].reason.startswith(reason)
  assert bool(decoded()) != kept


def test_a_decoder_that_hangs_costs_one_file(tmp_path, decode, decoded):
  files = []
  for i in range(4):
    files.append(tmp_path / f'{i}.gif')
    write_gif(files[-1], i + 1)
  files[1].write_text('hang')
  entries = decode(files, patience=3)
  assert entries[1].reason == 'the decoder gave no frame for 3 s'
  assert [e.frames for e in entries] == [1, 0, 3, 4]
  decoded()
  assert decode(files) == entries and not decoded()


def test_parts_remember_apart_and_are_known_together(
    tmp_path, decode, decoded, monkeypatch
):
  files = [tmp_path / f'{i}.gif' for i in range(3)]
  for i, file in enumerate(files):
    write_gif(file, i + 1)
  cache = tmp_path / 'cache'
  assert frame_cache.undecoded(files, directory=cache, **SIZE) == [0, 1, 2]
  decode(files[:1], part='a')
  decode(files[1:2], part='b')
  assert sorted(path.name for path in cache.glob('*.jsonl')) == [
      'hashes.a.jsonl', 'hashes.b.jsonl'
  ]
  assert frame_cache.undecoded(files, directory=cache, **SIZE) == [2]
  decoded()
  assert [entry.frames for entry in decode(files)] == [1, 2, 3]
  assert decoded() == ['2.gif']


def test_workers_are_replaced(tmp_path, decode, decoded, monkeypatch):
  monkeypatch.setattr(frame_cache, 'FILES_PER_WORKER', 2)
  files = []
  for i in range(5):
    files.append(tmp_path / f'{i}.gif')
    write_gif(files[-1], i + 1)
  entries = decode(files, workers=1)
  assert [entry.frames for entry in entries] == [1, 2, 3, 4, 5]
  assert len(decoded()) == 5


def test_cut_off_frames_are_decoded_again(tmp_path, decode, decoded):
  write_gif(tmp_path / 'a.gif', 3)
  entry, = decode([tmp_path / 'a.gif'])
  os.truncate(entry.path, 100)
  decoded()
  assert decode([tmp_path / 'a.gif']) == [entry]
  assert decoded() == ['a.gif'] and len(entry.load()) == 3
  entry.remove()
  assert not [p for p in tmp_path.glob('cache/??/*')]


def test_old_parts_go_and_young_ones_stay(tmp_path, decode):
  folder = tmp_path / 'cache' / 'ab'
  folder.mkdir(parents=True)
  for name in ('.old.part-0.json', '.young.part-0.json'):
    (folder / name).touch()
  os.utime(folder / '.old.part-0.json', (0, 0))
  decode([])
  assert [p.name for p in folder.iterdir()] == ['.young.part-0.json']


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, decode):
  write_gif(tmp_path / 'a.gif', 3)
  (tmp_path / 'file').touch()
  with pytest.raises(storage.StorageError, match='^dir cannot be written'):
    decode([tmp_path / 'a.gif'], directory=tmp_path / 'file' / 'cache')


SCRIPT = '''
import pathlib, sys
from tests.unit.data import test_frame_cache as test_cache
from video_diffusion.data import frame_cache
from video_diffusion.data import storage
if __name__ == '__main__':
  files = sorted(pathlib.Path(sys.argv[1]).iterdir())
  entries = frame_cache.decode(files, directory=sys.argv[2], height=8, width=8,
                         workers=2, read=test_cache.logged_read)
  assert [entry.load()[0, 0, 0, 0] for entry in entries] == [*range(24)]
'''


def start(script, *arguments, **environment):
  return subprocess.Popen(
      [sys.executable, script, *map(str, arguments)],
      env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
      start_new_session=True,
      stderr=subprocess.PIPE,
      text=True,
  )


@pytest.fixture(name='slow')
def slow_files(tmp_path):
  (tmp_path / 'slow').mkdir()
  (tmp_path / 'main.py').write_text(SCRIPT)
  for i in range(24):
    (tmp_path / 'slow' / f'{i:02d}').write_bytes(b'slow' + bytes([i]))
  return tmp_path / 'slow'


def kept(tmp_path):
  """Files of the cache that say that an entry is whole -> their inodes."""
  return {p: p.stat().st_ino for p in tmp_path.glob('cache/??/*.json')}


@pytest.mark.parametrize('whole_group', [True, False])
def test_killed_halfway_nothing_is_decoded_twice(
    tmp_path, slow, decoded, whole_group
):
  arguments = tmp_path / 'main.py', slow, tmp_path / 'cache'
  process = start(*arguments, STAND_STILL_AFTER='12')
  until(lambda: len(kept(tmp_path)) >= 6, process)
  if whole_group:
    os.killpg(process.pid, signal.SIGKILL)
  else:
    process.kill()  # the workers end by themselves
  process.communicate()  # until the last of them has closed its output
  before = kept(tmp_path)
  assert 6 <= len(before) < 20
  decoded()
  again = start(*arguments)
  _, errors = again.communicate(timeout=LIMIT)
  assert again.returncode == 0, errors
  assert len(decoded()) == 24 - len(before)
  after = kept(tmp_path)
  assert len(after) == 24 and before.items() <= after.items()


def test_two_at_once_share_the_work(tmp_path, slow, decoded):
  arguments = tmp_path / 'main.py', slow, tmp_path / 'cache'
  both = [start(*arguments), start(*arguments)]
  for process in both:
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
  assert len(kept(tmp_path)) == 24
  # Twice is what both took at the same time; were it all, it would be 48.
  assert 24 <= len(decoded()) < 44
  lines = (tmp_path / 'cache' / 'hashes.jsonl').read_text().split('\n')
  assert all(len(json.loads(line)) == 5 for line in lines if line)
