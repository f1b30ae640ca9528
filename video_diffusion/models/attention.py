"""Attention over space and over time; every attention call goes through here.

Activations are [batch, frames, height, width, channels]; the last `num_images`
frames are independent images (paper section 3.1, joint training).
"""
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.models import blocks
from video_diffusion.models import hardware
from video_diffusion.models import temporal_kernel
from video_diffusion.parallel import sharding

POSITIONS = ('bias', 'shaw', 'shaw_exact', 'both')
CLIPPED_AT = 16  # frames; the distance k of Shaw et al., who take 16 as well


def joint_mask(num_video_frames: int, num_image_frames: int) -> np.ndarray:
  """Which frame may attend to which, bool [T + K, T + K] (query, key).

  Video frames see the T video frames, each image sees itself alone: ones(T, T)
  and an identity of size K on the diagonal. `TemporalAttention` computes this
  mask by its blocks, since a softmax over one key is that key's value.
  """
  mask = np.eye(num_video_frames + num_image_frames, dtype=bool)
  mask[:num_video_frames, :num_video_frames] = True
  return mask


def relative_buckets(
    num_frames: int, num_buckets: int = 32, max_distance: int = 128
) -> np.ndarray:
  """T5's buckets of the signed frame distance key - query, int32 [T, T].

  Half of the buckets serve each sign; in each half the first half of the
  distances is exact and the rest logarithmic up to max_distance. (This
  project's choice of the paper's relative position embedding.)
  """
  position = np.arange(num_frames)
  distance = position[None, :] - position[:, None]
  half = num_buckets // 2
  exact = half // 2
  size = np.abs(distance)
  log_ratio = np.log(np.maximum(size, 1) / exact) / math.log(
      max_distance / exact
  )
  coarse = exact + (log_ratio * (half - exact)).astype(np.int32)
  bucket = np.where(size < exact, size, np.minimum(coarse, half - 1))
  return (bucket + half * (distance > 0)).astype(np.int32)


def clipped_distances(num_frames: int, clip: int = CLIPPED_AT) -> np.ndarray:
  """clip(key - query, -k, k) + k, int32 [T, T] in 0 .. 2k.

  The indices of Shaw et al. (2018), section 3.2: each signed distance up to k
  has a vector of its own, and all farther ones share the last.
  """
  position = np.arange(num_frames)
  distance = position[None, :] - position[:, None]
  return (np.clip(distance, -clip, clip) + clip).astype(np.int32)


def rotate(qkv: jax.Array, frames: int, height: int, width: int) -> jax.Array:
  """Rotary positions in space and time (Su et al., 2104.09864).

  Turns the pairs of channels of queries and keys by angles that grow with the
  frame, the row and the column, so that logits depend on the distances of two
  positions along these axes. A quarter of the pairs is of time, and the others
  are shared by rows and columns. The slowest pair of an axis turns by a
  hundredth of a radian a position (this project's choice: axes are short).

  Args:
    qkv: [batch, frames * height * width, 3, heads, head_dim], positions by
      frames and then by rows; head_dim is a multiple of 4.

  Returns:
    Of qkv's shape and dtype; the values are unchanged.
  """
  pairs = qkv.shape[-1] // 2
  of_time = max(1, pairs // 4)
  of_rows = (pairs - of_time) // 2
  shares = (of_time, of_rows, pairs - of_time - of_rows)
  places = np.indices((frames, height, width)).reshape(3, -1)
  angles = np.concatenate([
      place[:, None] * 100.0 ** (-np.arange(share) / share)
      for place, share in zip(places, shares, strict=True)
  ], axis=1)[:, None, None]  # [positions, 1, 1, pairs]
  cos, sin = np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)
  x, y = jnp.split(qkv[:, :, :2].astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([x * cos - y * sin, x * sin + y * cos], axis=-1)
  return jnp.concatenate([turned.astype(qkv.dtype), qkv[:, :, 2:]], axis=2)


def takes_cudnn(shape: tuple[int, ...], dtype: jnp.dtype) -> bool:
  """Whether `attend` without a bias runs as cuDNN's fused kernel.

  Args:
    shape: of the queries, [..., sequence, heads, head_dim].
    dtype: of queries, keys and values.
  """
  return (
      dtype == jnp.bfloat16
      and len(shape) == 4
      and shape[-1] % 8 == 0
      and shape[-1] <= 128
      and hardware.runs_nvidia_kernels()
  )


def takes_kernel(shape: tuple[int, ...], dtype: jnp.dtype) -> bool:
  """Whether `attend_frames` runs as `temporal_kernel`.

  Args:
    shape: [batch, frames, positions, 3, heads, head_dim].
    dtype: of queries, keys and values.
  """
  _, t, n, _, _, d = shape
  return (
      dtype == jnp.bfloat16
      and temporal_kernel.fits(t, n, d)
      and hardware.runs_pallas()
  )


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
  """softmax(q k / sqrt(d) + bias) v over the axis third from the end.

  Without a bias and where `takes_cudnn` says so, cuDNN's fused kernel does it:
  the logits of 1,024 positions then do not pass through memory. (With a bias at
  16 frames that kernel failed and took the process with it.)

  Args:
    q: [..., sequence, heads, head_dim]; k and v likewise, with a bias perhaps
      of another sequence.
    bias: added to the logits, broadcastable to [..., heads, query, key].

  Returns:
    Of q's shape and dtype. The softmax is taken in float32.
  """
  if bias is None and takes_cudnn(q.shape, q.dtype):
    # Asked again: the program may still be lowered for the CPU, to count its
    # operations.
    return jax.lax.platform_dependent(q, k, v, cuda=_cudnn, default=_plain)
  return _plain(q, k, v, bias)


def _cudnn(q, k, v):
  return jax.nn.dot_product_attention(q, k, v, implementation='cudnn')


def _plain(q, k, v, bias=None):
  einsum = _einsum(q.dtype)
  logits = einsum(
      '...qhd,...khd->...hqk', q, k, preferred_element_type=jnp.float32
  )
  logits = logits / math.sqrt(q.shape[-1])
  if bias is not None:
    logits = logits + bias
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return einsum('...hqk,...khd->...qhd', weights, v)


def _einsum(dtype):
  return functools.partial(jnp.einsum, precision=blocks.precision(dtype))


def attend_frames(qkv: jax.Array, bias: jax.Array) -> jax.Array:
  """Attention over the frames of each position, with a bias.

  Runs as `temporal_kernel` where `takes_kernel` says so.

  Args:
    qkv: [batch, frames, positions, 3, heads, head_dim].
    bias: float32 [heads, frames, frames].

  Returns:
    [batch, frames, positions, heads, head_dim].
  """
  if takes_kernel(qkv.shape, qkv.dtype):
    # Heads of qkv, of the bias and of the result.
    kernel = sharding.map_batch(temporal_kernel.attend, model_axes=(4, 0, 3))
    return jax.lax.platform_dependent(
        qkv, bias, cuda=kernel, default=_plain_frames
    )
  return _plain_frames(qkv, bias)


def attend_frames_shaw(
    qkv: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    bias: jax.Array | None = None,
) -> jax.Array:
  """Attention over the frames of each position, of Shaw et al. (2018).

  softmax(q_i (k_j + keys_ij) / sqrt(d))_ij (v_j + values_ij): their equations
  3 and 4. Unlike a bias, which looks into the past or the future whatever the
  caption, the keys let the query choose; and by the values a frame can count
  those before and behind it, so that it knows its own place.

  Args:
    qkv: [batch, frames, positions, 3, heads, head_dim].
    keys: float32 [frames, frames, heads, head_dim]; values likewise.
    bias: float32 [heads, frames, frames], added to the logits, or None.

  Returns:
    [batch, frames, positions, heads, head_dim]. The softmax is in float32.
  """
  q, k, v = (qkv[:, :, :, i] for i in range(3))
  keys, values = keys.astype(q.dtype), values.astype(q.dtype)
  einsum = _einsum(q.dtype)
  logits = einsum(
      'bqnhd,bknhd->bnhqk', q, k, preferred_element_type=jnp.float32
  ) + einsum('bqnhd,qkhd->bnhqk', q, keys, preferred_element_type=jnp.float32)
  logits = logits / math.sqrt(q.shape[-1])
  if bias is not None:
    logits = logits + bias
  weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return einsum('bnhqk,bknhd->bqnhd', weights, v) + einsum(
      'bnhqk,qkhd->bqnhd', weights, values
  )


def _plain_frames(qkv, bias):
  # Swapped this late, the copies are those that the products make anyway.
  q, k, v = (jnp.swapaxes(qkv[:, :, :, i], 1, 2) for i in range(3))
  return jnp.swapaxes(_plain(q, k, v, bias), 1, 2)


class SpatialAttention(nn.Module):
  """Self-attention over the positions of each frame; frames are a batch.

  Attributes:
    head_dim: channels per head.
    dtype: of the matrix products.
    group_size: see `blocks.GroupNorm`.
    spacetime: whether the positions of all video frames attend to each other,
      in place of those of one frame, and know their distances by `rotate`. It
      has the same parameters, and is this project's choice: what moves through
      a clip is then found wherever it is. The last `num_images` frames stay
      apart.
  """

  head_dim: int
  dtype: jnp.dtype
  group_size: int = 1
  spacetime: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, num_images: int = 0) -> jax.Array:
    b, f, h, w, c = x.shape
    heads = c // self.head_dim
    y = blocks.GroupNorm(self.dtype, self.group_size, name='norm')(x)
    y = y.reshape(b * f, h * w, c)
    dense = functools.partial(
        nn.DenseGeneral,
        dtype=self.dtype,
        precision=blocks.precision(self.dtype),
    )
    qkv = dense((3, heads, self.head_dim), name='qkv')(y)

    def attend_within(qkv, frames):  # of each group of so many frames
      qkv = qkv.reshape(-1, frames * h * w, *qkv.shape[-3:])
      if self.spacetime:
        qkv = rotate(qkv, frames, h, w)
      y = attend(*(qkv[:, :, i] for i in range(3)))
      return y.reshape(b, -1, *y.shape[2:])

    t = f - num_images
    if self.spacetime and t and num_images:
      qkv = qkv.reshape(b, f, h * w, *qkv.shape[-3:])
      y = jnp.concatenate(
          [attend_within(qkv[:, :t], t), attend_within(qkv[:, t:], 1)], axis=1
      )
    else:
      y = attend_within(qkv, t if self.spacetime and t else 1)
    y = dense(
        c, axis=(-2, -1), kernel_init=nn.initializers.zeros, name='out'
    )(y)
    return x + y.reshape(b, f, h, w, c)


class TemporalAttention(nn.Module):
  """Self-attention over the frames at each position; positions are a batch.

  With learned relative positions and no absolute frame index. The last
  `num_images` frames attend to themselves alone (`joint_mask`): their output is
  their own value, so only the T video frames pay for a softmax.

  Tables that are equal in both directions of time, as zeros are, tell no past
  from future: a video played backwards gives the same, backwards.

  Attributes:
    head_dim: channels per head.
    dtype: of the matrix products.
    position: what is learned of each distance between frames. 'bias' is a bias
      of the logits, for each of T5's buckets (this project's choice).
      'shaw_exact' is vectors added to keys and values for each distance up to
      16, as in Shaw et al. (2018), whom the paper cites. 'shaw' is such vectors
      for each of T5's buckets, where distances 8 to 11 share one: this
      project's mixture of the two, which its published models were trained
      with, so that the name keeps its meaning. 'both' is 'bias' and
      'shaw_exact' together.
    position_stddev: standard deviation of these tables at the start.
    num_buckets: number of buckets of signed distances, see `relative_buckets`.
    max_distance: distance from which on all share a bucket.
    group_size: see `blocks.GroupNorm`.
  """

  head_dim: int
  dtype: jnp.dtype
  position: str = 'bias'
  position_stddev: float = 0.0
  num_buckets: int = 32
  max_distance: int = 128
  group_size: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, num_images: int) -> jax.Array:
    b, f, h, w, c = x.shape
    heads = c // self.head_dim
    t = f - num_images
    y = blocks.GroupNorm(self.dtype, self.group_size, name='norm')(x)
    y = y.reshape(b, f, h * w, c)
    dense = functools.partial(
        nn.DenseGeneral,
        dtype=self.dtype,
        precision=blocks.precision(self.dtype),
    )
    qkv = dense((3, heads, self.head_dim), name='qkv')(y)
    if self.position in ('shaw_exact', 'both'):
      rows, index = 2 * CLIPPED_AT + 1, clipped_distances
    else:
      rows, index = self.num_buckets, functools.partial(
          relative_buckets,
          num_buckets=self.num_buckets,
          max_distance=self.max_distance,
      )
    distances, own = index(t), index(1)[0, 0]

    def table(name, *shape):
      init = nn.initializers.normal(self.position_stddev)
      return self.param(name, init, (rows, *shape), jnp.float32)

    values = qkv[:, t:, :, 2]
    bias = None
    if self.position in ('bias', 'both'):
      bias = jnp.moveaxis(table('relative_bias', heads)[distances], -1, 0)
    if self.position == 'bias':
      attend_video = functools.partial(attend_frames, bias=bias)
    else:
      key_table = table('relative_keys', heads, self.head_dim)
      value_table = table('relative_values', heads, self.head_dim)
      attend_video = functools.partial(
          attend_frames_shaw,
          keys=key_table[distances],
          values=value_table[distances],
          bias=bias,
      )
      values = values + value_table[own].astype(self.dtype)
    if t:
      values = jnp.concatenate([attend_video(qkv[:, :t]), values], axis=1)
    y = dense(
        c, axis=(-2, -1), kernel_init=nn.initializers.zeros, name='out'
    )(values)
    return x + y.reshape(b, f, h, w, c)
