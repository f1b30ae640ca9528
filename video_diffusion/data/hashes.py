"""SHA-256 digests of files, remembered on disk."""
from collections.abc import Iterable
import contextlib
import hashlib
import json
import os
import pathlib

# (absolute path, bytes, time of the last write, time of the last change)
Identity = tuple[str, int, int, int]


def identity(path: str | os.PathLike) -> Identity:
  """Returns what identifies a file without reading its content.

  The time of the last change cannot be set: it tells a file that was put there
  with the size and the time of the one before, as by `cp -p` or `rsync -t`.
  A change of name or of rights changes it too, and costs reading the file once
  more. The inode is not asked for: file systems in user space, as for buckets,
  number files anew each time that they are mounted.

  Raises:
    OSError: the file is not there.
  """
  stat = os.stat(path)
  return (
      os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
  )


def sha256(path: str | os.PathLike) -> str:
  """Returns the digest of the content of a file, in hexadecimal."""
  with open(path, 'rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()


class Hashes:
  """SHA-256 of files by their `identity`, on disk, only added to."""

  def __init__(self, path: pathlib.Path, others: Iterable[pathlib.Path] = ()):
    """Reads what is known.

    Args:
      path: file that is read, where there is one, and added to.
      others: further files that are read.
    """
    self._path, self._known = path, {}
    for file in (*others, path):
      for line in file.read_bytes().splitlines() if file.exists() else ():
        # A process that was killed may have left half a line.
        with contextlib.suppress(ValueError, TypeError):
          *found, digest = json.loads(line)
          self._known[tuple(found)] = digest

  def get(self, found: Identity | None) -> str | None:
    return self._known.get(found)

  def add(self, found: Identity, digest: str) -> None:
    """Remembers a digest, if the disk takes it: it can be had again."""
    self._known[found] = digest
    with contextlib.suppress(OSError):
      line = json.dumps([*found, digest])
      # Opened to append, unbuffered: lines of several processes do not mix.
      with open(self._path, 'ab', buffering=0) as out:
        out.write(f'\n{line}\n'.encode())
