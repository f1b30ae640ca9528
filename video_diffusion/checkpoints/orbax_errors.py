"""Errors of Orbax, in a line."""
import sys

from video_diffusion import errors


def reason(error: BaseException) -> str:
  """What an error of Orbax is about: the first line of its first cause."""
  error = errors.first_cause(error)
  line = next((line for line in str(error).splitlines() if line), '')
  # TensorStore goes from the array to the file, which is the one to look at.
  line = line[max(line.rfind('Error reading'), 0) :]
  line = line.partition(' [tensorstore_spec')[0][:300]
  if isinstance(error, (OSError, ValueError)) and line:
    return line
  return f'{type(error).__name__} {line}'.strip()


def hide_late_calls() -> None:
  """Of many reads or writes, those behind one that failed print no traceback.

  Orbax has then closed the event loop that TensorStore reports them to, and
  each of hundreds would come to sys.unraisablehook.
  """
  known = sys.unraisablehook
  if getattr(known, 'hides_late_calls', False):
    return

  def hook(args):
    if str(args.exc_value) != 'Event loop is closed':
      known(args)

  hook.hides_late_calls = True
  sys.unraisablehook = hook
