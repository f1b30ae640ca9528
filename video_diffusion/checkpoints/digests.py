"""A number for the bits of an array: damage on its way over a disk shows.

A digest is the sum, modulo 2^32, of a mix of each element's bits and place. The
mix is one to one, so a change of one element always changes the digest, others
but for one in 2^32; and a sum is the same however the array lies on devices.
"""
from typing import Any

import jax
import numpy as np

from video_diffusion.parallel import collectives

SMALL = 2**16  # elements up to which the host is faster than a compile


def digests(tree: Any) -> dict[str, int]:
  """{'path/of/a/leaf': digest} of a tree of arrays.

  Of arrays that several processes share, every one of them must call this.
  """
  names, parts = [], []
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    names.append(jax.tree_util.keystr(path, simple=True, separator='/'))
    # Each element once, of those that several devices hold.
    shards = [s for s in x.addressable_shards if s.replica_id == 0]
    parts.append([_start(s.data, s.index, x.shape) for s in shards])
  sums = [sum(map(int, part)) % 2**32 for part in jax.device_get(parts)]
  found = np.array(sums, np.uint32)
  if jax.process_count() > 1:
    mesh = jax.tree.leaves(tree)[0].sharding.mesh
    found = collectives.total(found, mesh)
  return dict(zip(names, map(int, found), strict=True))


def _start(part, index, shape):
  """The digest of a part of an array; on its device, where it is large."""
  starts = np.array([s.start or 0 for s in index] or [0], np.uint32)
  if part.size <= SMALL:
    return _digest(np.asarray(part), starts, shape)
  return _on_device(part, starts, shape)


def _digest(part, starts, shape):
  """uint32 [] of a part of an array of that shape, of NumPy or JAX."""
  if not part.ndim:
    part, shape = part[None], (1,)
  # The mix is MurmurHash3's last one, of 32 bits.
  bits = part.view(f'uint{8 * part.dtype.itemsize}').astype(np.uint32)
  h = bits ^ (_places(part, starts, shape) * np.uint32(0x9E3779B1))
  h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
  h = h ^ (h >> 16)
  return h.sum(dtype=np.uint32)


def _places(part, starts, shape):
  """uint32, broadcastable to part: the place of each element, in row order."""
  numpy = np if isinstance(part, np.ndarray) else jax.numpy
  places = numpy.zeros((1,) * part.ndim, np.uint32)
  for axis, n in enumerate(part.shape):
    along = starts[axis : axis + 1] + numpy.arange(n, dtype=np.uint32)
    along = along.reshape((n,) + (1,) * (part.ndim - axis - 1))
    places = places * np.uint32(shape[axis] % 2**32) + along
  return places


_on_device = jax.jit(_digest, static_argnums=2)
