"""SIGTERM: nothing is lost, and a supervisor knows to start the run again.

Clouds and schedulers announce with SIGTERM that a machine goes away. What is to
be done then depends on what the process does:

- from `hold` to `release` (steps and saves) the loop is told by `requested`,
  saves, and ends by `leave`;
- anywhere else (compiling, restoring, sampling, evaluating) whatever is not
  saved can be done again, so the process ends at once, after a save that is
  still being written.

A Python signal handler does not run while the main thread is inside XLA, which
may compile for minutes: a thread of its own waits for the signal instead.
"""
from collections.abc import Callable
import os
import signal
import socket
import sys
import threading

from absl import logging
import jax

from video_diffusion.errors import UserError

EXIT_CODE = 75  # EX_TEMPFAIL: start the same command again
GRACE_SECONDS = 45.0  # a hold that lasts longer is left without its save


class Preemption:
  """Watches for SIGTERM from `start` to `stop`.

  Attributes:
    requested: SIGTERM has come.
  """

  def __init__(self):
    self.requested = False
    self._before_exit = lambda: None
    self._held = threading.Lock()
    self._holding = False

  def start(self) -> None:
    """Takes SIGTERM over; in the main thread, after jax.distributed."""
    self._read, self._write = socket.socketpair()
    self._write.setblocking(False)
    self._old_fd = signal.set_wakeup_fd(
        self._write.fileno(), warn_on_full_buffer=False
    )
    # The handler of Python's own has nothing to do: the byte is the message.
    self._old_handler = signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=self._watch, daemon=True).start()

  def stop(self) -> None:
    """Gives SIGTERM back."""
    signal.set_wakeup_fd(self._old_fd)
    signal.signal(signal.SIGTERM, self._old_handler)
    self._write.close()

  def before_exit(self, wait: Callable[[], None]) -> None:
    """Called before an exit at once: waits for a save in flight."""
    self._before_exit = wait

  def hold(self) -> None:
    """From here to `release`, SIGTERM only sets `requested`."""
    if not self._holding:
      self._held.acquire()
      self._holding = True

  def release(self) -> None:
    """All is saved; where SIGTERM has come the process ends here."""
    if self._holding:
      self._holding = False
      self._held.release()
      if self.requested:
        self._exit()

  def leave(self) -> None:
    """Ends every process after the save on which all agreed."""
    self._before_exit()
    if jax.process_count() > 1:
      jax.distributed.shutdown()  # waits for the others
    self._exit()

  def _watch(self):
    while data := self._read.recv(64):
      if signal.SIGTERM in data:
        self.requested = True
        logging.info('SIGTERM has come.')
        if not self._held.acquire(timeout=GRACE_SECONDS):
          logging.error('A step has not ended in %.0f s.', GRACE_SECONDS)
        self._exit()

  def _exit(self):
    try:
      self._before_exit()
    except UserError as error:
      logging.error('%s', error)
    logging.info(
        'SIGTERM: all that was to be kept is saved. Exit code %d.', EXIT_CODE
    )
    logging.flush()
    sys.stdout.flush()
    os._exit(EXIT_CODE)  # not sys.exit: the main thread may be inside XLA
