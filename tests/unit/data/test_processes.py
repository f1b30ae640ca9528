"""A pool of processes that survives what its jobs do to it."""
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from video_diffusion.data import processes


def double(x):
  return 2 * x


def double_or_die(x):
  if x < 0:
    time.sleep(0.1)  # others are in work
    os.kill(os.getpid(), -x)
    time.sleep(10)
  return 2 * x


def fail_or_exit(x):
  if x:
    os._exit(3)
  raise KeyError('a bug')


def own_id(x):
  return os.getpid()


def test_every_job_once():
  jobs = [(f'job {i}', i) for i in range(7)]
  found = dict(processes.run(double, jobs, workers=2, jobs_per_worker=2))
  assert found == {job: 2 * job[1] for job in jobs}
  assert list(processes.run(double, [], jobs_per_worker=2)) == []


def test_processes_are_replaced():
  jobs = [(i, i) for i in range(5)]
  found = processes.run(own_id, jobs, workers=1, jobs_per_worker=2)
  assert len({pid for _, pid in found} - {os.getpid()}) == 3


@pytest.mark.parametrize('number', [signal.SIGSEGV, signal.SIGKILL])
def test_the_job_that_kills_is_found(number):
  jobs = [(0, 1), (1, -int(number)), (2, 3), (3, 4), (4, 5)]
  found = dict(processes.run(double_or_die, jobs, workers=2, jobs_per_worker=9))
  assert found.pop(jobs[1]) == processes.Died(number)
  assert sorted(found.values()) == [2, 6, 8, 10]


def test_errors_are_raised():
  with pytest.raises(KeyError, match='a bug'):
    list(processes.run(fail_or_exit, [(0, 0)], jobs_per_worker=9))
  with pytest.raises(RuntimeError, match='ended with exit code 3'):
    list(processes.run(fail_or_exit, [(0, 1)], jobs_per_worker=9))


def test_an_error_of_a_process_says_where_it_was():
  spawn = multiprocessing.get_context('spawn')
  with pytest.raises(KeyError) as error:
    processes._run_alone(spawn, fail_or_exit, (0,))
  assert 'in fail_or_exit' in error.value.__notes__[0]


def test_usable_cores():
  assert 1 <= processes.usable_cores() <= os.cpu_count()


def test_an_end_amid_a_start_prints_nothing():
  """Also where a process has been spawned and not yet been given its work."""
  program = textwrap.dedent("""
      import multiprocessing.util, os, threading, time
      from video_diffusion.data import processes
      spawn = multiprocessing.util.spawnv_passfds

      def slow(*args):
        pid = spawn(*args)
        if any(b'spawn_main' in arg for arg in map(os.fsencode, args[1])):
          spawned.set()
          time.sleep(0.5)
        return pid

      if __name__ == '__main__':
        multiprocessing.util.spawnv_passfds = slow
        spawned = threading.Event()
        run = processes.run(abs, [(0, 1)] * 9, jobs_per_worker=9)
        threading.Thread(target=lambda: list(run), daemon=True).start()
        spawned.wait()
        processes.kill_children()
        print('ended', flush=True)
        os._exit(0)
  """)
  ended = subprocess.run(
      [sys.executable, '-c', program], capture_output=True, text=True
  )
  assert ended.stdout == 'ended\n'
  assert 'Traceback' not in ended.stderr, ended.stderr
