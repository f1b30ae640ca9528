"""The train state: parameters, their EMA, and the optimizer's moments."""
import math
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from video_diffusion.diffusion import rng


@flax.struct.dataclass
class TrainState:
  """Everything that a checkpoint holds; step = number of batches taken."""

  step: jax.Array
  params: Any
  ema_params: Any
  opt_state: Any


@flax.struct.dataclass
class StudentState(TrainState):
  """The state of a distillation; the teacher's parameters stay as they are."""

  teacher: Any


def init_params(
    model: nn.Module,
    batch: dict[str, jax.ShapeDtypeStruct],
    *,
    num_images: int,
    seed: int,
) -> Any:
  """The first parameters; traced lazily, so only random draws are compiled.

  Args:
    model: a `ConditionalUNet`.
    batch: shapes of one batch, 'video' [b, T + K, ...] and the conditioning.
    num_images: K.
    seed: the run's seed.
  """
  b, f, *frame = batch['video'].shape
  previous = None
  if model.context is not None:  # with one next frame at the end
    f, num_images = f + 1, num_images + 1
    previous = model.context.shapes(b, frame)
  return model.lazy_init(
      rng.stream_key(seed, 'init'),
      jax.ShapeDtypeStruct((b, f, *frame), jnp.float32),
      jax.ShapeDtypeStruct((b, f), jnp.float32),
      condition=model.condition_of(batch),
      num_images=num_images,
      previous=previous,
  )['params']


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    distilled: bool = False,
) -> TrainState:
  """The state before the first update; the EMA starts from the parameters.

  So does the teacher of a student that is `distilled`.
  """
  # Copies: donated buffers must not be shared within a state.
  copy = lambda: jax.tree.map(jnp.copy, params)
  state = TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      ema_params=copy(),
      opt_state=optimizer.init(params),
  )
  if not distilled:
    return state
  return StudentState(**vars(state), teacher=copy())


def replaced(params: Any, arrays: dict[str, jax.Array]) -> Any:
  """Parameters with some arrays in place of those of the same names.

  Args:
    params: nested dict of arrays.
    arrays: 'path.of.an.array' -> array; each name is one of params.
  """
  flat = flatten(params)
  if unknown := arrays.keys() - flat.keys():
    raise KeyError(f'no parameters: {sorted(unknown)}')
  return unflatten(flat | arrays)


def flatten(tree: Any) -> dict[str, Any]:
  """{'a': {'b': leaf}} -> {'a.b': leaf}."""
  return flax.traverse_util.flatten_dict(tree, sep='.')


def unflatten(flat: dict[str, Any]) -> Any:
  """{'a.b': leaf} -> {'a': {'b': leaf}}."""
  return flax.traverse_util.unflatten_dict(flat, sep='.')


def tree_size(tree: Any) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
