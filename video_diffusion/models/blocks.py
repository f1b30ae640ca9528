"""Building blocks of the U-Net: norm, convolutions, resampling.

Activations are [batch, frames, height, width, channels]. Nothing here mixes
frames but `Conv3D`, which the paper does not have.
"""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from video_diffusion.parallel import sharding

INJECTIONS = ('add', 'scale_shift')


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
  """The precision of matrix products and convolutions of a dtype.

  Float32 means float32: JAX's default multiplies float32 numbers as bfloat16 on
  TPUs and as TF32 on NVIDIA GPUs, with 8 and 11 significant bits of their 24.
  Every float32 product of this project asks for all of them. It has no effect
  on CPUs.
  """
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


class GroupNorm(nn.Module):
  """GroupNorm with statistics of each frame alone, float32 inside.

  Statistics pooled over frames would leak between a video and the images
  appended to it. The number of groups is the largest divisor of the channels up
  to 32 that leaves each group at least `group_size` channels (this project's
  choice). A group of one channel loses the mean and the contrast of that
  channel in each frame.

  The sums run over height and width alone; groups are formed from what is left,
  [batch, frames, channels]. So each pass forward or backward reads the
  activations once, and all else is small.

  Attributes:
    dtype: type of the result.
    group_size: smallest number of channels of a group.
    epsilon: added to the variance.
  """

  dtype: jnp.dtype
  group_size: int = 1
  epsilon: float = 1e-6

  @nn.compact
  def __call__(
      self, x: jax.Array, shift: jax.Array | None = None
  ) -> jax.Array:
    """x [b, f, h, w, c], shift [b, f or 1, c] added after -> x's shape."""
    b, f, h, w, c = x.shape
    most = max(1, min(32, c // self.group_size))
    groups = max(g for g in range(1, most + 1) if c % g == 0)
    scale = self.param('scale', nn.initializers.ones, (c,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
    x = x.astype(jnp.float32)

    def group_mean(sums):  # [b, f, c] -> [b, f, groups, 1]
      means = sums.reshape(b, f, groups, c // groups) / (h * w)
      return means.mean(axis=-1, keepdims=True)

    mean = group_mean(x.sum(axis=(2, 3)))
    var = group_mean(jnp.square(x).sum(axis=(2, 3))) - jnp.square(mean)
    # Rounding may leave a flat frame a little below zero.
    inverse = jax.lax.rsqrt(jnp.maximum(var, 0.0) + self.epsilon)
    slope = inverse * scale.reshape(groups, c // groups)
    offset = (bias.reshape(groups, c // groups) - mean * slope).reshape(b, f, c)
    if shift is not None:
      offset = offset + shift
    y = x * slope.reshape(b, f, 1, 1, c) + offset[:, :, None, None]
    return y.astype(self.dtype)


def _conv(x, kernel, padding='SAME'):
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=precision(x.dtype),
  )


@jax.custom_vjp
def conv_3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """x [n, h, w, in], kernel [3, 3, in, out] -> [n, h, w, out], zero-padded.

  On CPUs its gradients are convolutions of this very layout. JAX's own keep the
  arrays as they are and name their axes otherwise, which XLA's CPU compiler
  mends only outside of loops: in the samplers' scan a guided step took 3.6
  times as long as by itself, and in that of train.accumulate 11 times.
  """
  return _conv(x, kernel)


def _conv_forward(x, kernel):
  return _conv(x, kernel), (x, kernel)


def _conv_backward(saved, g):
  def plain(x, kernel, g):
    return (
        *jax.linear_transpose(lambda x: _conv(x, kernel), x)(g),
        *jax.linear_transpose(lambda kernel: _conv(x, kernel), kernel)(g),
    )

  def canonical(x, kernel, g):
    grad_x = _conv(g, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    # Channels in place of images, and the frame itself as the window.
    grad_kernel = _conv(
        x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), ((1, 1), (1, 1))
    )
    return grad_x, grad_kernel.transpose(1, 2, 0, 3)

  return jax.lax.platform_dependent(*saved, g, cpu=canonical, default=plain)


conv_3x3.defvjp(_conv_forward, _conv_backward)


class SpaceConv(nn.Module):
  """A space-only convolution: the paper's 1 x 3 x 3.

  Run as a 2-D convolution on merged batch and frames, which is several times
  faster than a 3-D one with a kernel of one in time.
  """

  features: int
  dtype: jnp.dtype
  zero: bool = False  # whether it starts at zero
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, num_images: int = 0) -> jax.Array:
    """x [b, f, h, w, c] -> [b, f, h, w, features].

    Args:
      x: frames. None sees another one, be it an image or not.
      num_images: for `Conv3D`.
    """
    del num_images
    kernel, bias = _kernel_and_bias(self, (3, 3, x.shape[-1], self.features))
    return _conv_frames(x.astype(self.dtype), kernel, bias)


class Conv3D(nn.Module):
  """A full 3 x 3 x 3 convolution over the frames of the video.

  It is zero-padded in time as in space. An image is a video of one frame, so
  that the middle third of the kernel is all that it meets. The kernel is that
  of Flax, [time, height, width, in, out], and is run as three convolutions of
  frames: gradients and speed are those of `conv_3x3`.
  """

  features: int
  dtype: jnp.dtype
  zero: bool = False  # whether it starts at zero
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, num_images: int = 0) -> jax.Array:
    """x [b, f, h, w, c] -> [b, f, h, w, features].

    Args:
      x: frames; the last num_images of them are independent images.
      num_images: K.
    """
    kernel, bias = _kernel_and_bias(self, (3, 3, 3, x.shape[-1], self.features))
    x = x.astype(self.dtype)
    y = _conv_frames(x, kernel[1], bias)
    frames = x.shape[1] - num_images
    if frames > 1:
      past, future = x[:, : frames - 1], x[:, 1:frames]
      between = lambda y, before, after: jnp.pad(
          y, ((0, 0), (before, after), (0, 0), (0, 0), (0, 0))
      )
      y = y + between(_conv_frames(past, kernel[0]), 1, num_images)
      y = y + between(_conv_frames(future, kernel[2]), 0, 1 + num_images)
    return y


# model.conv -> what all convolutions of the network are.
CONVS = {'space': SpaceConv, 'full_3d': Conv3D}


def _kernel_and_bias(conv, shape):
  """The parameters of a convolution, in its dtype; 0 for no bias."""
  zeros, normal = nn.initializers.zeros, nn.initializers.lecun_normal()
  kernel = conv.param(
      'kernel', zeros if conv.zero else normal, shape, jnp.float32
  )
  kernel = kernel.astype(conv.dtype)
  if not conv.use_bias:
    return kernel, 0.0
  bias = conv.param('bias', zeros, shape[-1:], jnp.float32)
  return kernel, bias.astype(conv.dtype)


def _conv_frames(x, kernel, bias=0.0):
  """x [b, f, h, w, in], kernel [3, 3, in, out] -> [b, f, h, w, out]."""
  *lead, h, w, c = x.shape
  y = conv_3x3(x.reshape(-1, h, w, c), kernel) + bias
  return y.reshape(*lead, h, w, kernel.shape[-1])


def downsample(x: jax.Array) -> jax.Array:
  """2 x 2 average pooling of height and width."""
  b, f, h, w, c = x.shape
  return x.reshape(b, f, h // 2, 2, w // 2, 2, c).mean(axis=(3, 5))


def upsample(x: jax.Array) -> jax.Array:
  """Nearest-neighbour doubling of height and width.

  By broadcast and reshape: `jnp.repeat` on a sharded batch made the partitioner
  replicate the whole batch on every device.
  """
  b, f, h, w, c = x.shape
  x = jnp.broadcast_to(
      x[:, :, :, None, :, None, :], (b, f, h, 2, w, 2, c)
  ).reshape(b, f, 2 * h, 2 * w, c)
  return sharding.constrain_batch(x)


class ResidualBlock(nn.Module):
  """norm, swish, [resample], conv, norm + embedding, swish, dropout, conv.

  The last convolution starts at zero, so a new block is its own shortcut. The
  embedding is added after the second norm ('add', as the paper says) or scales
  and shifts it ('scale_shift').
  """

  features: int
  resample: str  # 'none', 'down' or 'up'
  injection: str
  dropout: float
  dtype: jnp.dtype
  group_size: int = 1
  conv: str = 'space'  # one of CONVS

  @nn.compact
  def __call__(
      self, x: jax.Array, emb: jax.Array, train: bool, num_images: int = 0
  ) -> jax.Array:
    """x [b, f, h, w, c], emb [b, f or 1, d] -> [b, f, h', w', features]."""
    conv = functools.partial(CONVS[self.conv], self.features, self.dtype)
    resample = {'none': lambda a: a, 'down': downsample, 'up': upsample}[
        self.resample
    ]
    y = nn.swish(GroupNorm(self.dtype, self.group_size, name='norm_1')(x))
    y = conv(name='conv_1')(resample(y), num_images)
    affine = self.injection == 'scale_shift'
    dense = functools.partial(
        nn.Dense, dtype=self.dtype, precision=precision(self.dtype)
    )
    emb = dense(self.features * (2 if affine else 1), name='emb')(nn.swish(emb))
    norm = GroupNorm(self.dtype, self.group_size, name='norm_2')
    if affine:
      scale, shift = jnp.split(emb[:, :, None, None], 2, axis=-1)
      y = norm(y) * (1 + scale) + shift
    else:
      y = norm(y, emb)
    y = nn.Dropout(self.dropout, deterministic=not train)(nn.swish(y))
    y = conv(zero=True, name='conv_2')(y, num_images)
    x = resample(x)
    if x.shape[-1] != self.features:
      # A matrix product, which runs faster than a 1 x 1 convolution.
      x = dense(self.features, name='shortcut')(x)
    return x + y


class Embedding(nn.Module):
  """Log-SNR and condition -> the embedding vector of every residual block.

  lambda enters as u = arctan(e^{-lambda / 2}) / (pi / 2) in [0, 1], then as
  sinusoidal features of 1000 u. The first layer of the MLP takes features and
  condition together; a zero condition is the null condition.
  """

  features: int  # sinusoidal features
  dim: int
  num_layers: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, logsnr: jax.Array, cond: jax.Array | None) -> jax.Array:
    """logsnr [b, f or 1], cond [b, f or 1, d] or None -> [b, f or 1, dim]."""
    logsnr = jnp.clip(logsnr.astype(jnp.float32), -20.0, 20.0)
    u = jnp.arctan(jnp.exp(-0.5 * logsnr)) / (0.5 * jnp.pi)
    half = self.features // 2
    frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / (half - 1))
    angle = 1000.0 * u[..., None] * frequency
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    dense = functools.partial(
        nn.Dense, self.dim, dtype=self.dtype, precision=precision(self.dtype)
    )
    emb = dense(name='layer_0')(waves)
    if cond is not None:
      emb = emb + dense(use_bias=False, name='cond')(cond)
    for i in range(1, self.num_layers):
      emb = dense(name=f'layer_{i}')(nn.swish(emb))
    return emb
