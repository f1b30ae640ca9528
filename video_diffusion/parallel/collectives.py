"""Arrays of one host as global arrays, and back; what all processes share."""
from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from video_diffusion.parallel import sharding


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Host arrays [local batch, ...] -> global arrays [batch, ...] on the mesh.

  Every process passes its own slice of the global batch, in process order. Text
  (arrays of objects) has no place on a device and is left out.
  """
  layout = sharding.batch_sharding(mesh)
  return {
      name: jax.make_array_from_process_local_data(layout, value)
      for name, value in batch.items()
      if value.dtype != object
  }


def own_rows(mesh: Mesh, batch: int) -> np.ndarray:
  """Which rows of a global batch lie on this process's devices, in order."""
  layout = sharding.batch_sharding(mesh)
  slices = layout.addressable_devices_indices_map((batch,))
  return np.unique(
      np.concatenate([np.arange(batch)[rows] for (rows,) in slices.values()])
  )


def own_part(x: jax.Array) -> np.ndarray:
  """Those rows of a global array that is split by `batch_sharding`."""
  shards = {s.index[0].start or 0: s.data for s in x.addressable_shards}
  return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


@functools.cache
def whole(mesh: Mesh) -> Callable:
  """A tree of arrays -> the same, whole on every device."""
  return jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))


def gather(part: np.ndarray, mesh: Mesh) -> np.ndarray:
  """A whole global batch, of which every process has its `own_rows`."""
  return np.asarray(whole(mesh)(global_batch({'part': part}, mesh)['part']))


def largest(value: int, mesh: Mesh) -> jax.Array:
  """The largest value >= 0 of any process, an array that is not waited for.

  What decides about the loop must be the same in every process: what one alone
  knows would leave the others waiting in a collective for ever.
  """
  return _max(mesh)(_of_processes(np.int32(value), mesh))


def total(values: np.ndarray, mesh: Mesh) -> np.ndarray:
  """uint32 [n]: the sum over processes, modulo 2^32.

  Over the same group of devices as `largest`: a new one would first have to be
  connected, for which CPU collectives wait half a minute at most.
  """
  return np.asarray(_sum(mesh)(_of_processes(values, mesh)))


def _of_processes(value, mesh):
  """[devices, ...]: each process's value on its first device, else zeros."""
  value = np.asarray(value)
  rows = np.zeros((len(mesh.local_devices), *value.shape), value.dtype)
  rows[0] = value
  return jax.make_array_from_process_local_data(
      NamedSharding(mesh, PartitionSpec(sharding.AXES)), rows,
      (mesh.size, *value.shape),
  )


@functools.cache
def _max(mesh):
  return jax.jit(jax.numpy.max, out_shardings=sharding.replicated(mesh))


@functools.cache
def _sum(mesh):
  return jax.jit(lambda x: x.sum(0), out_shardings=sharding.replicated(mesh))
