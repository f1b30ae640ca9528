"""A folder that one process holds."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from video_diffusion.errors import UserError
from video_diffusion.filesystem import locks

HOLD = """
import sys, time
from video_diffusion.filesystem import locks
{patch}
lock = locks.Lock(sys.argv[1], advice='pass another')
lock.acquire()
print('held', flush=True)
sys.stdin.read()  # until the test ends it, or ends
"""
OTHER_HOST = """
import socket
socket.gethostname = lambda: 'other-host'
locks.PERIOD = {period}
"""


def hold(folder, patch=''):
  """A process that holds `folder`, once it does."""
  process = subprocess.Popen(
      [sys.executable, '-c', HOLD.format(patch=patch), folder],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
      text=True, env={**os.environ, 'PYTHONPATH': os.getcwd()},
  )
  assert process.stdout.readline() == 'held\n'
  return process


@pytest.fixture
def fast(monkeypatch):
  """Marks whose period is short; returns it."""
  monkeypatch.setattr(locks, 'PERIOD', 1.0)
  return 1.0


def test_a_held_folder_is_refused_and_names_its_holder(tmp_path):
  holder = hold(tmp_path)
  lock = locks.Lock(tmp_path, advice='pass another --workdir')
  with pytest.raises(
      UserError,
      match=f'is in use by process {holder.pid} on .+ since 20.+; pass another '
      '--workdir',
  ):
    lock.acquire()
  # The holder is killed: its mark is nobody's at once.
  holder.kill()
  holder.wait()
  with lock:
    mark = json.loads((tmp_path / '.lock').read_text())
    assert mark['process'] == os.getpid()
  assert list(tmp_path.iterdir()) == []


def test_a_process_may_wait_until_the_folder_is_free(tmp_path, fast):
  holder = hold(tmp_path)
  lock = locks.Lock(tmp_path, wait=True)
  assert not lock.attempt()
  # A process that is killed while it waits leaves nothing.
  assert [path.name for path in tmp_path.iterdir()] == ['.lock']
  waiter = threading.Thread(target=lock.acquire)
  waiter.start()
  holder.kill()
  holder.wait()
  waiter.join()
  assert json.loads((tmp_path / '.lock').read_text())['process'] == os.getpid()
  lock.release()


def test_a_process_that_was_given_the_number_again_is_no_holder(tmp_path):
  with locks.Lock(tmp_path, advice=''):
    mark = json.loads((tmp_path / '.lock').read_text())
  (tmp_path / '.lock').write_text(json.dumps(mark | {'process_began': '1'}))
  with locks.Lock(tmp_path, advice=''):
    pass


def test_another_persons_process_that_is_hidden_may_run(tmp_path, monkeypatch):
  """As /proc mounted with hidepid does, and kill of what is not one's own."""
  holder = hold(tmp_path)
  mark = json.loads((tmp_path / '.lock').read_text())

  def kill(*_):
    raise PermissionError

  began = locks._began
  monkeypatch.setattr(os, 'kill', kill)
  assert locks._is_alive(mark) is True
  monkeypatch.setattr(
      locks, '_began', lambda n: '' if n == holder.pid else began(n)
  )
  assert locks._is_alive(mark) is None
  monkeypatch.undo()
  holder.kill()
  holder.wait()
  assert locks._is_alive(mark) is False


def test_another_hosts_mark_holds_while_it_is_renewed(tmp_path, fast):
  holder = hold(tmp_path, OTHER_HOST.format(period=fast))
  lock = locks.Lock(tmp_path, advice='wait')
  began = time.monotonic()
  while time.monotonic() - began < 4 * fast:
    with pytest.raises(UserError, match='other-host'):
      lock.acquire()
    time.sleep(fast / 4)
  # Its host goes away: the mark is stale after some periods, not before.
  holder.kill()
  holder.wait()
  began = time.monotonic()
  while True:
    try:
      lock.acquire()
      break
    except UserError:
      time.sleep(0.1)
  assert time.monotonic() - began > (locks.STALE - 2) * fast
  lock.release()


def test_a_holder_that_stood_still_notices_that_it_lost_the_folder(tmp_path):
  patch = OTHER_HOST.format(period=0.2) + 'locks.STALE = 4\n'
  code = HOLD.format(patch=patch).replace(
      'sys.stdin.read()',
      'time.sleep(8)\ntry:\n  lock.check()\nexcept locks.UserError as e:\n'
      '  print(e)\nlock.release()',
  )
  process = subprocess.Popen(
      [sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'held\n'
  process.send_signal(signal.SIGSTOP)
  mark = tmp_path / '.lock'
  os.utime(mark, (time.time() - 100,) * 2)
  with locks.Lock(tmp_path, advice=''):
    process.send_signal(signal.SIGCONT)
    said = process.stdout.read()
    process.wait()
    # It has not deleted the mark, which is no longer its own.
    assert json.loads(mark.read_text())['process'] == os.getpid()
  assert 'which has taken it over while this process stood still' in said
  assert said.strip().endswith('; pass another.')


def test_many_at_once_one_holds(tmp_path):
  code = HOLD.format(patch='').replace(
      "lock.acquire()", "\ntry:\n  lock.acquire()\nexcept locks.UserError:\n"
      "  print('refused'); sys.exit()"
  )
  (tmp_path / '.lock').write_text(
      json.dumps(locks._here() | {'process': 2**22 + 1, 'token': 'stale'})
  )
  crowd = [
      subprocess.Popen(
          [sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE,
          stdin=subprocess.PIPE, text=True,
      )
      for _ in range(4)
  ]
  said = [process.stdout.readline() for process in crowd]
  for process in crowd:
    process.kill()
    process.wait()
  assert sorted(said) == ['held\n'] + ['refused\n'] * 3
  assert {p.name for p in pathlib.Path(tmp_path).iterdir()} == {'.lock'}
