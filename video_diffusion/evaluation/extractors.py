"""What turns clips into the numbers that scores are made of."""
import numpy as np

from video_diffusion.checkpoints import c3d_weights
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.metrics import flicker
from video_diffusion.models import c3d

C3D_BATCH = 16
THUMBNAIL = 8  # pixels of a side


def thumbnails(videos: np.ndarray) -> np.ndarray:
  """Frames shrunk to 8x8 pixels by the mean of areas.

  Args:
    videos: uint8 [n, frames, height, width, 3].

  Returns:
    float64 [n, frames, 192] in [0, 1].
  """
  n, t, h, w, _ = videos.shape
  # Sums of whole numbers, which are exact.
  x = np.add.reduceat(videos, _starts(h), axis=2, dtype=np.int64)
  x = np.add.reduceat(x, _starts(w), axis=3)
  areas = _lengths(h)[:, None, None] * _lengths(w)[:, None]
  return (x / areas / 255.0).reshape(n, t, -1)


def _starts(size):
  """First pixel of each of the parts of a side, which are nearly equal."""
  return np.arange(min(THUMBNAIL, size)) * size // min(THUMBNAIL, size)


def _lengths(size):
  return np.diff([*_starts(size), size])


class Flicker:
  """The change of clips from frame to frame (this project's own figures).

  The first number is the change of the mean luminance, relative to that of the
  clip. The second is that of the frames' thumbnails, in the same way.
  """

  name = 'flicker'
  identity = {'flicker': 1, 'thumbnail': THUMBNAIL}
  description = 'change of Rec. 601 luminance and of thumbnails of 8x8 pixels'

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, frames, height, width, 3] -> float32 [n, 2]."""
    _, luminance = flicker.flicker(videos)
    features = flicker.relative_change(thumbnails(videos))
    return np.stack([luminance, features], 1).astype(np.float32)


class Thumbnails:
  """Whole clips as vectors, by which near ones are found."""

  name = 'thumbnails'
  identity = {'thumbnails': 1, 'side': THUMBNAIL}
  description = 'thumbnails of 8x8 pixels'

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, frames, height, width, 3] -> float32 [n, frames * 192]."""
    found = thumbnails(videos).astype(np.float32)
    return found.reshape(len(videos), -1)


class C3D:
  """The network of UCF101's scores: fc7, then the logits of 101 classes."""

  name = 'c3d'

  def __init__(self, weights: str, mean: str):
    """Reads the weights.

    Args:
      weights: path of conv3d_deepnetA_ucf.npz of TGAN v2.
      mean: path of mean2.npz of TGAN v2.

    Raises:
      UserError: a file is missing or is no such file.
    """
    for argument, path in (('c3d', weights), ('c3d_mean', mean)):
      if not path:
        raise ArgumentError(
            Argument(argument), ' is empty, and the metric c3d needs it: give '
            'the path of the file that TGAN-v2 publishes, or leave c3d out of ',
            Argument('metrics'), '.',
        )
    params, weights_sha256 = c3d_weights.load_c3d(weights)
    clip, mean_sha256 = c3d_weights.load_c3d_mean(mean)
    self._activations = c3d.make_activations(params, clip)
    self.identity = {
        'network': 'C3D, UCF101', 'sha256': weights_sha256,
        'mean sha256': mean_sha256, 'resize': 'squash',
    }
    self.description = (
        f'fc7 and logits of {self.identity["network"]} (SHA-256 '
        f'{weights_sha256[:16]}, of the mean {mean_sha256[:16]}), 16 frames '
        'stretched to 112x112'
    )

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, 16, height, width, 3] -> float32 [n, 4096 + 101].

    Raises:
      ArgumentError: the clips have another number of frames.
    """
    if videos.shape[1] != c3d.FRAMES:
      raise ArgumentError(
          Argument('frames'), f': C3D takes clips of {c3d.FRAMES} frames, not '
          f'of {videos.shape[1]}.',
      )
    return np.concatenate([
        np.concatenate(self._activations(videos[i : i + C3D_BATCH]), axis=1)
        for i in range(0, len(videos), C3D_BATCH)
    ])
