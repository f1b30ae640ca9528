"""Settings of the process that a mode runs in: its log, home and caches."""
import logging as stdlib_logging
import os
import re
import tempfile
import warnings

from absl import logging

from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

CACHE_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def prepare_process() -> None:
  """Shows what matters in the log, and keeps libraries out of odd folders."""
  show_log()
  # Orbax warns of its own coroutines where the disk refuses a save.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  without_home()


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
