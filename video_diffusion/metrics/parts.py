"""Connected parts of light figures on black frames, as digits are."""
from typing import NamedTuple

import numpy as np

from video_diffusion.errors import UserError

LEVEL = 64  # of 255; a pixel that is darker is background


class Parts(NamedTuple):
  """Parts of some frames, frame by frame.

  Attributes:
    frame: int [m], the frame that a part is in; never falling.
    side: int [m], the longer side of the box around it, in pixels.
    pixels: float32 [m, height, width], the frame with 0 outside of the part, in
      [0, 255].
  """

  frame: np.ndarray
  side: np.ndarray
  pixels: np.ndarray

  def where(self, chosen: np.ndarray) -> 'Parts':
    """The parts that bool [m] chooses."""
    return Parts(*(array[chosen] for array in self))


def ndimage():
  """The module scipy.ndimage.

  Raises:
    UserError: SciPy is not installed.
  """
  try:
    from scipy import ndimage as module
  except ImportError as error:
    raise UserError(
        'connected parts are found by SciPy, which is not installed; install '
        'it by `pip install video_diffusion[eval]`.'
    ) from error
  return module


def find(frames: np.ndarray, *, smallest: float) -> Parts:
  """The connected parts of frames.

  Pixels of at least a quarter of white are connected where they touch, by a
  side or a corner.

  Args:
    frames: [n, height, width] in [0, 255].
    smallest: parts of fewer pixels are specks, and none of the result.

  Raises:
    UserError: SciPy is not installed.
  """
  touching = np.zeros((3, 3, 3), bool)
  touching[1] = True  # within a frame, never from one to the next
  labels, count = ndimage().label(frames >= LEVEL, touching)
  areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
  boxes = ndimage().find_objects(labels)
  frame = np.array([box[0].start for box in boxes], int)
  side = np.array(
      [max(s.stop - s.start for s in box[1:]) for box in boxes], int
  )
  chosen = areas >= smallest
  frame, side, label = frame[chosen], side[chosen], np.flatnonzero(chosen) + 1
  own = labels[frame] == label[:, None, None]
  return Parts(frame, side, np.where(own, frames[frame], 0).astype(np.float32))


def centres(pixels: np.ndarray) -> np.ndarray:
  """float64 [m, 2]: centres of mass, (row, column) in pixels.

  Args:
    pixels: [m, height, width], each with some mass.
  """
  mass = np.maximum(pixels.sum((1, 2), dtype=np.float64), 1e-9)
  row = pixels.sum(2, dtype=np.float64) @ np.arange(pixels.shape[1])
  column = pixels.sum(1, dtype=np.float64) @ np.arange(pixels.shape[2])
  return np.stack([row, column], 1) / mass[:, None]
