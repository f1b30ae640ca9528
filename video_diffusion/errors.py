"""The one exception that is shown to people without its traceback."""


class UserError(ValueError):
  """A mistake of the person who runs the program, in one sentence.

  The message names the file, the field or the flag, and says what would be
  right. `main` prints it and ends with exit code 1. Any other exception is a
  bug of ours or a failure of the machine, and keeps its traceback.
  """
