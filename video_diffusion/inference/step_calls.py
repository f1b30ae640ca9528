"""What a running sampler calls at each of its steps.

A jitted sampler keeps its callback for as long as it lives, and many calls
share one sampler. The callback therefore takes the number of its call with it,
as data, and finds by it whom to tell.
"""
from collections.abc import Callable, Iterator
import contextlib
import itertools

import jax
from jax.experimental import io_callback
import numpy as np

Progress = Callable[[int, int], None]

_functions = {}  # number of a call -> what it wants to be told
_numbers = itertools.count()


@contextlib.contextmanager
def following(
    on_step: Progress,
    *,
    num_blocks: int,
    num_steps: int,
    progress: Progress | None = None,
) -> Iterator[tuple[np.ndarray, Progress]]:
  """Follows the steps of all blocks of a call.

  Args:
    on_step: called with (steps done, steps in all), from a thread of the
      runtime. An exception that it raises ends the sampler, and leaves the
      block as it is.
    num_blocks: runs of the sampler.
    num_steps: steps of each.
    progress: called with (blocks done, blocks in all).

  Yields:
    (the number of the call, for `tell`; what is to be called with (blocks done,
    blocks in all)).
  """
  number = next(_numbers) % 2**31
  total = num_blocks * num_steps
  blocks_done = 0
  errors = []

  def step_done(step):
    try:
      on_step(blocks_done * num_steps + step, total)
    except BaseException as error:
      errors.append(error)
      raise

  def block_done(done, blocks):
    nonlocal blocks_done
    blocks_done = done
    on_step(done * num_steps, total)
    if progress:
      progress(done, blocks)

  _functions[number] = step_done
  try:
    yield np.int32(number), block_done
  except jax.errors.JaxRuntimeError as error:
    if not errors:
      raise
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      jax.effects_barrier()  # or the error would be told again at exit
    raise errors[0] from error
  finally:
    del _functions[number]


def tell(call: jax.Array, step: jax.Array) -> None:
  """Inside a sampler: tells a call that `step` steps of a block are done.

  Nothing of the computation depends on it.
  """
  io_callback(_tell, None, call, step)


def _tell(call, step):
  function = _functions.get(int(call))
  if function is not None:  # the call may have ended by an error
    function(int(step))
