"""SIGTERM and SIGINT: nothing is lost, and a supervisor knows what to do.

Clouds and schedulers announce with SIGTERM that a machine goes away: the exit
code asks them to start the same command again. Ctrl-C, SIGINT, is a person's:
the exit code says that the run was stopped. What is to be done then depends on
what the process does:

- from `hold` to `release` (steps and saves) the loop is told by `requested`,
  saves, and ends by `leave`;
- anywhere else (compiling, restoring, sampling, evaluating) whatever is not
  saved can be done again, so the process ends at once, after a save that is
  still being written.

A Ctrl-C that follows another signal ends the process at once.

A Python signal handler does not run while the main thread is inside XLA, which
may compile for minutes: a thread of its own waits for the signal instead.
"""
from collections.abc import Callable
import contextlib
import os
import signal
import socket
import sys
import threading

from absl import logging
import jax

from video_diffusion.data import processes
from video_diffusion.errors import UserError
from video_diffusion.filesystem import locks

EXIT_CODES = {
    signal.SIGTERM: 75,  # EX_TEMPFAIL: start the same command again
    signal.SIGINT: 130,  # what shells say of Ctrl-C: stopped by a person
}
FAILED = 1  # something that was to be kept is not
SOON_SECONDS = 0.5  # an end that takes longer is announced
GRACE_SECONDS = 45.0  # a hold that lasts longer is left without its save


class Preemption:
  """Watches for SIGTERM and SIGINT from `start` on.

  Attributes:
    requested: the first of them that has come, else None.
  """

  def __init__(self):
    self.requested = None
    self._before_exit = lambda: 'what is finished is kept'
    self._held = threading.Lock()
    self._holding = self._leaving = False
    self._exiting = threading.Lock()

  def start(self) -> None:
    """Takes the signals over; in the main thread, after jax.distributed."""
    self._read, self._write = socket.socketpair()
    self._write.setblocking(False)
    signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
    for number in EXIT_CODES:
      # Scripts and nohup start what Ctrl-C shall not end with SIGINT ignored.
      if signal.getsignal(number) != signal.SIG_IGN:
        # Python's own handler has nothing to do: the byte is the message.
        signal.signal(number, lambda *_: None)
    threading.Thread(target=self._watch, daemon=True).start()

  def before_exit(self, wait: Callable[[], str]) -> None:
    """Sets what is called before an exit.

    Args:
      wait: waits for a save in flight, from any thread, and says what is kept,
        as 'what is finished is kept'. It raises UserError where a save has
        failed.
    """
    self._before_exit = wait

  def hold(self) -> None:
    """From here to `release`, a signal only sets `requested`."""
    if not self._holding:
      self._held.acquire()
      self._holding = True

  def release(self) -> None:
    """All is saved; where a signal has come the process ends here."""
    if self._holding:
      self._holding = False
      self._held.release()
      if self.requested:
        self._exit()

  def leave(self, number: signal.Signals) -> None:
    """Ends every process after the save on which all agreed.

    Args:
      number: SIGTERM or SIGINT; which of the two came, to any process.
    """
    self.requested, self._leaving = number, True
    if jax.process_count() > 1:
      with contextlib.suppress(UserError):  # _exit says it
        self._before_exit()
      jax.distributed.shutdown()  # waits for the others
    self._exit()

  def _watch(self):
    while data := self._read.recv(64):
      for number in filter(EXIT_CODES.__contains__, data):
        if self.requested is None:
          self.requested = signal.Signals(number)
          threading.Thread(target=self._end, daemon=True).start()
        elif number == signal.SIGINT:
          logging.error(
              'Ctrl-C again: ended at once, without a save. Exit code %d.',
              EXIT_CODES[signal.SIGINT],
          )
          _end_process(EXIT_CODES[signal.SIGINT])

  def _end(self):
    if not self._held.acquire(timeout=SOON_SECONDS):
      logging.info(
          '%s: the step in work is ended and saved first; Ctrl-C ends at once.',
          self.requested.name,
      )
      if not self._held.acquire(timeout=GRACE_SECONDS):
        if self._leaving:
          return  # it is being saved
        logging.error('A step has not ended in %.0f s.', GRACE_SECONDS)
    self._exit()

  def _exit(self):
    self._exiting.acquire()  # for good: one thread ends the process
    name, code = self.requested.name, EXIT_CODES[self.requested]
    try:
      kept = self._before_exit()
      logging.info(
          '%s: %s; the same command continues. Exit code %d.', name, kept, code
      )
    except UserError as error:
      code = FAILED
      logging.error('%s: %s Exit code %d.', name, error, code)
    except Exception:  # a bug of ours; the process must end all the same
      code = FAILED
      logging.exception('%s: Exit code %d.', name, code)
    _end_process(code)


def _end_process(code):
  processes.kill_children()
  locks.release_all()
  logging.flush()
  sys.stdout.flush()
  os._exit(code)  # not sys.exit: the main thread may be inside XLA
