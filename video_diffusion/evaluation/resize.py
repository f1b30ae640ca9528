"""Bilinear resizing as two products of matrices, in the two ways of metrics.

Which pixels a resize mixes moves a score by percents, so the ways are written
out here instead of being those of a library, which differ by version. Neither
smooths before it shrinks.
"""
import jax
import jax.numpy as jnp
import numpy as np

# How the place of a pixel of the result is found in the source.
WAYS = ('reference', 'half_pixel')


def matrix(source: int, result: int, way: str) -> np.ndarray:
  """Weights of the pixels of one axis, float32 [result, source].

  Args:
    source: pixels of the axis before.
    result: pixels of it after.
    way: 'reference' places pixel i of the result at i source / result, as
      resize_bilinear of TensorFlow 1 and so the published FVD does;
      'half_pixel' at (i + 1/2) source / result - 1/2, as PyTorch, TensorFlow 2
      and JAX do. Places behind an edge are those of the edge.
  """
  # In float32, as the originals: a place may lie on either side of a pixel.
  scale = np.float32(source) / np.float32(result)
  place = np.arange(result, dtype=np.float32)
  if way == 'half_pixel':
    place = (place + np.float32(0.5)) * scale - np.float32(0.5)
  else:
    place = place * scale
  below = np.floor(place)
  part = place - below
  weights = np.zeros((result, source), np.float32)
  rows = np.arange(result)
  clamp = lambda i: np.clip(i.astype(int), 0, source - 1)
  np.add.at(weights, (rows, clamp(below)), 1 - part)
  np.add.at(weights, (rows, clamp(below + 1)), part)
  return weights


def stretch(x: jax.Array, size: int, way: str) -> jax.Array:
  """Resizes frames to a square, whatever their sides; nothing is cropped.

  Args:
    x: float32 [batch, time, height, width, channels].
    size: height and width of the result.
    way: see `matrix`.

  Returns:
    float32 [batch, time, size, size, channels].
  """
  for axis, letters in ((2, 'ih,bthwc->btiwc'), (3, 'jw,bthwc->bthjc')):
    if x.shape[axis] != size:
      x = jnp.einsum(
          letters, matrix(x.shape[axis], size, way), x, precision='highest'
      )
  return x
