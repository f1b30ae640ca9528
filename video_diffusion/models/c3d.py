"""The C3D network of the UCF101 scores (Tran et al. 2015, arXiv 1412.0767).

The network was trained on Sports-1M and tuned to UCF101. The Inception Score of
UCF101 is of its softmax, and the FID of its fc7 (Saito et al., TGAN, arXiv
1611.06624, and TGAN v2, arXiv 1811.09245). What is here is what TGAN v2
publishes: github.com/pfnet-research/tgan2, commit d83018c, files
tgan2/models/c3d/c3d_ucf101.py and tgan2/evaluations/. The max-pools also cover
a last row or column that fills no window, as Chainer and Caffe do by default.
"""
from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.models import conv3d
from video_diffusion.parallel import sharding

FRAMES = 16
SIZE = 112  # height and width of what the network sees
MEAN_SHAPE = (3, FRAMES, 128, 171)  # blue, green, red; of mean2.npz
CONVOLUTIONS = (
    'conv1a', 'conv2a', 'conv3a', 'conv3b', 'conv4a', 'conv4b', 'conv5a',
    'conv5b',
)
# A pool follows each of these; the first one leaves the frames alone.
_POOLS = {
    'conv1a': (1, 2, 2), 'conv2a': (2, 2, 2), 'conv3b': (2, 2, 2),
    'conv4b': (2, 2, 2), 'conv5b': (2, 2, 2),
}


class Activations(NamedTuple):
  """What the scores are of.

  Attributes:
    fc7: [n, hidden], after the ReLU; of the FID.
    logits: [n, classes], fc8 before the softmax; of the Inception Score.
  """

  fc7: Any
  logits: Any


class C3D(nn.Module):
  """Clips -> activations. Dropout is left out: it is off when scores are taken.

  Attributes:
    widths: channels of the eight convolutions.
    hidden: width of fc6 and fc7.
    classes: of fc8.
  """

  widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512, 512, 512)
  hidden: int = 4096
  classes: int = 101

  @nn.compact
  def __call__(self, x: jax.Array) -> Activations:
    """Runs the network in float32.

    Args:
      x: float32 [n, time, height, width, 3], channels in the order blue, green,
        red, on the scale of [0, 255] less the mean; 16 x 112 x 112 from
        `preprocess`.
    """
    with jax.default_matmul_precision('highest'):
      for name, width in zip(CONVOLUTIONS, self.widths, strict=True):
        # Padded by 1, which is SAME for this window.
        x = nn.relu(nn.Conv(
            width, (3, 3, 3), name=name,
            conv_general_dilated=lambda x, kernel, *_, **__: conv3d.convolve(
                x, kernel
            ),
        )(x))
        if name in _POOLS:
          x = _pool(x, _POOLS[name])
      # Kernels of fc6 count channels first.
      x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
      x = nn.relu(nn.Dense(self.hidden, name='fc6')(x))
      fc7 = nn.relu(nn.Dense(self.hidden, name='fc7')(x))
      return Activations(fc7, nn.Dense(self.classes, name='fc8')(fc7))


def _pool(x, window):
  """Max-pool without overlap; the last window of an axis may stand out."""
  pads = [(0, -n % w) for n, w in zip(x.shape[1:-1], window, strict=True)]
  return nn.max_pool(x, window, strides=window, padding=pads)


def preprocess(
    videos: jax.Array, mean: jax.Array, *, resize: str = 'squash'
) -> jax.Array:
  """uint8 videos -> what the network sees, float32 [n, 16, 112, 112, 3].

  Args:
    videos: uint8 [n, 16, height, width, 3], red first.
    mean: float32 MEAN_SHAPE, the mean clip of the training data.
    resize: 'squash' is TGAN v2: bilinear to 112 x 112 with corners on corners
      (Chainer's resize_images), less rows and columns 8 to 120 of the mean.
      'crop' is C3D's own: bilinear to 128 x 171 with half-pixel centres, less
      the mean, then the central 112 x 112.

  Raises:
    ArgumentError: a shape, the dtype or the kind of resize is another one.
  """
  if videos.dtype != jnp.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ArgumentError(
        Argument('videos'), f' is {videos.dtype} of shape {videos.shape}; C3D '
        'takes uint8 [n, 16, height, width, 3].',
    )
  if videos.shape[1] != FRAMES:
    raise ArgumentError(
        Argument('videos'), f' has {videos.shape[1]} frames; C3D takes '
        f'{FRAMES}.',
    )
  if mean.shape != MEAN_SHAPE:
    raise ArgumentError(
        Argument('mean'), f' has the shape {mean.shape}; it must be '
        f'{MEAN_SHAPE}.',
    )
  if resize not in ('squash', 'crop'):
    raise ArgumentError(
        Argument('resize'), f" is {resize!r}; it must be 'squash' or 'crop'."
    )
  mean = jnp.moveaxis(mean, 0, -1)
  x = videos[..., ::-1].astype(jnp.float32)
  if resize == 'squash':
    x = _bilinear(x, (SIZE, SIZE), corners=True)
    return x - mean[:, 8 : 8 + SIZE, 8 : 8 + SIZE]
  height, width = MEAN_SHAPE[2:]
  x = _bilinear(x, (height, width), corners=False) - mean
  top, left = (height - SIZE) // 2, (width - SIZE) // 2
  return x[:, :, top : top + SIZE, left : left + SIZE]


def _bilinear(x, size, *, corners):
  """[n, time, height, width, c] at another height and width."""
  rows = _weights(x.shape[2], size[0], corners)
  columns = _weights(x.shape[3], size[1], corners)
  return jnp.einsum(
      'nthwc,yh,xw->ntyxc', x, rows, columns, precision='highest'
  )


def _weights(old, new, corners):
  """float32 [new, old]: the shares of the old points in each new one.

  Corners: the first and last points fall on each other. Otherwise points are
  centres of pixels, and what lies outside takes the nearest one. Neither
  smooths where it shrinks.
  """
  if corners:
    at = np.linspace(0, old - 1, new)
  else:
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  distance = np.abs(at[:, None] - np.arange(old))
  return np.maximum(1 - distance, 0).astype(np.float32)


def make_activations(
    params: Any, mean: np.ndarray, *, resize: str = 'squash'
) -> Callable[[np.ndarray], Activations]:
  """uint8 [n, 16, height, width, 3] -> `Activations` in numpy.

  The function is compiled for each shape it meets. The devices of this process
  share the clips of a call, of whatever number, and the large weights.

  Args:
    params: of `checkpoints.c3d_weights.load_c3d`, or of another `C3D`, whose
      sizes are read off them.
    mean: float32 MEAN_SHAPE.
    resize: as of `preprocess`.
  """
  network = C3D(
      tuple(len(params[name]['bias']) for name in CONVOLUTIONS),
      len(params['fc7']['bias']), len(params['fc8']['bias']),
  )
  mesh = sharding.make_mesh(devices=jax.local_devices())
  rows = sharding.batch_sharding(mesh)
  params = jax.device_put(params, sharding.shardings(params, mesh))

  @functools.partial(jax.jit, out_shardings=rows)
  def run(params, mean, videos):
    x = preprocess(videos, mean, resize=resize)
    return network.apply({'params': params}, x)

  def activations(videos):
    pad = [(0, -len(videos) % mesh.size)] + [(0, 0)] * (videos.ndim - 1)
    batch = jax.device_put(np.pad(videos, pad), rows)
    found = run(params, jnp.asarray(mean, jnp.float32), batch)
    return Activations(*(np.asarray(x)[: len(videos)] for x in found))

  return activations
