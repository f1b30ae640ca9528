"""What a person reads where the program ends with an error.

An error that a person can mend becomes one sentence. Any other error keeps its
traceback.
"""
from collections.abc import Iterator
import contextlib
import errno
import sys

from video_diffusion.errors import UserError

# Errors of a disk: they end a run, and are not errors of the program.
DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT,
               errno.EFBIG, errno.EROFS, errno.EIO)


def fail(sentence: str) -> None:
  """Ends the process with one sentence and exit code 1."""
  sys.exit(f'video_diffusion: {sentence}')


@contextlib.contextmanager
def answered(workdir: str) -> Iterator[None]:
  """Ends the process with one sentence for an error that a person can mend.

  Args:
    workdir: folder of the run, which the sentence names where an error of the
      disk names no file.
  """
  try:
    yield
  except Exception as error:
    sentence = of(error, workdir)
    if sentence is None:
      raise
    fail(sentence)


def of(error: Exception, workdir: str) -> str | None:
  """The sentence for an error, None where the error needs its traceback."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, OSError):
    return _of_disk(error, workdir)
  # Imported here: a wrong flag is answered before JAX is imported.
  import jax

  from video_diffusion.parallel import memory

  if not isinstance(error, jax.errors.JaxRuntimeError):
    return None
  need = memory.refused(error)
  return need and (
      f'{memory.misfit("this computation", need)}; set a smaller '
      'batch_size, sample.batch_size or eval.batch_size.'
  )


def _of_disk(error, workdir):
  # A refusal that names no file is about a signal or a port.
  refused = error.errno in (errno.EACCES, errno.EPERM)
  if error.errno not in DISK_ERRORS or (refused and not error.filename):
    return None
  where = error.filename or f'a file of {workdir}'
  return (
      f'{where} cannot be read or written ({error.strerror}): make room, or '
      'allow it, and give the same command again.'
  )
