"""The mesh of devices, and how arrays are split over it."""
from collections.abc import Callable, Sequence
import math
import re
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

AXES = ('data', 'fsdp', 'model')
BATCH_SPEC = PartitionSpec(('data', 'fsdp'))
MAX_FSDP = 16  # where it is chosen here: larger groups gather more slowly
# Smaller arrays are whole on every device: a gather costs more than they do.
MIN_SHARDED = 2**16
# Tensor parallelism: path -> the axis that is split, counted from the end.
# Heads of an attention, and the channels between the two convolutions of a
# residual block; each pair then needs one sum over devices.
MODEL_RULES = (
    (r'qkv/(kernel|bias)$', -2),
    (r'(spatial|temporal)/out/kernel$', -3),
    (r'relative_bias$', -1),
    (r'relative_(keys|values)$', -2),
    (r'residual/conv_1/(kernel|bias)$', -1),
    (r'residual/emb/(kernel|bias)$', -1),
    (r'residual/norm_2/(scale|bias)$', -1),
    (r'residual/conv_2/kernel$', -2),
)


def make_mesh(
    *,
    fsdp: int = 0,
    model: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """All devices on a mesh ('data', 'fsdp', 'model').

  Several TPU slices, between which the network is slow, follow one another
  along 'data': parameters are gathered within a slice.

  Args:
    fsdp: devices that share one copy of the state; 0 takes the largest power of
      two that divides those of a slice, at most 16.
    model: devices that share the work on one example.
    devices: those of the mesh; None takes all.

  Raises:
    ArgumentError: the axes do not divide the devices of a slice.
  """
  devices = list(jax.devices() if devices is None else devices)
  slices = len({getattr(d, 'slice_index', 0) for d in devices})
  each = len(devices) // slices
  if each % model:
    raise ArgumentError(
        Argument('model'), f' is {model}; it must divide the {each} devices'
        f'{" of a slice" if slices > 1 else ""}.',
    )
  fsdp = fsdp or math.gcd(each // model, MAX_FSDP)
  if each // model % fsdp:
    raise ArgumentError(
        Argument('fsdp'), f' is {fsdp}; it must divide the {each // model} '
        f'devices{" of a slice" if slices > 1 else ""} that ',
        Argument('model'), ' leaves.',
    )
  shape = (each // (fsdp * model), fsdp, model)
  if slices > 1:
    grid = mesh_utils.create_hybrid_device_mesh(
        shape, (slices, 1, 1), devices=devices
    )
  else:
    grid = mesh_utils.create_device_mesh(
        shape, devices=devices, allow_split_physical_axes=True
    )
  # Auto axes: the compiler carries the sharding through the network.
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def local_mesh() -> Mesh:
  """The devices of this process alone, all along 'data'.

  For work that every process does by itself, without a word to the others.
  """
  devices = np.array(jax.local_devices()).reshape(-1, 1, 1)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_devices(mesh: Mesh) -> int:
  """Over how many devices a batch is split."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def spec(
    path: str,
    shape: tuple[int, ...],
    mesh: Mesh,
    min_sharded: int = MIN_SHARDED,
) -> PartitionSpec:
  """How one array of the train state is split.

  MODEL_RULES by its path where 'model' has several devices; then its largest
  remaining axis that divides over 'fsdp', unless the array is small. Moments
  and EMA end in the path of their parameter, so they are split alike.
  """
  axes = [None] * len(shape)
  for rule, axis in MODEL_RULES if mesh.shape['model'] > 1 else ():
    if re.search(rule, path) and len(shape) >= -axis:
      if shape[axis] % mesh.shape['model'] == 0:
        axes[axis] = 'model'
  fsdp = mesh.shape['fsdp']
  if fsdp > 1 and math.prod(shape) >= min_sharded:
    for i in sorted(range(len(shape)), key=lambda i: -shape[i]):
      if axes[i] is None and shape[i] % fsdp == 0:
        axes[i] = 'fsdp'
        break
  return PartitionSpec(*axes)


def shardings(tree: Any, mesh: Mesh, min_sharded: int = MIN_SHARDED) -> Any:
  """A `NamedSharding` by `spec` for every array, or its shape, of a tree."""

  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return NamedSharding(mesh, spec(name, leaf.shape, mesh, min_sharded))

  return jax.tree_util.tree_map_with_path(one, tree)


def abstract(tree: Any, mesh: Mesh, min_sharded: int = MIN_SHARDED) -> Any:
  """Shapes, dtypes and `shardings` in place of a tree's arrays."""
  return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      tree,
      shardings(tree, mesh, min_sharded),
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis split over all data-parallel devices."""
  return NamedSharding(mesh, BATCH_SPEC)


def replicated(mesh: Mesh) -> NamedSharding:
  """One whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def constrain_batch(x: jax.Array, axis: int = 0) -> jax.Array:
  """Pins the batch axis to the batch sharding of the mesh in context.

  Without it the partitioner may choose to replicate activations, as it did
  after an upsampling. Outside a mesh context it returns x as it is.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(
      x, PartitionSpec(*[None] * axis, *BATCH_SPEC)
  )


def map_batch(
    fn: Callable, model_axes: Sequence[int] | None = None
) -> Callable:
  """fn(x, *rest) run by every device on its own rows of x, rest whole.

  For kernels, which the partitioner cannot look into. Outside a mesh of several
  devices it is fn itself.

  Args:
    fn: works on each row of x by itself.
    model_axes: the axes of x, of each of rest and of the result over which fn
      works on each element by itself, such as heads; 'model' splits them where
      it divides that of x. None splits none: each device of a group that shares
      an example does the same.
  """

  def mapped(x, *rest):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
      return fn(x, *rest)
    specs = [BATCH_SPEC, *[PartitionSpec()] * len(rest), BATCH_SPEC]
    model = mesh.shape['model']
    if model_axes and model > 1 and x.shape[model_axes[0]] % model == 0:
      specs = [
          PartitionSpec(*spec, *[None] * (axis - len(spec)), 'model')
          for spec, axis in zip(specs, model_axes, strict=True)
      ]
    return jax.shard_map(
        fn, mesh=mesh, in_specs=tuple(specs[:-1]), out_specs=specs[-1],
        check_vma=False,
    )(x, *rest)

  return mapped
