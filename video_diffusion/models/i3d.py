"""The network of the FVD metric: Inception-I3D, 400 logits of Kinetics-400.

Carreira & Zisserman 2017 (arXiv 1705.07750); Unterthiner et al. 2018 (arXiv
1812.01717) take its logits as features. Parameters carry the names and shapes
of the checkpoint `rgb_scratch` of google-deepmind/kinetics-i3d, without their
common prefix, so that the checkpoint is this tree. All of them, the moments of
the batch norms too, are in the collection 'params': nothing is trained here.
"""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from video_diffusion.models import conv3d

NUM_LOGITS = 400
SIZE = 224  # height and width of the input
MIN_FRAMES = 9  # fewer leave nothing for the last pool, over two steps
EPSILON = 0.001  # of the batch norms
# Block -> channels of its six convolutions: branch 0; branch 1, narrow and
# wide; branch 2, narrow and wide; branch 3.
_MIXED = {
    'Mixed_3b': (64, 96, 128, 16, 32, 32),
    'Mixed_3c': (128, 128, 192, 32, 96, 64),
    'Mixed_4b': (192, 96, 208, 16, 48, 64),
    'Mixed_4c': (160, 112, 224, 24, 64, 64),
    'Mixed_4d': (128, 128, 256, 24, 64, 64),
    'Mixed_4e': (112, 144, 288, 32, 64, 64),
    'Mixed_4f': (256, 160, 320, 32, 128, 128),
    'Mixed_5b': (256, 160, 320, 32, 128, 128),
    'Mixed_5c': (384, 192, 384, 48, 128, 128),
}
# Pools before a block: name, window, strides (time, height, width).
_POOLS = {
    'Mixed_3b': ('MaxPool3d_3a_3x3', (1, 3, 3), (1, 2, 2)),
    'Mixed_4b': ('MaxPool3d_4a_3x3', (3, 3, 3), (2, 2, 2)),
    'Mixed_5b': ('MaxPool3d_5a_2x2', (2, 2, 2), (2, 2, 2)),
}


class I3D(nn.Module):
  """Clips -> logits, averaged over time.

  Every convolution and every max-pool is padded as TensorFlow's SAME: where the
  padding is odd, the larger half lies behind.

  Attributes:
    precision: of the products, a name of jax.default_matmul_precision. At the
      default of a GPU or a TPU, products are rounded to TF32 or bfloat16, which
      would make the score of a model depend on the device.
  """

  precision: str = 'highest'

  @nn.compact
  def __call__(
      self,
      x: jax.Array,
      tap: Callable[[str, jax.Array], None] = lambda name, x: None,
  ) -> jax.Array:
    """Computes the logits.

    Args:
      x: float32 [batch, time, 224, 224, 3] in [-1, 1], at least 9 frames.
      tap: called with the name and the value of each of the 19 endpoints of the
        original graph, in order; see `endpoints`.

    Returns:
      float32 [batch, 400].
    """
    b, t, h, w, c = x.shape
    assert t >= MIN_FRAMES and (h, w, c) == (SIZE, SIZE, 3), x.shape

    def pool(name, x, window, strides):
      x = _max_pool(x, window, strides)
      tap(name, x)
      return x

    def unit(name, x, *args):
      x = Unit3D(*args, name=name)(x)
      tap(f'{name}.Relu', x)
      return x

    with jax.default_matmul_precision(self.precision):
      x = unit('Conv3d_1a_7x7', x, 64, 7, 2)
      x = pool('MaxPool3d_2a_3x3', x, (1, 3, 3), (1, 2, 2))
      x = unit('Conv3d_2b_1x1', x, 64, 1)
      x = unit('Conv3d_2c_3x3', x, 192, 3)
      for name, widths in _MIXED.items():
        if name in _POOLS:
          pool_name, window, strides = _POOLS[name]
          x = pool(pool_name, x, window, strides)
        x = Mixed(widths, name=name)(x)
        tap(f'{name}.concat', x)
      x = nn.avg_pool(x, (2, 7, 7))
      tap('Logits.AvgPool3D', x)
      x = Logits(name='Logits')(x)
      tap('Logits.SpatialSqueeze', x)
      x = x.mean(1)
      tap('Mean', x)
    assert x.shape == (b, NUM_LOGITS), x.shape
    return x


class Unit3D(nn.Module):
  """relu(batch_norm(convolution)), or a convolution with a bias alone.

  Attributes:
    channels: of the result.
    window: of the convolution, the same on all three axes.
    stride: likewise.
    plain: True for the last one, which has a bias and nothing behind it.
  """

  channels: int
  window: int
  stride: int = 1
  plain: bool = False

  @nn.compact
  def __call__(self, x):
    x = Convolution(
        self.channels, self.window, self.stride, self.plain, name='conv_3d'
    )(x)
    return x if self.plain else nn.relu(BatchNorm(name='batch_norm')(x))


class Branch(nn.Module):
  """Units one after the other.

  Attributes:
    units: (name, channels, window) of each.
    pool: whether a max-pool comes first.
  """

  units: tuple[tuple[str, int, int], ...]
  pool: bool = False

  @nn.compact
  def __call__(self, x):
    if self.pool:
      x = _max_pool(x, (3, 3, 3), (1, 1, 1))
    for name, channels, window in self.units:
      x = Unit3D(channels, window, name=name)(x)
    return x


class Mixed(nn.Module):
  """Inception's block: four branches side by side on the channels.

  Attributes:
    widths: see _MIXED.
  """

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x):
    one, narrow_1, wide_1, narrow_2, wide_2, pooled = self.widths
    # The original names this one convolution unlike all others.
    last = 'Conv3d_0a_3x3' if self.name == 'Mixed_5b' else 'Conv3d_0b_3x3'
    first = 'Conv3d_0a_1x1'
    branches = (
        Branch(((first, one, 1),), name='Branch_0'),
        Branch(
            ((first, narrow_1, 1), ('Conv3d_0b_3x3', wide_1, 3)),
            name='Branch_1',
        ),
        Branch(((first, narrow_2, 1), (last, wide_2, 3)), name='Branch_2'),
        Branch((('Conv3d_0b_1x1', pooled, 1),), pool=True, name='Branch_3'),
    )
    return jnp.concatenate([branch(x) for branch in branches], -1)


class Logits(nn.Module):
  """[batch, time, 1, 1, 1024] -> [batch, time, 400] by a 1x1x1 convolution."""

  @nn.compact
  def __call__(self, x):
    x = Unit3D(NUM_LOGITS, 1, plain=True, name='Conv3d_0c_1x1')(x)
    return x.squeeze((2, 3))


class Convolution(nn.Module):
  """A convolution over time, height and width, padded as SAME.

  Attributes:
    channels: of the result.
    window: the same on all three axes.
    stride: likewise.
    bias: whether one is added.
  """

  channels: int
  window: int
  stride: int = 1
  bias: bool = False

  @nn.compact
  def __call__(self, x):
    kernel = self.param(
        'w',
        nn.initializers.he_normal(),
        (*(self.window,) * 3, x.shape[-1], self.channels),
    )
    x = conv3d.convolve(x, kernel, self.stride)
    if self.bias:
      x = x + self.param('b', nn.initializers.zeros, (self.channels,))
    return x


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + EPSILON) + beta, by the stored moments."""

  @nn.compact
  def __call__(self, x):
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    shape = x.shape[-1:]
    beta = self.param('beta', zeros, shape)
    mean = self.param('moving_mean', zeros, shape)
    variance = self.param('moving_variance', ones, shape)
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) + beta


def endpoints(params, x: jax.Array) -> dict[str, jax.Array]:
  """The 19 endpoints of the original graph, by their names there.

  Args:
    params: of `I3D`.
    x: as of `I3D`.
  """
  found = {}
  I3D().apply({'params': params}, x, found.__setitem__)
  return found


def _max_pool(x, window, strides):
  """A max-pool padded as SAME, one axis after the other.

  The maximum of maxima is the same to the last bit, with 9 comparisons in place
  of 27 for a window of 3x3x3.
  """
  for axis in range(3):
    size, stride = [1, 1, 1], [1, 1, 1]
    size[axis], stride[axis] = window[axis], strides[axis]
    if size != [1, 1, 1] or stride != [1, 1, 1]:
      x = nn.max_pool(x, tuple(size), tuple(stride), padding='SAME')
  return x
