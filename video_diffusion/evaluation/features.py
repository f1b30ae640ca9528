"""Features of videos by the network of the FVD metric."""
from collections.abc import Callable, Iterable, Iterator
import functools

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.checkpoints import metric_networks
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.evaluation import resize as resize_lib
from video_diffusion.models import i3d as i3d_lib
from video_diffusion.parallel import sharding

BATCH_SIZE = 8
Weights = str | metric_networks.NetworkWeights | None


def i3d(
    videos: np.ndarray | Iterable[np.ndarray],
    *,
    weights: Weights = None,
    resize: str = 'reference',
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
  """The features of the FVD: 400 logits of each video.

  A program that asks more than once keeps an `I3DFeatures`, which reads its
  weights and compiles once.

  Args:
    videos: see `I3DFeatures.__call__`.
    weights: see `I3DFeatures`, and so `resize` and `batch_size`.
    progress: called with the number of videos done.

  Returns:
    float32 [n, 400].

  Raises:
    UserError: the weights are missing or others, or the videos are no videos.
  """
  network = I3DFeatures(weights, resize=resize, batch_size=batch_size)
  return network(videos, progress=progress)


class I3DFeatures:
  """The network of the FVD, ready to be given videos.

  Products are taken in float32 on every device: at the default precision of a
  GPU or a TPU they are rounded to TF32 or bfloat16, and the same videos would
  have another score there than on a CPU. Every process uses its own devices,
  and splits a batch over them.

  Attributes:
    name: of the network, for files and tables.
    identity: what the features depend on, apart from the videos; features of
      two identities must not be compared.
    description: the same as a sentence, for the protocol of a score.
  """

  name = 'i3d'

  def __init__(
      self,
      weights: Weights = None,
      *,
      resize: str = 'reference',
      batch_size: int = BATCH_SIZE,
  ):
    """Reads the weights; compiles nothing yet.

    Args:
      weights: a path, or None for the installed ones; see
        `metric_networks.load_i3d`. Or weights that are loaded already.
      resize: one of `resize.WAYS`. 'reference' is that of the published FVD.
      batch_size: videos that the network takes at once, on all devices
        together; rounded up to a multiple of their number.

    Raises:
      UserError: the weights are missing or others, or an argument is wrong.
    """
    if resize not in resize_lib.WAYS:
      raise ArgumentError(
          Argument('resize'), f' is {resize!r}; it must be one of '
          f'{", ".join(resize_lib.WAYS)}.',
      )
    if type(batch_size) is not int or batch_size < 1:
      raise ArgumentError(
          Argument('batch_size'), f' is {batch_size!r}; it must be a whole '
          'number of at least 1.',
      )
    if not isinstance(weights, metric_networks.NetworkWeights):
      weights = metric_networks.load_i3d(weights)
    self._mesh = sharding.local_mesh()
    self._batch_size = self._whole(batch_size)
    self._sizes = {}  # (shape, dtype) of a video -> videos of a batch
    self._params = jax.device_put(
        weights.params, sharding.replicated(self._mesh)
    )
    self._run = jax.jit(
        functools.partial(_logits, resize=resize),
        out_shardings=sharding.replicated(self._mesh),
    )
    self.identity = {
        'network': 'I3D, Kinetics-400, rgb_scratch',
        'sha256': weights.sha256,
        'feature': 'logits',
        'resize': resize,
    }
    self.description = (
        f'400 logits of {self.identity["network"]} (SHA-256 '
        f'{weights.sha256[:16]}), {resize} resize to 224x224'
    )

  def __call__(
      self,
      videos: np.ndarray | Iterable[np.ndarray],
      *,
      progress: Callable[[int], None] | None = None,
  ) -> np.ndarray:
    """Computes the features of videos.

    Frames of any size are stretched to 224x224. A size is compiled at its first
    batch, for as many videos as that has; smaller batches are filled up to that
    number, and a larger one, which only a later call can bring, is compiled
    anew.

    Args:
      videos: uint8 [n, time, height, width, 3], or one video without the batch
        axis; or an iterable of these, of any lengths, of which no more than a
        batch is held in memory. At least 9 frames.
      progress: called with the number of videos done.

    Returns:
      float32 [n, 400].

    Raises:
      ArgumentError: there are no videos, or they are of another kind.
    """
    check = functools.partial(_require, name='videos', dtype=np.uint8)
    return self._features(videos, check, progress)

  def of_clips(
      self,
      clips: np.ndarray | Iterable[np.ndarray],
      *,
      progress: Callable[[int], None] | None = None,
  ) -> np.ndarray:
    """The features of what the network itself takes.

    Args:
      clips: float32 [n, time, 224, 224, 3], which should lie in [-1, 1] and are
        given to the network as they are; else as of `__call__`.
      progress: called with the number of clips done.

    Returns:
      float32 [n, 400].

    Raises:
      ArgumentError: there are no clips, or they are of another kind.
    """
    check = functools.partial(
        _require, name='clips', dtype=np.float32, size=i3d_lib.SIZE
    )
    return self._features(clips, check, progress)

  def _features(self, videos, check, progress):
    done, features = 0, []
    for batch in _batches(videos, check, self._batch_size):
      features.append(self._of_batch(batch))
      done += len(batch)
      if progress:
        progress(done)
    if not features:
      raise ArgumentError(
          Argument('videos'), ' holds no videos; there must be at least one.'
      )
    return np.concatenate(features)

  def _of_batch(self, batch: np.ndarray) -> np.ndarray:
    """Features of at most a batch of videos of one size."""
    n = len(batch)
    kind = batch.shape[1:], batch.dtype
    if self._sizes.get(kind, 0) < n:
      # A set of less than a batch need not be computed as if it were one.
      self._sizes[kind] = self._whole(n)
    missing = self._sizes[kind] - n
    if missing:
      batch = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)])
    x = jax.device_put(batch, sharding.batch_sharding(self._mesh))
    return np.asarray(self._run(self._params, x))[:n]

  def _whole(self, n: int) -> int:
    """The next multiple of the number of devices."""
    devices = sharding.batch_devices(self._mesh)
    return -(-n // devices) * devices


def _logits(params, x: jax.Array, *, resize: str) -> jax.Array:
  """uint8 videos of any size, or float32 clips as the network takes them."""
  if x.dtype == jnp.uint8:
    x = resize_lib.stretch(x.astype(jnp.float32), i3d_lib.SIZE, resize)
    x = 2.0 * x / 255.0 - 1.0
  return i3d_lib.I3D().apply({'params': params}, x)


def _batches(
    videos, check: Callable[[np.ndarray], None], size: int
) -> Iterator[np.ndarray]:
  """Batches of at most `size` videos of one shape, in order."""
  arrays = [videos] if hasattr(videos, 'shape') else videos
  held = []  # less than a batch, of one shape
  for array in arrays:
    array = np.asarray(array)
    if array.ndim == 4:
      array = array[None]
    check(array)
    if held and held[0].shape[1:] != array.shape[1:]:
      yield np.concatenate(held)
      held = []
    while len(array):
      room = size - sum(map(len, held))
      held.append(array[:room])
      array = array[room:]
      if sum(map(len, held)) == size:
        yield np.concatenate(held)
        held = []
  if held:
    yield np.concatenate(held)


def _require(x: np.ndarray, *, name: str, dtype, size: int = 0) -> None:
  """Requires [n, time, height, width, 3] of a dtype and, for clips, a size."""
  sides = f'{size}, {size}' if size else 'height, width'
  if (
      x.dtype != dtype
      or x.ndim != 5
      or x.shape[-1] != 3
      or 0 in x.shape[2:]
      or size and x.shape[2:4] != (size, size)
  ):
    raise ArgumentError(
        Argument(name), f' are {x.dtype} of the shape {x.shape}; they must '
        f'be {np.dtype(dtype)} [n, time, {sides}, 3].',
    )
  if x.shape[1] < i3d_lib.MIN_FRAMES:
    raise ArgumentError(
        Argument(name), f' have {x.shape[1]} frames; I3D needs at least '
        f'{i3d_lib.MIN_FRAMES}.',
    )
