"""What turns clips into the numbers that scores are made of."""
import numpy as np

from video_diffusion.metrics import flicker

THUMBNAIL = 8  # pixels of a side


def thumbnails(videos: np.ndarray) -> np.ndarray:
  """Frames shrunk to 8x8 pixels by the mean of areas.

  Args:
    videos: uint8 [n, frames, height, width, 3].

  Returns:
    float32 [n, frames, 192] in [0, 1].
  """
  n, t, h, w, c = videos.shape
  x = videos.astype(np.float32) / 255.0
  x = np.add.reduceat(x, _starts(h), axis=2) / _lengths(h)[:, None, None]
  x = np.add.reduceat(x, _starts(w), axis=3) / _lengths(w)[:, None]
  return x.reshape(n, t, -1)


def _starts(size):
  """First pixel of each of the parts of a side, which are nearly equal."""
  return np.arange(min(THUMBNAIL, size)) * size // min(THUMBNAIL, size)


def _lengths(size):
  return np.diff([*_starts(size), size]).astype(np.float32)


class Flicker:
  """The change of clips from frame to frame (this project's own figures).

  The first number is the change of the mean luminance, relative to that of the
  clip. The second is that of the frames' thumbnails, in the same way.
  """

  name = 'flicker'
  identity = {'flicker': 1, 'thumbnail': THUMBNAIL}

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, frames, height, width, 3] -> float32 [n, 2]."""
    _, luminance = flicker.flicker(videos)
    features = flicker.relative_change(thumbnails(videos))
    return np.stack([luminance, features], 1).astype(np.float32)


class Thumbnails:
  """Whole clips as vectors, by which near ones are found."""

  name = 'thumbnails'
  identity = {'thumbnails': 1, 'side': THUMBNAIL}

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, frames, height, width, 3] -> float32 [n, frames * 192]."""
    return thumbnails(videos).reshape(len(videos), -1)


def make_i3d(weights: str = '', resize: str = 'reference'):
  """The network of the FVD; see `features.I3DFeatures`."""
  from video_diffusion.evaluation import features

  return features.I3DFeatures(weights or None, resize=resize)


def make_c3d(weights: str = ''):
  raise NotImplementedError
