"""Which files of a folder are data, and what is said of the others."""
import errno
import os

import pytest

from video_diffusion.data import listing

SUFFIXES = ('.mp4', '.mov', '.webm', '.gif')


def find(folder, **options):
  return listing.find(folder, SUFFIXES, **options)


def names(folder, **options):
  return [
      path.relative_to(folder).as_posix()
      for path in find(folder, **options).files
  ]


def touch(folder, *paths):
  for path in paths:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).touch()


def test_finds_videos_below_the_folder_in_order(tmp_path):
  (tmp_path / 'folder.mp4').mkdir()
  touch(tmp_path, 'z.MP4', 'b/y.WebM', 'b/x.gif', 'a.mov', 'notes.txt', 'mp4',
        '.mp4', 'b/._x.gif', '.hidden/a.mp4')
  os.mkfifo(tmp_path / 'pipe.mp4')  # to open it would wait for ever
  assert names(tmp_path) == ['a.mov', 'b/x.gif', 'b/y.WebM', 'z.MP4']
  assert find(tmp_path)[1:3] == ([], [])


def test_the_current_folder(tmp_path, monkeypatch):
  touch(tmp_path, 'a.mp4', 'b/c.mp4')
  monkeypatch.chdir(tmp_path)
  assert [os.fspath(p) for p in find('.').files] == ['a.mp4', 'b/c.mp4']


def test_links_to_folders_are_followed_once(tmp_path):
  touch(tmp_path, 'disk/a.mp4')
  (tmp_path / 'disk' / 'back').symlink_to(tmp_path / 'disk')
  (tmp_path / 'videos').mkdir()
  (tmp_path / 'videos' / 'train').symlink_to(tmp_path / 'disk')
  assert names(tmp_path / 'videos') == ['train/a.mp4']


def test_links_to_nothing_are_not_passed_over(tmp_path):
  touch(tmp_path, 'a.mp4')
  for name in ('b.mp4', 'train', 'v1.0', 'notes.txt'):
    (tmp_path / name).symlink_to(tmp_path / 'unmounted' / name)
  (tmp_path / 'self.mp4').symlink_to(tmp_path / 'self.mp4')
  found = find(tmp_path)
  # The reader of a video finds the reason.
  assert [p.name for p in found.files] == ['a.mp4', 'b.mp4', 'self.mp4']
  assert found.skipped == [
      {'file': 'train', 'reason': 'a link to nothing'},
      {'file': 'v1.0', 'reason': 'a link to nothing'},
  ]


@pytest.fixture(name='broken')
def folders_that_cannot_be_read(monkeypatch):
  """Paths -> errno: root may read all, so the system's answer is replaced."""
  scandir, broken = os.scandir, {}

  def scan(path):
    if number := broken.get(os.fspath(path)):
      raise OSError(number, os.strerror(number), os.fspath(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', scan)
  return broken


def test_folders_that_cannot_be_read_are_named(tmp_path, broken):
  touch(tmp_path, 'a.mp4', 'private/b.mp4', 'deep/disk/c.mp4', 'deep/d.mp4')
  broken[f'{tmp_path}/private'] = errno.EACCES
  broken[f'{tmp_path}/deep/disk'] = errno.EIO
  found = find(tmp_path)
  assert names(tmp_path) == ['a.mp4', 'deep/d.mp4']
  assert found.skipped == [
      {'file': 'deep/disk/',
       'reason': 'the folder cannot be read: Input/output error'},
      {'file': 'private/',
       'reason': 'the folder cannot be read: Permission denied'},
  ]


def test_names_in_no_encoding_are_kept(tmp_path):
  name = os.path.join(os.fsencode(tmp_path), b'caf\xe9.mp4')
  try:
    open(name, 'w').close()
  except OSError:
    pytest.skip('the file system takes UTF-8 alone')
  file, = find(tmp_path).files
  assert os.fsencode(file) == name


def test_folders_of_runs_are_left_out(tmp_path):
  touch(tmp_path, 'a.mp4', 'runs/mine/samples/s.mp4', 'runs/b.mp4',
        'runs/looked/inspect/batch.mp4', 'runs/looked/inspect/batch.gif',
        'runs/looked/inspect/inspect.json', 'other/c.mp4', 'data/d.mp4')
  (tmp_path / 'runs' / 'mine' / 'config.json').write_text(
      '{"seed": 0, "data_fingerprint": ""}'
  )
  (tmp_path / 'other' / 'config.json').write_text('{"camera": 3}')
  assert names(tmp_path) == ['a.mp4', 'data/d.mp4', 'other/c.mp4', 'runs/b.mp4']
  assert find(tmp_path).left_out == ['runs/looked/inspect', 'runs/mine']
  assert names(tmp_path, leave_out=[tmp_path / 'data', tmp_path]) == [
      'a.mp4', 'other/c.mp4', 'runs/b.mp4'
  ]


def test_many_folders_of_runs_do_not_flood_the_log(tmp_path, caplog):
  for i in range(13):
    touch(tmp_path, f'runs/{i:02d}/config.json')
    (tmp_path / f'runs/{i:02d}/config.json').write_text(
        '{"data_fingerprint": ""}'
    )
  find(tmp_path).log()
  assert caplog.messages[-1].endswith('runs/08, runs/09 and 3 more.')


def test_other_kinds_are_counted_by_suffix(tmp_path, caplog):
  touch(tmp_path, 'a.mp4', 'b.TXT', 'c/d.txt', 'c/e.json', 'README', '.x.txt',
        'Captions.csv', 'c/captions.csv', 'my_captions.csv', 'c/rows.tsv',
        'runs/unread/notes.txt')
  (tmp_path / 'runs' / 'unread' / 'config.json').write_text(
      '{"data_fingerprint": ""}'
  )
  # Captions have their place: elsewhere they are not read.
  found = find(tmp_path, companions=('captions.csv', '*.tsv'))
  assert found.unread == {'.txt': 2, '.csv': 2, '.json': 1, '': 1}
  found.log()
  assert (
      'Files of other kinds are not read; by suffix there are .csv 2, .txt 2, '
      'no suffix 1, .json 1.'
  ) in caplog.text
