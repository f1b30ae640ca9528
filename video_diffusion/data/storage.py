"""One sentence for whatever a disk refuses when prepared data are written.

Errors of the disk come from many writers, also in other processes and in C++.
All prepared data are written within `writing_to`, which turns such an error
into a StorageError.
"""
from collections.abc import Iterator
import contextlib
import errno
import os

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR,
    errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ESTALE,
    errno.ENOTCONN, errno.ENODEV, errno.ENXIO,
)


class StorageError(ArgumentError):
  """A folder of prepared data cannot be written."""


@contextlib.contextmanager
def writing_to(
    directory: str | os.PathLike,
    *,
    errors: tuple[int, ...] = FULL + REFUSED,
) -> Iterator[None]:
  """Turns an error of the disk in the block into a StorageError.

  Args:
    directory: the folder that the block writes to.
    errors: which values of errno count.

  Raises:
    StorageError: the block raised an error of the disk. The sentence names the
      argument `dir`, the folder (or the file, where that tells more), and the
      reason.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    number = _number(error, errors)
    if number is None:
      raise
    where = os.fspath(directory)
    if number in REFUSED:
      where = getattr(error, 'filename', None) or where
    wanted = 'with space' if number in FULL else 'that can be written'
    raise StorageError(
        Argument('dir'),
        f' cannot be written ({os.fsdecode(where)}: {os.strerror(number)}); '
        f'set it to a folder {wanted}.',
    ) from error


def _number(error: Exception, errors: tuple[int, ...]) -> int | None:
  """The errno of an error of the disk, None for any other error."""
  if isinstance(error, OSError):
    return error.errno if error.errno in errors else None
  # ArrayRecord and TensorFlow write in C++, and pass on the system's words.
  if isinstance(error, RuntimeError) or _is_tensorflow(error):
    for number in errors:
      if os.strerror(number) in str(error):
        return number
  return None


def _is_tensorflow(error: Exception) -> bool:
  return type(error).__module__.partition('.')[0] == 'tensorflow'
