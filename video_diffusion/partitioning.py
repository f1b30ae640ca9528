"""Mesh, sharding rules over an abstract state, batches to global arrays."""
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ('data', 'fsdp', 'model')
BATCH_SPEC = PartitionSpec(('data', 'fsdp'))


def make_mesh() -> Mesh:
  """All devices on one ('data', 'fsdp', 'model') mesh, data-parallel."""
  # Auto axes: jax.make_mesh would otherwise make them Explicit.
  return jax.make_mesh(
      (jax.device_count(), 1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES)
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis split over all data-parallel devices."""
  return NamedSharding(mesh, BATCH_SPEC)


def replicated(mesh: Mesh) -> NamedSharding:
  """One whole copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def constrain_batch(x: jax.Array) -> jax.Array:
  """Pins the leading axis to the batch sharding of the mesh in context.

  Without it the partitioner may choose to replicate activations, as it did
  after an upsampling. Outside a mesh context it returns x as it is.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, BATCH_SPEC)


def map_batch(fn: Callable) -> Callable:
  """fn(x, *rest) run by every device on its own rows of x, rest whole.

  For kernels, which the partitioner cannot look into. Outside a mesh of several
  devices it is fn itself.
  """

  def mapped(x, *rest):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
      return fn(x, *rest)
    whole = (PartitionSpec(),) * len(rest)
    return jax.shard_map(
        fn, mesh=mesh, in_specs=(BATCH_SPEC, *whole), out_specs=BATCH_SPEC,
        check_vma=False,
    )(x, *rest)

  return mapped


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Host arrays [local batch, ...] -> global arrays [batch, ...] on the mesh.

  Every process passes its own slice of the global batch, in process order. Text
  (arrays of objects) has no place on a device and is left out.
  """
  sharding = batch_sharding(mesh)
  return {
      name: jax.make_array_from_process_local_data(sharding, value)
      for name, value in batch.items()
      if value.dtype != object
  }
