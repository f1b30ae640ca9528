"""A number for the bits of an array: damage on its way over a disk shows.

A digest is the sum, modulo 2^32, of a mix of each element's bits and place. The
mix is one to one, so a change of one element always changes the digest, others
but for one in 2^32; and a sum is the same however the array lies on devices.
"""
import functools
from typing import Any

import jax
import numpy as np

SMALL = 2**16  # elements up to which the host is faster than a compile


def digests(tree: Any) -> dict[str, int]:
  """{'path/of/a/leaf': digest} of a tree of arrays.

  Every process that holds a part of the arrays must call this.
  """
  found = {
      jax.tree_util.keystr(path, simple=True, separator='/'): _start(x)
      for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  return {name: int(x) for name, x in jax.device_get(found).items()}


def _start(x: jax.Array):
  """The digest of one array; on its devices, where it is large or elsewhere."""
  if x.size <= SMALL and x.is_fully_addressable:
    return _digest(np.asarray(x))
  mesh = getattr(x.sharding, 'mesh', None)
  return _on_devices(mesh)(x)


@functools.lru_cache
def _on_devices(mesh):
  """`_digest`, compiled; its result on every device of the mesh, if one."""
  everywhere = mesh and jax.NamedSharding(mesh, jax.P())
  return jax.jit(_digest, out_shardings=everywhere)


def _digest(x):
  """uint32 [] of an array of NumPy or JAX."""
  if not x.ndim:
    x = x[None]
  # The mix is MurmurHash3's last one, of 32 bits.
  bits = x.view(f'uint{8 * x.dtype.itemsize}').astype(np.uint32)
  h = bits ^ (_places(x) * np.uint32(0x9E3779B1))
  h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
  h = h ^ (h >> 16)
  return h.sum(dtype=np.uint32)


def _places(x):
  """uint32, broadcastable to x: the place of each element, in row order."""
  numpy = np if isinstance(x, np.ndarray) else jax.numpy
  places = numpy.zeros((1,) * x.ndim, np.uint32)
  for axis, n in enumerate(x.shape):
    along = numpy.arange(n, dtype=np.uint32)
    shape = (n,) + (1,) * (x.ndim - axis - 1)
    places = places * np.uint32(n) + along.reshape(shape)
  return places
