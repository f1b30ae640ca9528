"""A stand-in for the network of the FVD: a few numbers of each clip."""
import numpy as np


class Few:
  """The mean and the change of the four quarters of the frames."""

  name = 'i3d'
  identity = {'network': 'a stand-in'}
  description = 'a stand-in for the I3D'

  def __call__(self, videos):
    """uint8 [n, frames, height, width, 3] -> float32 [n, 8]."""
    n, t, h, w, _ = videos.shape
    x = videos[:, :, : h // 2 * 2, : w // 2 * 2] / 255
    x = x.reshape(n, t, 2, h // 2, 2, w // 2, 3).mean((3, 5, 6))
    x = x.reshape(n, t, 4)
    change = np.abs(np.diff(x, axis=1)).mean(1)
    return np.concatenate([x.mean(1), change], 1).astype(np.float32)
