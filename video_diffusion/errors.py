"""Whose mistake an error is: the person's, the machine's, or ours."""
import os
import pathlib
import traceback

_PACKAGE = pathlib.Path(__file__).parent


class UserError(ValueError):
  """A mistake of the person who runs the program, in one sentence.

  The message names the file, the field or the flag, and says what would be
  right. `main` prints it and ends with exit code 1. Any other exception is a
  bug of ours or a failure of the machine, and keeps its traceback.
  """


def first_cause(error: BaseException) -> BaseException:
  """The error that an error began with."""
  while error.__cause__ or error.__context__:
    error = error.__cause__ or error.__context__
  return error


def is_bug(error: BaseException) -> bool:
  """True for an error that began in this package and is nobody else's fault.

  For code that goes on after any error, as the train loop does where a
  checkpoint cannot be written: it shows the traceback of those errors too.
  """
  error = first_cause(error)
  frames = traceback.extract_tb(error.__traceback__)
  if isinstance(error, (UserError, OSError)) or not frames:
    return False
  return _PACKAGE in pathlib.Path(os.path.abspath(frames[-1].filename)).parents
