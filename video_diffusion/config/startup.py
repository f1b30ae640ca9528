"""Settings of the process that a mode runs in: its log, memory, caches."""
import ctypes
import gc
import logging as stdlib_logging
import os
import re
import tempfile
import warnings

from absl import logging

from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

CACHE_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
# Options of glibc's mallopt, from malloc.h, and what they are set to.
_MALLOC = {
    'M_TRIM_THRESHOLD': (-1, 2**31 - 1),  # bytes, the most that it takes
    'M_MMAP_MAX': (-4, 0),
    'M_ARENA_MAX': (-8, 1),
}


def prepare_process() -> None:
  """Shows what matters in the log, and keeps libraries out of odd folders.

  Must be called before JAX starts its threads, see `keep_freed_memory`.
  """
  keep_freed_memory()
  collect_seldom()
  show_log()
  # Orbax warns of its own coroutines where the disk refuses a save.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  without_home()


def keep_freed_memory() -> None:
  """Keeps what is freed for the next allocation, where glibc is the allocator.

  On CPUs XLA allocates the activations of every step anew, and glibc maps an
  array of that size from the kernel and returns it: a step of
  moving_shapes:laptop met 22,903 fresh pages, which took a third of its CPU
  time. From one heap, which keeps up to 2 GiB, it meets none. Threads that have
  an arena of their own by now keep it.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return  # another libc, or none that can be looked into
  for option, value in _MALLOC.values():
    mallopt(option, value)


def collect_seldom() -> None:
  """Lets Python look for cycles of garbage at every 50,000th new object.

  Tracing a network makes hundreds of thousands of objects that live on. At
  every 700th, as by default, the search took a fifth of the time before a step
  of moving_shapes:accelerator is compiled.
  """
  gc.set_threshold(50_000, 20, 10)


def show_log() -> None:
  """Shows what the command line shows while it trains and evaluates.

  In Python these calls are silent otherwise.
  """
  logging.use_absl_handler()
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(worth_a_line)


def worth_a_line(record: stdlib_logging.LogRecord) -> bool:
  """Returns whether a record of the log is shown.

  Orbax logs a dozen lines for every save, and some hundred for a full disk. It
  also logs errors that it raises, which `checkpoints.checkpoint` says once.
  Those records are not shown; a warning of Orbax without an exception is.
  """
  loud = record.levelno > stdlib_logging.INFO and not record.exc_info
  return loud or not re.search(r'\b(orbax|asyncio)\b', record.pathname)


def without_home() -> None:
  """Keeps TensorFlow's Keras from making a folder ~ where there is no home."""
  try:
    files.expand('~', 'HOME')
  except UserError:
    # Where Keras itself goes if a home folder cannot be written.
    os.environ.setdefault(
        'KERAS_HOME', os.path.join(tempfile.gettempdir(), '.keras')
    )


def compilation_cache(folder: str, *, is_default: bool) -> str | None:
  """The folder of compiled programs; None keeps no compiled programs.

  The environment variable JAX_COMPILATION_CACHE_DIR comes first.

  Args:
    folder: value of --compilation_cache; '' keeps no compiled programs.
    is_default: the person has not given that flag. Where there is no home
      folder for the default one, compiled programs are not kept.

  Raises:
    UserError: the folder is in the home folder, and there is none.
  """
  if CACHE_VARIABLE in os.environ:
    return files.expand(
        os.environ[CACHE_VARIABLE], CACHE_VARIABLE, bucket=True
    ) or None
  try:
    return files.expand(folder, '--compilation_cache', bucket=True) or None
  except UserError as error:
    if not is_default:
      raise
    logging.info('%s Compiled programs are not kept.', error)
    return None
