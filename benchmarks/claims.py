"""Several calls of a benchmark that share one list of work."""
from collections.abc import Iterator, Mapping
import contextlib
import pathlib

from video_diffusion.errors import UserError
from video_diffusion.filesystem import locks


def claimed(out: pathlib.Path, work: Mapping[str, str]) -> Iterator[str]:
  """Yields the names of work that no other call is busy with, each locked.

  Args:
    out: folder of all calls; the locks are in its folder held/.
    work: name of a lock -> what a person calls it, in order. One that another
      call is busy with is passed over, and that is printed.
  """
  for name, called in work.items():
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(locks.Lock(out / 'held' / name))
      except UserError:
        print(f'{called} is passed over: another call is busy with it.')
        continue
      yield name
