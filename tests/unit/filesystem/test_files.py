"""Files and folders that are written whole or not at all."""
import os
import stat
import subprocess
import sys

import pytest

from video_diffusion.filesystem import files


def test_a_written_file_appears_whole_with_the_rights_of_the_umask(tmp_path):
  path = tmp_path / 'a.bin'
  with files.writing(path) as part:
    assert part.parent == tmp_path and part.suffix == '.bin'
    part.write_bytes(b'half')
    assert not path.exists()
    part.write_bytes(b'whole')
  plain = tmp_path / 'plain'
  plain.write_bytes(b'')
  assert path.read_bytes() == b'whole'
  assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
  assert sorted(tmp_path.iterdir()) == [path, plain]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'a.txt'
  files.write(path, 'old')
  with pytest.raises(RuntimeError):
    with files.writing(path) as part:
      part.write_text('new')
      raise RuntimeError
  assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_an_error_of_writing_names_the_file_that_was_meant(tmp_path):
  path = tmp_path / 'missing' / 'a.txt'
  with pytest.raises(OSError) as error:
    files.write(path, 'x')
  assert error.value.filename == str(path)
  with pytest.raises(OSError) as error:
    with files.writing(tmp_path / 'b') as part:
      part.write_bytes(b'x')
      raise OSError(28, 'No space left on device')
  assert error.value.filename == str(tmp_path / 'b')


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path):
  folder = tmp_path / 'deep' / 'weights'
  with files.writing_folder(folder) as part:
    (part / 'a').write_text('1')
  with pytest.raises(RuntimeError):
    with files.writing_folder(folder) as part:
      (part / 'b').write_text('2')
      raise RuntimeError
  assert [p.name for p in folder.iterdir()] == ['a']
  with files.writing_folder(folder) as part:
    (part / 'b').write_text('2')
    (part / 'c').mkdir()
  assert sorted(p.name for p in folder.iterdir()) == ['b', 'c']
  assert list(folder.parent.iterdir()) == [folder]


def test_parts_of_killed_processes_are_removed(tmp_path):
  code = (
      'import os, sys; from video_diffusion.filesystem import files\n'
      'with files.writing(sys.argv[1]) as part:\n'
      '  part.write_text("half"); os._exit(9)'
  )
  path = tmp_path / 'a.gif'
  subprocess.run([sys.executable, '-c', code, path], check=False)
  assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
  (tmp_path / 'kept').touch()
  files.remove_parts(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['kept']


def test_parts_of_an_age_are_removed_and_younger_ones_stay(tmp_path):
  for name in ('.old.part-1.txt', '.young.part-2.txt', '.folder.part-3'):
    (tmp_path / name).touch() if '.txt' in name else (tmp_path / name).mkdir()
  os.utime(tmp_path / '.old.part-1.txt', (0, 0))
  os.utime(tmp_path / '.folder.part-3', (0, 0))
  files.remove_parts(tmp_path, age=3600)
  assert [p.name for p in tmp_path.iterdir()] == ['.young.part-2.txt']
