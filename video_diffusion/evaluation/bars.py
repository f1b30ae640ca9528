"""Progress bars of an evaluation."""
from collections.abc import Callable

import jax
import tqdm


def bar(title: str, unit: str = 'clip') -> Callable[[int, int], None]:
  """Makes a progress bar, which process 0 shows.

  Args:
    title: says what is done.
    unit: what is counted.

  Returns:
    What is called with (done, in all); the bar ends when all is done.
  """
  shown = None

  def update(done, total):
    nonlocal shown
    if shown is None:
      shown = tqdm.tqdm(
          desc=title, unit=unit, total=total, disable=jax.process_index() > 0
      )
    shown.update(done - shown.n)
    if done >= total:
      shown.close()

  return update
