"""One way to name a path, and one way to write a file or a folder.

A file or a folder is written under a temporary name and renamed when it is
whole, so that a process that is killed, or a disk that is full, leaves what was
there before.
"""
from collections.abc import Iterator
import contextlib
import errno
import importlib.util
import os
import pathlib
import re
import shutil
import tempfile
import time
import uuid

from etils import epath

from video_diffusion.errors import ArgumentError


def is_local(path: epath.PathLike) -> bool:
  """True for a path of this machine's file system, False for gs:// and such."""
  return '://' not in os.fspath(path)


def expand(path: epath.PathLike, name: str, *, bucket: bool = False) -> str:
  """The path, with the home folder in place of a leading ~ or ~USER.

  Every path that a flag, a field or an environment variable gives goes through
  this, so that no folder named ~ or s3: is made.

  Args:
    path: local or gs://.
    name: what the error calls it: an `errors.Argument`, which a caller may
      rename, or a flag or an environment variable.
    bucket: whether it may be gs://.

  Raises:
    ArgumentError: there is no such home folder, the path is of a kind that is
      not read, or the library for gs:// is missing.
  """
  path = os.fspath(path)
  if scheme := re.match(r'\s*([A-Za-z][\w+.-]+):/', path):
    if scheme[1] != 'gs' or not path.startswith('gs://') or not bucket:
      kinds = 'a local path or gs://BUCKET/NAME' if bucket else 'a local path'
      raise ArgumentError(name, f' is {path!r}; it must be {kinds}.')
    if not any(map(importlib.util.find_spec, ('tensorflow', 'gcsfs'))):
      raise ArgumentError(
          name,
          f' is {path!r}, which is read through TensorFlow or gcsfs; install '
          'one of them, or copy what lies there to this machine.',
      )
  if not path.startswith('~'):
    return path
  user = path.partition('/')[0][1:]
  # An empty HOME would make ~/x the /x of everybody.
  if not user and os.environ.get('HOME') == '':
    expanded = path
  else:
    expanded = os.path.expanduser(path)
  if os.path.isabs(expanded):
    return expanded
  if user:
    reason = f'there is no user {user!r}; write ./{path} for a name with a ~.'
  else:
    reason = 'HOME is not set; set it, or write the whole path.'
  raise ArgumentError(name, f' is {path!r}, but {reason}')


def printable(name: str) -> str:
  """A file's name for a log, with bytes that are not UTF-8 as \\xNN."""
  return os.fsencode(name).decode(errors='backslashreplace')


@contextlib.contextmanager
def writing(
    path: epath.PathLike,
    *,
    flush: bool = True,
    parts: pathlib.Path | None = None,
) -> Iterator[pathlib.Path]:
  """Yields a name to write; what is written there takes the name `path`.

  The name is new, ends in the suffix of `path`, and lies in its folder (for
  gs://, in a local temporary folder). At the end the content is flushed to the
  disk and renamed; if the block raises, nothing of it stays. The rights of the
  file are those of any new file, by the umask.

  Args:
    path: local or gs://; its folder must exist.
    flush: False leaves it to the system when the content reaches the disk. A
      machine that loses power may then keep the name of a file that is cut.
      For many small files whose reader notices that and makes them again.
    parts: local folder, on the same disk, that the new name lies in instead,
      for a folder that others may take away with all that is in it.

  Raises:
    OSError: the file cannot be written; `filename` is the path.
  """
  final = epath.Path(path)
  with contextlib.ExitStack() as stack:
    if is_local(final):
      part = _part((parts or pathlib.Path(final).parent) / final.name)
    else:
      folder = stack.enter_context(tempfile.TemporaryDirectory())
      part = pathlib.Path(folder, final.name)
    try:
      yield part
      if flush:
        _flush(part)
      if is_local(final):
        os.replace(part, final)
      else:
        final.write_bytes(part.read_bytes())
    except OSError as error:
      # Errors of writing name no file, those of opening a temporary one.
      if error.filename in (None, str(part), part, os.fsencode(part)):
        # A new one: PyAV's do not let their name be set.
        raise OSError(
            error.errno, error.strerror or str(error), os.fspath(final)
        ) from error
      raise
    finally:
      part.unlink(missing_ok=True)


def write(path: epath.PathLike, content: bytes | str) -> None:
  """Writes a whole file, text as UTF-8; see `writing`."""
  if isinstance(content, str):
    content = content.encode()
  with writing(path) as part:
    part.write_bytes(content)


@contextlib.contextmanager
def writing_folder(path: epath.PathLike) -> Iterator[epath.Path]:
  """Yields a new empty folder, which takes the name `path` when it is whole.

  A folder that had the name is deleted then, not before. If the block raises,
  nothing of the new one stays. Parents are made.

  Args:
    path: local or gs://, where renaming takes one object after the other.

  Raises:
    OSError: it cannot be written.
  """
  final = epath.Path(path)
  final.parent.mkdir(parents=True, exist_ok=True)
  part = _part(final)
  part.mkdir()
  try:
    yield part
    flush_folder(part)
    old = _part(final)
    if final.exists():
      final.rename(old)
    part.rename(final)
    if old.exists():
      old.rmtree()
  finally:
    if is_local(part):
      shutil.rmtree(part, ignore_errors=True)
    elif part.exists():
      part.rmtree()


def flush_folder(folder: epath.PathLike) -> None:
  """Forces all that lies in a folder to the disk; does nothing for gs://."""
  if is_local(folder):
    for file in pathlib.Path(folder).rglob('*'):
      _flush(file)
    _flush(pathlib.Path(folder))


def open_marked(folder: epath.PathLike, name: str, mark: str) -> None:
  """Opens a folder, emptied unless its file `name` holds this very mark.

  For what may be used again by the same computation, and by no other.

  Args:
    folder: local or gs://; made where missing.
    name: name of the file with the mark.
    mark: says what decides the content of the folder.
  """
  folder = epath.Path(folder)
  path = folder / name
  if path.exists() and path.read_text() == mark:
    return
  if folder.exists():
    folder.rmtree()
  folder.mkdir(parents=True)
  write(path, mark)


def remove_parts(folder: epath.PathLike, *, age: float = 0.0) -> None:
  """Deletes what killed processes have left unfinished in a local folder.

  Args:
    folder: one that the caller holds, or in which files alone are written.
    age: seconds since the last write to what is deleted. 0 would delete what
      others write at the moment.
  """
  if not is_local(folder):
    return
  for part in pathlib.Path(folder).glob('.*.part-*'):
    # Another process may delete it at the same time, or it belongs to somebody
    # else: it does no harm.
    with contextlib.suppress(OSError):
      if age and time.time() - part.stat().st_mtime < age:
        continue
      if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
      else:
        part.unlink(missing_ok=True)


def _part(path):
  """An unused temporary name beside a path; hidden, and of the same suffix."""
  return path.with_name(
      f'.{path.stem}.part-{uuid.uuid4().hex[:12]}{path.suffix}'
  )


def _flush(path: pathlib.Path) -> None:
  """Forces a file's content, or a folder's names, to the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    # Some file systems flush no folders.
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(handle)
