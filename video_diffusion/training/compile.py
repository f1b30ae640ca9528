"""Compiles the train step, counts its FLOPs, and checks that it fits."""
from collections.abc import Callable
import time
from typing import Any

from absl import logging
import jax

from video_diffusion.errors import UserError
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import state as state_lib


def lower_step(
    step: Callable,
    abstract: Any,
    shapes: dict[str, jax.ShapeDtypeStruct],
    mesh: jax.sharding.Mesh,
) -> jax.stages.Lowered:
  """The train step, lowered for the devices of a mesh.

  Args:
    step: a pure (state, batch) -> (state, metrics).
    abstract: shapes and shardings of the state, which is donated.
    shapes: shapes of one global batch.
    mesh: all devices.
  """
  batch_sharding = sharding.batch_sharding(mesh)
  batch = {
      name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=batch_sharding)
      for name, s in shapes.items()
  }
  layout = jax.tree.map(lambda x: x.sharding, abstract)
  jitted = jax.jit(
      step,
      donate_argnums=0,
      out_shardings=(layout, sharding.replicated(mesh)),
  )
  with jax.set_mesh(mesh):
    return jitted.lower(abstract, batch)


def compile_step(
    step: Callable,
    abstract: Any,
    shapes: dict[str, jax.ShapeDtypeStruct],
    mesh: jax.sharding.Mesh,
    *,
    counted: Callable | None,
    too_large: Callable[[memory.Need], UserError],
    check_flops: Callable[[float], None] | None = None,
) -> tuple[jax.stages.Compiled, float]:
  """(the compiled train step, FLOPs of one global step).

  Args:
    step: see `lower_step`.
    abstract: see `lower_step`.
    shapes: see `lower_step`.
    mesh: see `lower_step`.
    counted: the step whose FLOPs are counted, where it is another one. It
      recomputes nothing and takes the batch at once: recomputation is no work,
      and the body of a scan would count once.
    too_large: makes the error about a batch that does not fit.
    check_flops: is called with the FLOPs before the step is compiled; it may
      raise an error.

  Raises:
    UserError: the step needs more memory than a device has.
  """
  began = time.time()
  lowered = lower_step(step, abstract, shapes, mesh)
  if counted is None and jax.default_backend() == 'cpu':
    flops = float(lowered.cost_analysis()['flops'])  # of all devices
  else:
    flops = lowered_flops(counted or step, abstract, shapes)
  if check_flops:
    check_flops(flops)
  with memory.explained(too_large):
    compiled = lowered.compile()
  check_batch(compiled, too_large)
  logging.info(
      'Compiled the train step in %.0f s: %.3g FLOP, %s parameters, %d %s, '
      'mesh %s.',
      time.time() - began,
      flops,
      f'{state_lib.tree_size(abstract.params):,}',
      jax.device_count(),
      jax.devices()[0].device_kind,
      ' x '.join(f'{n} {name}' for name, n in mesh.shape.items()),
  )
  return compiled, flops


def check_state(
    abstract: Any, too_large: Callable[[memory.Need], UserError]
) -> None:
  """Requires that a train state fits into the memory of each device.

  Args:
    abstract: shapes and shardings of the state.
    too_large: makes the error about a state that does not fit.

  Raises:
    UserError: it does not, and nothing was allocated yet.
  """
  need = memory.Need(memory.tree_bytes(abstract), memory.limit())
  if need.there and need.asked > need.there:
    raise too_large(need)


def check_batch(
    compiled: jax.stages.Compiled, too_large: Callable[[memory.Need], UserError]
) -> None:
  """Requires that a compiled train step fits into the memory of each device.

  Args:
    compiled: the compiled step.
    too_large: makes the error about a batch that does not fit.

  Raises:
    UserError: it does not.
  """
  need = memory.Need(memory.program_bytes(compiled), memory.limit())
  if need.asked and need.there and need.asked > need.there:
    raise too_large(need)


def lowered_flops(fn: Callable, *args: Any) -> float:
  """FLOPs of one call with such arrays, wherever the arrays are.

  The lowered module is counted, since a compiled one counts cuDNN calls as
  zero. It is lowered for the CPU, since plugins of accelerators do not analyse;
  the operations are the same. Without a CPU the result is NaN.
  """
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
  try:
    cpu = jax.local_devices(backend='cpu')[0]
  except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
    return float('nan')
  with jax.default_device(cpu):
    return float(jax.jit(fn).lower(*shapes).cost_analysis()['flops'])
