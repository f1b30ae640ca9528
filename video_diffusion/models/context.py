"""Frames before the next one as its context: weighted, summed up, and aligned.

A summary of the paper has this; the paper itself does not (docs/summary.md). A
temporal transformer network weights the frames before, and a spatial
transformer network (Jaderberg et al. 2015, arXiv 1506.02025) aligns their
weighted sum with the frame to come. The result enters the U-Net beside z, as
further channels. The summary gives no sizes: they are this project's choice.
"""
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.models import blocks

IDENTITY = np.eye(2, 3, dtype=np.float32)  # as an affine map, [2, 3]
_einsum = functools.partial(
    jnp.einsum, precision=blocks.precision(jnp.float32)
)


class Previous(NamedTuple):
  """The C frames before each of J next frames, the oldest first.

  Attributes:
    frames: float32 [batch, J, C, height, width, channels] in [-1, 1].
    mask: bool [batch or 1, J, C], False where the video has no such frame; what
      `frames` holds there has no effect. The last frame is always there.
  """

  frames: jax.Array
  mask: jax.Array


def take_previous(video: jax.Array, places: jax.Array, count: int) -> Previous:
  """The frames before some frames of each video.

  Args:
    video: float32 [batch, T, height, width, channels] in [-1, 1].
    places: int [batch, J] from 1 to T - 1, the frames to come.
    count: number C of frames before each.
  """
  index = places[..., None] + jnp.arange(-count, 0)
  frames = jax.vmap(lambda video, index: video[index])(
      video, jnp.maximum(index, 0)
  )
  return Previous(frames, index >= 0)


def affine_grid(theta: jax.Array, height: int, width: int) -> jax.Array:
  """Where an affine map takes each pixel from.

  Args:
    theta: [2, 3], (x, y) = theta (u, v, 1): the pixel at (u, v) is taken from
      (x, y). A frame reaches from -1 to 1, from left to right and from top to
      bottom, edges included.
    height: of the frame.
    width: of the frame.

  Returns:
    float32 [height, width, 2]: x and y in pixels, where 0 is the centre of the
    first. They are exactly the pixels' own places for IDENTITY.
  """
  columns, rows = np.meshgrid(np.arange(width), np.arange(height))
  places = np.stack([columns, rows], axis=-1).astype(np.float32)
  sides = np.array([width, height], np.float32)
  ends = (2 * places + 1) / sides - 1
  points = np.concatenate([ends, np.ones_like(ends[..., :1])], axis=-1)
  return places + _einsum('ij,hwj->hwi', theta - IDENTITY, points) * sides / 2


def grid_sample(image: jax.Array, grid: jax.Array) -> jax.Array:
  """Samples an image at a grid of places, bilinearly.

  Args:
    image: [height, width, channels].
    grid: [..., 2], x and y in pixels. Beyond the edge of the image every place
      has the value of the nearest pixel.

  Returns:
    [..., channels].
  """
  height, width, _ = image.shape
  grid = jnp.clip(grid, 0, np.array([width - 1, height - 1], np.float32))
  low = jnp.floor(grid)
  x, y = jnp.moveaxis(low.astype(jnp.int32), -1, 0)
  right, down = jnp.split(grid - low, 2, axis=-1)
  x_next, y_next = jnp.minimum(x + 1, width - 1), jnp.minimum(y + 1, height - 1)
  above = (1 - right) * image[y, x] + right * image[y, x_next]
  below = (1 - right) * image[y_next, x] + right * image[y_next, x_next]
  return (1 - down) * above + down * below


class FrameFeatures(nn.Module):
  """A frame -> a vector: how strong the channels of two convolutions are, and
  where.

  The place of a channel is the mean position under the softmax of its values
  (spatial softmax, Levine et al. 2016), which serves any size of frame.

  Attributes:
    features: channels of each convolution.
  """

  features: int

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """float32 [batch, n, height, width, c] -> [batch, n, 3 * features]."""
    conv = functools.partial(blocks.SpaceConv, self.features, jnp.float32)
    x = conv(name='conv_0')(frames)
    x = conv(name='conv_1')(nn.swish(x))
    h, w = x.shape[2:4]
    heat = jax.nn.softmax(x, axis=(2, 3))
    place = lambda side: np.linspace(-1, 1, side, dtype=np.float32)
    return jnp.concatenate([
        x.mean(axis=(2, 3)),
        _einsum('bnhwc,h->bnc', heat, place(h)),
        _einsum('bnhwc,w->bnc', heat, place(w)),
    ], axis=-1)


class TemporalTransformer(nn.Module):
  """The weights of the frames before: a softmax over their features.

  The newest frame asks, and each frame answers by its features and by how far
  back it is.

  Attributes:
    features: width of queries and keys.
  """

  features: int

  @nn.compact
  def __call__(self, vectors: jax.Array, mask: jax.Array) -> jax.Array:
    """Weighs frames.

    Args:
      vectors: [batch, J, C, d], the features of the frames, the oldest first.
      mask: bool [batch or 1, J, C], see `Previous`.

    Returns:
      [batch, J, C], weights that sum to one over C; 0 where mask is False.
    """
    dense = functools.partial(
        nn.Dense, self.features, precision=blocks.precision(jnp.float32)
    )
    query = dense(name='query')(vectors[:, :, -1])
    keys = dense(name='key')(vectors) + self.param(
        'distance', nn.initializers.zeros, (vectors.shape[2], self.features)
    )
    logits = _einsum('bjd,bjcd->bjc', query, keys) / math.sqrt(self.features)
    return jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)


class SpatialTransformer(nn.Module):
  """Moves a frame by an affine map that is read off a vector.

  It starts as the identity, exactly.

  Attributes:
    features: width of its hidden layer.
  """

  features: int

  @nn.compact
  def __call__(self, frame: jax.Array, vector: jax.Array) -> jax.Array:
    """frame [batch, J, h, w, c], vector [batch, J, d] -> of frame's shape."""
    dense = functools.partial(
        nn.Dense, precision=blocks.precision(jnp.float32)
    )
    hidden = nn.swish(dense(self.features, name='hidden')(vector))
    change = dense(6, kernel_init=nn.initializers.zeros, name='affine')(hidden)
    theta = IDENTITY + change.reshape(*change.shape[:-1], 2, 3)
    move = lambda frame, theta: grid_sample(
        frame, affine_grid(theta, *frame.shape[:2])
    )
    return jax.vmap(jax.vmap(move))(frame, theta)


class AlignedContext(nn.Module):
  """The frames before a next frame -> channels beside its z.

  Attributes:
    frames: number C of frames that are weighted.
    features: width of the networks.
  """

  frames: int
  features: int

  def shapes(self, batch: int, frame: Sequence[int]) -> Previous:
    """The shapes of `Previous` for one next frame.

    Args:
      batch: number of examples.
      frame: height, width and channels of a frame.
    """
    lead = (batch, 1, self.frames)
    return Previous(
        jax.ShapeDtypeStruct((*lead, *frame), jnp.float32),
        jax.ShapeDtypeStruct(lead, jnp.bool_),
    )

  @nn.compact
  def __call__(self, previous: Previous) -> jax.Array:
    """float32 [batch, J, height, width, channels + 1].

    The last channel is one, which tells a grey frame from none.
    """
    b, j, c = previous.frames.shape[:3]
    keep = lambda x: jnp.where(
        previous.mask.reshape(previous.mask.shape + (1,) * (x.ndim - 3)), x, 0.0
    )
    frames = keep(previous.frames)
    vectors = FrameFeatures(self.features, name='features')(
        frames.reshape(b, j * c, *frames.shape[3:])
    )
    vectors = keep(vectors.reshape(b, j, c, -1))
    weights = TemporalTransformer(self.features, name='temporal')(
        vectors, previous.mask
    )
    aligned = SpatialTransformer(4 * self.features, name='spatial')(
        _einsum('bjc,bjchwd->bjhwd', weights, frames),
        jnp.concatenate([vectors.reshape(b, j, -1), weights], axis=-1),
    )
    return jnp.concatenate([aligned, jnp.ones_like(aligned[..., :1])], axis=-1)
