"""Whose mistake an error is: the person's, the machine's, or ours."""
from collections.abc import Callable, Iterator
import contextlib
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


class Argument(str):
  """The name of an argument, as a part of the sentence of an ArgumentError."""


class ArgumentError(UserError):
  """A wrong argument of a function.

  A function does not know which config field or flag an argument came from; its
  caller does, and has the error say so by `naming`.

  Attributes:
    parts: the sentence in pieces; those that are an `Argument` may be renamed.
  """

  def __init__(self, *parts: str):
    """Joins the parts: ArgumentError(Argument('frames'), ' is 0.')."""
    super().__init__(''.join(parts))
    self.parts = parts

  def renamed(self, rename: Callable[[str], str]) -> 'ArgumentError':
    """Returns the same error with other names for the arguments."""
    return type(self)(*(
        rename(part) if isinstance(part, Argument) else part
        for part in self.parts
    ))


@contextlib.contextmanager
def naming(rename: Callable[[str], str]) -> Iterator[None]:
  """Renames the arguments in an ArgumentError that is raised inside.

  Args:
    rename: argument -> what the reader of the error knows it as, for instance
      the config field 'sample.frames' for 'frames'. A name that is an
      `Argument` may be renamed again by an outer `naming`; any other is final.
  """
  try:
    yield
  except ArgumentError as error:
    raise error.renamed(rename) from error


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
