"""Runs work in a pool of processes, whose death ends no more than one job."""
import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from typing import Any, NamedTuple

# What terminals and schedulers send to a whole group of processes.
GROUP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
START_SECONDS = 5.0  # a process takes milliseconds to be given its work

_starting = threading.Lock()


class Died(NamedTuple):
  """The result of a job whose process died."""

  signal: signal.Signals


def run(
    work: Callable[..., Any],
    jobs: Iterable[tuple],
    *,
    workers: int = 0,
    jobs_per_worker: int,
) -> Iterator[tuple[tuple, Any]]:
  """Yields (job, work(*job[1:])) for all jobs, in any order.

  When a process dies, those of its pool that were in work are done again, one
  at a time in a process of its own each: so the one to blame is found. The
  processes are spawned, since the threads of JAX forbid to fork; they end with
  this one, however it ends.

  Args:
    work: a function that can be pickled.
    jobs: the first element of each is for the caller alone.
    workers: processes; 0 is one for each usable core.
    jobs_per_worker: after as many jobs of each the processes are replaced:
      what they leak goes with them. (max_tasks_per_child of the standard
      library can wait for ever, python/cpython#115634.)

  Yields:
    The result, or `Died` where the job kills its process by a signal.

  Raises:
    Exception: what `work` raised.
    RuntimeError: a process ended by itself.
  """
  spawn = multiprocessing.get_context('spawn')
  jobs = collections.deque(jobs)
  workers = min(workers or usable_cores(), len(jobs)) or 1
  while jobs:
    in_work, left = {}, workers * jobs_per_worker
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=_start
    ) as pool:
      try:
        while in_work or (jobs and left):
          while jobs and left and len(in_work) < 2 * workers:
            with born_deaf():
              in_work[pool.submit(work, *jobs[0][1:])] = jobs[0]
            jobs.popleft()
            left -= 1
          finished, _ = concurrent.futures.wait(
              in_work, return_when=concurrent.futures.FIRST_COMPLETED
          )
          for future in finished:
            result = future.result()
            yield in_work.pop(future), result
      except concurrent.futures.process.BrokenProcessPool:
        pass  # a process died, and all that was in work with it
    for job in in_work.values():
      yield job, _run_alone(spawn, work, job[1:])


def _run_alone(spawn, work, arguments):
  """The same in a process of its own."""
  receiver, sender = spawn.Pipe(duplex=False)
  process = spawn.Process(target=_send_result, args=(sender, work, arguments))
  with born_deaf():
    process.start()
  sender.close()  # or the end of the process would go unnoticed
  try:
    result = receiver.recv()
  except EOFError:
    result = None
  process.join()
  if isinstance(result, Exception):
    raise result
  if result is not None:
    return result
  if process.exitcode >= 0:
    raise RuntimeError(f'a process ended with exit code {process.exitcode}')
  return Died(signal.Signals(-process.exitcode))


def _send_result(sender, work, arguments):
  _start()
  try:
    sender.send(work(*arguments))
  except Exception as error:
    error.add_note(traceback.format_exc())  # which pickle leaves behind
    sender.send(error)


def _start():
  """Ends a process when its parent ends, which decides what Ctrl-C means.

  A terminal sends it to all; who ended of it would pass for a file that kills.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Ends a job that sets itself a limit, whatever its C code is doing.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  signal.pthread_sigmask(
      signal.SIG_UNBLOCK, GROUP_SIGNALS | {signal.SIGALRM}
  )
  end_with_parent()


@contextlib.contextmanager
def born_deaf() -> Iterator[None]:
  """Starts the processes that the block spawns with GROUP_SIGNALS blocked.

  Until they have said what these mean, Ctrl-C would print a traceback of each.
  `kill_children` waits for the end of the block.
  """
  with _starting:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
      yield
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def kill_children() -> None:
  """Kills the processes that this one started; from any thread, before _exit.

  A process whose parent ends before it has been given its work would print a
  traceback: a start that another thread has begun is waited for, and no other
  one can begin after it.
  """
  _starting.acquire(timeout=START_SECONDS)  # for good
  for process in multiprocessing.active_children():
    process.kill()


def end_with_parent() -> None:
  """Ends this process when its parent has ended, however that was."""

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def usable_cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
