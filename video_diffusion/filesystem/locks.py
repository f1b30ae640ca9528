"""One way to take a folder: a mark in it that says which process holds it.

The holder renews the mark, so that one that nobody holds is recognised.
"""
import atexit
import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
import uuid

from absl import logging
from etils import epath

from video_diffusion.errors import UserError
from video_diffusion.filesystem.files import is_local

MARK = '.lock'
PERIOD = 10.0  # seconds between two renewals of a mark
STALE = 6.0  # periods without a renewal after which a mark is nobody's
SETTLE_SECONDS = 0.2  # that a new mark is watched where others want it too
RELEASE_SECONDS = 2.0  # that an exit waits for a mark to be deleted


class Lock:
  """A folder that one process holds, from `acquire` to `release`.

  The mark is a file in the folder that names the process, its host and the
  time. A thread renews it every PERIOD seconds. A mark is stale, and is taken
  over, where its process on this machine has ended, or where it has not been
  renewed for STALE periods. A process that cannot be seen from here is waited
  for until its mark is renewed or stale: a restart after a kill waits, and is
  not refused. Age is told by the clock of the folder's file system, so that
  hosts whose clocks differ agree.

  Usable as a context manager. What is held when the interpreter ends is
  released; before os._exit call `release_all`.
  """

  def __init__(
      self, folder: epath.PathLike, *, advice: str = '', wait: bool = False
  ):
    """Prepares a lock; takes nothing yet.

    Args:
      folder: local or gs://; `acquire` makes it.
      advice: what the person can do where the folder is in use, the end of the
        sentence, as 'pass another --workdir'.
      wait: True waits until the folder is free instead of raising.
    """
    self._folder, self._advice = epath.Path(folder), advice
    self._wait = wait
    self._mark = self._folder / MARK
    self._token = uuid.uuid4().hex
    now = datetime.datetime.now().astimezone()
    self._since = now.isoformat(' ', 'seconds')
    self._renewing = threading.Lock()
    self._released = threading.Event()
    self._released.set()
    self._made = self._told = False
    self._seen = None  # (token, time of renewal) of another's mark
    self._lost = ''

  def acquire(self) -> None:
    """Takes the folder.

    Raises:
      UserError: another process holds it, and `wait` is False; names the
        process, host and time.
      OSError: the folder cannot be written.
    """
    while not self.attempt():
      time.sleep(PERIOD / 10)

  def attempt(self) -> bool:
    """As `acquire`, but returns False where it would wait; call it again."""
    mine = self._folder / f'{MARK}.{self._token}'
    held = None
    try:
      while held is None:
        if not self._folder.exists():
          self._folder.mkdir(parents=True, exist_ok=True)
          self._made = True
        try:
          mine.write_text(json.dumps(self._content()))
          held = (self._link(mine) and self._is_kept(mine)) or (
              self._take_over(_renewed(mine))
          )
        except FileNotFoundError:
          continue  # the holder has just released, and deleted, the folder
    finally:
      mine.unlink(missing_ok=True)
    if held:
      self._released.clear()
      _held.add(self)
      threading.Thread(target=self._keep_renewing, daemon=True).start()
    return held

  def _is_kept(self, mine) -> bool:
    """Whether the mark just made is still ours once contenders have acted.

    One that has read a stale mark before may take this one aside, by mistake;
    it puts it back, unless a third process was quicker.
    """
    contenders = set(self._folder.glob(f'{MARK}.*')) - {mine}
    if contenders and is_local(mine):
      time.sleep(SETTLE_SECONDS)
    return (self._read() or {}).get('token') == self._token

  def _take_over(self, now) -> bool | None:
    """None where the mark is gone, False where one must wait for its holder.

    Raises:
      UserError: as `acquire`.
    """
    theirs, renewed = self._holder()
    if theirs is None:
      return None  # it has just been released
    if theirs.get('token') == self._token:
      return True  # it was put back
    if self._has_ended(theirs, renewed, now - renewed):
      logging.warning(
          '%s, which has ended without saying so; its mark is taken over.',
          self._in_use_by(theirs),
      )
      self._remove(theirs)
      return None
    return False

  def _has_ended(self, theirs, renewed, age) -> bool:
    """Whether a mark's holder has ended, False where that is not yet clear.

    Raises:
      UserError: it has not.
    """
    alive = _is_alive(theirs)
    if alive is None:  # its signs of life must tell
      before, self._seen = self._seen, (theirs.get('token'), renewed)
      if before and before[0] == self._seen[0] and before[1] != renewed:
        alive = True
      elif age >= STALE * PERIOD:
        alive = False
    if alive and not self._wait:
      raise UserError(f'{self._in_use_by(theirs)}; {self._advice}.')
    if alive and not self._told:
      logging.info('%s; waiting for it.', self._in_use_by(theirs))
    elif alive is None and not self._told:
      logging.warning(
          '%s, as of %.0f s ago. Waiting to see whether it still is, %.0f s at '
          'most.', self._in_use_by(theirs), max(age, 0),
          STALE * PERIOD - max(age, 0),
      )
    self._told = True
    return alive is False

  def release(self) -> None:
    """Gives the folder back; does nothing where it is not held.

    A folder that `acquire` made, and that is empty, is deleted.
    """
    if self._released.is_set():
      return
    self._released.set()
    _held.discard(self)
    with contextlib.suppress(OSError), self._renewing:
      if (self._read() or {}).get('token') == self._token:
        self._mark.unlink()
        if self._made and is_local(self._folder):
          os.rmdir(self._folder)

  def check(self) -> None:
    """Looks whether the folder is still held, and says so in the mark.

    Raises:
      UserError: another process has taken it over, as happens to a process
        that was stopped for longer than a mark lasts; or somebody else's mark
        stands where this one was deleted.
    """
    if not self._released.is_set():
      self._renew()
    if self._lost:
      raise UserError(f'{self._lost}; {self._advice}.')

  def __enter__(self) -> 'Lock':
    self.acquire()
    return self

  def __exit__(self, *_) -> None:
    self.release()

  def _content(self):
    return _here() | {
        'token': self._token,
        'process': os.getpid(),
        'process_began': _began(os.getpid()),
        'since': self._since,
    }

  def _link(self, source) -> bool:
    """Whether the mark is now `source`; it is made in one step or not at all.
    """
    try:
      if not is_local(source):
        return self._link_remote()
      try:
        os.link(source, self._mark)
      except (FileExistsError, FileNotFoundError):
        raise
      except OSError:  # a file system without hard links
        with open(self._mark, 'x') as mark:
          mark.write(source.read_text())
      return True
    except FileExistsError:
      return False

  def _link_remote(self):
    """As `_link`; the last of two that write at once has it."""
    if self._mark.exists():
      return False
    self._mark.write_text(json.dumps(self._content()))
    time.sleep(1)
    return (self._read() or {}).get('token') == self._token

  def _read(self):
    """The content of the mark, {} for one that is cut, None without one."""
    try:
      content = json.loads(self._mark.read_text())
      return content if isinstance(content, dict) else {}
    except FileNotFoundError:
      return None
    except ValueError:
      return {}

  def _holder(self):
    """(content of the mark or None, when it was renewed)."""
    try:
      # Read first: network file systems then ask for its time anew.
      return self._read(), _renewed(self._mark)
    except FileNotFoundError:
      return None, 0.0

  def _in_use_by(self, theirs):
    host, since = theirs.get('host', 'another host'), theirs.get('since', '')
    return (
        f'{self._folder} is in use by process {theirs.get("process", "")} on '
        f'{host} since {since}'
    )

  def _remove(self, theirs):
    """Takes a stale mark away, and no other."""
    if not is_local(self._mark):
      if self._read() == theirs:
        self._mark.unlink(missing_ok=True)
      return
    aside = self._folder / f'{MARK}.{self._token}.stale'
    if (self._read() or {}).get('token') != theirs.get('token'):
      return  # another process was quicker
    try:
      os.rename(self._mark, aside)
    except FileNotFoundError:
      return  # another process was quicker
    try:
      if json.loads(aside.read_text()).get('token') != theirs.get('token'):
        self._link(aside)  # another was quicker, and this is its mark
    except (ValueError, AttributeError):
      pass  # a mark that was cut is nobody's
    finally:
      aside.unlink(missing_ok=True)

  def _keep_renewing(self):
    while not self._released.wait(PERIOD) and not self._lost:
      self._renew()

  def _renew(self):
    with self._renewing:
      if self._lost or self._released.is_set():
        return
      try:
        theirs = self._read()
        if theirs is None:  # somebody has deleted it, with the folder perhaps
          self._folder.mkdir(parents=True, exist_ok=True)
          mine = self._folder / f'{MARK}.{self._token}'
          try:
            mine.write_text(json.dumps(self._content()))
            self._link(mine)
          finally:
            mine.unlink(missing_ok=True)
        elif theirs and theirs.get('token') != self._token:
          self._lost = (
              f'{self._in_use_by(theirs)}, which has taken it over while this '
              'process stood still or its mark was deleted'
          )
          logging.error('%s.', self._lost)
        elif theirs and is_local(self._mark):
          os.utime(self._mark)
        else:  # objects have no other way
          self._mark.write_text(json.dumps(self._content()))
      except OSError as error:
        logging.warning('%s cannot be renewed (%s).', self._mark, error)


_held = set()


@atexit.register
def release_all() -> None:
  """Releases what this process holds, within seconds; before os._exit."""
  # A network file system may answer no more.
  work = [
      threading.Thread(target=lock.release, daemon=True) for lock in set(_held)
  ]
  for thread in work:
    thread.start()
  for thread in work:
    thread.join(RELEASE_SECONDS)


def _renewed(path: epath.Path) -> float:
  """When a file was last written, by the clock of its file system."""
  return os.stat(path).st_mtime if is_local(path) else path.stat().mtime


def _here() -> dict[str, str]:
  """What tells this machine, and its table of processes, from another."""
  machine = ''
  with contextlib.suppress(OSError):
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    # Containers of one machine count their processes apart.
    machine = f'{boot} {os.readlink("/proc/self/ns/pid")}'
  return {'host': socket.gethostname(), 'machine': machine}


def _began(process: int) -> str:
  """When a process began; '' where it has ended or /proc does not tell.

  One that has ended, and that its parent has not asked for yet, has ended.
  """
  try:
    stat = pathlib.Path(f'/proc/{process}/stat').read_text()
  except OSError:
    return ''
  fields = stat.rpartition(')')[2].split()
  return '' if fields[0] in 'ZX' else fields[19]  # ticks since the boot


def _is_alive(mark) -> bool | None:
  """Whether the process of a mark runs; None where that cannot be seen."""
  process = mark.get('process')
  here = _here()
  if not isinstance(process, int) or os.name != 'posix':
    return None
  if any(mark.get(name) != value for name, value in here.items()):
    return None
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    if not _began(process):
      return None  # another person's, which /proc may hide
  if not _began(os.getpid()):
    return None  # without /proc, its number may be another process's by now
  return _began(process) == mark.get('process_began')
