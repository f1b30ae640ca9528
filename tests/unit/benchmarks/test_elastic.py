import signal
import subprocess
import sys
import time

import pytest

from benchmarks import elastic


def test_a_run_goes_to_fewer_devices_and_back():
  assert elastic.legs(8) == (2, 8, 1, 8)
  assert elastic.legs(2) == (1, 2)


def test_differences_are_relative_and_of_these_steps_alone():
  whole = {i: {'loss': 0.5} for i in range(1, 6)}
  ours = whole | {2: {'loss': 0.6}, 4: {'loss': 0.49}}
  assert elastic.difference(ours, whole, range(3, 6), 'loss') == (
      pytest.approx(0.02)
  )
  with pytest.raises(KeyError):  # a step that is missing
    elastic.difference(ours, whole, range(3, 7), 'loss')


def test_a_process_is_killed_at_a_moment_that_lasts():
  asked = []

  def there():
    asked.append(time.monotonic())
    return len(asked) not in (1, 3)  # at the third it has passed by then

  sleep = 'import time; time.sleep(60)'
  process = subprocess.Popen([sys.executable, '-c', sleep])
  assert elastic.kill_when(process, there)
  assert process.returncode == -signal.SIGKILL and len(asked) == 5
  ended = subprocess.Popen([sys.executable, '-c', ''])
  assert not elastic.kill_when(ended, lambda: False)


@pytest.mark.parametrize('flags, words', [
    (['--devices=1'], 'at least 2'),
    (['--devices=3', '--batch=6', '--mesh=tensor_fsdp'], 'have no'),
    (['--devices=8', '--batch=12'], 'divides --batch'),
])
def test_flags_that_are_refused(flags, words, tmp_path, capsys):
  with pytest.raises(SystemExit):
    elastic.main([str(tmp_path), *flags])
  assert words in capsys.readouterr().err
