"""A pool of processes that survives what its jobs do to it."""
import multiprocessing
import os
import signal
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
