"""Reads shape, colour and direction off clips of moving_shapes; scores them.

Classical image processing (this project's own): colours by the nearest of the
palette, shapes by the best fitting template, directions by the template's path.
Read frame by frame, clips say whether their objects stay what they are.
"""
from collections.abc import Callable

import numpy as np

SUBPIXELS = 4  # template positions per pixel and axis, for whole clips
MIN_AREA = 0.35  # of the smallest shape's; less of a colour is no object


class ShapesReader:
  """uint8 clips [n, time, height, width, 3] -> the objects in each.

  A call reads whole clips, and `shapes` reads every frame by itself.

  A colour that covers enough of a clip's middle frame (by the median over
  frames) is an object. Its shape is the one whose template, laid where it fits
  best in each frame, misses the fewest pixels: own ones that it leaves out and
  background ones that it covers. Pixels of other objects count for neither, for
  they may hide a part. The direction is that of the straight line through the
  templates' centres.

  Two objects of one colour are read as one; moving_shapes has none.
  """

  def __init__(
      self,
      draw: Callable[[int, np.ndarray], np.ndarray],
      *,
      num_shapes: int,
      palette: np.ndarray,
      background: np.ndarray,
      directions: np.ndarray,
      subpixels: int = SUBPIXELS,
  ):
    """Prepares the templates.

    Args:
      draw: (shape, centres float [n, 2] in pixels) -> bool [n, height, width].
      num_shapes: shapes are 0 .. num_shapes - 1.
      palette: uint8 [colours, 3].
      background: uint8 [3].
      directions: [directions, 2], (rows, columns) per step, of any length.
      subpixels: template positions per pixel and axis; the time that reading
        takes grows with their square.
    """
    self._colours = np.array([*palette, background], np.float32)
    directions = np.asarray(directions, np.float64)
    self._directions = directions / np.linalg.norm(
        directions, axis=1, keepdims=True
    )
    shift = np.arange(subpixels) / subpixels
    self._shifts = np.stack(
        np.meshgrid(shift, shift, indexing='ij'), -1
    ).reshape(-1, 2)
    size = np.array(draw(0, np.zeros((1, 2))).shape[1:])
    # Around the middle, so that nothing is cut off; then around the origin.
    templates = np.stack([
        draw(shape, size // 2 + self._shifts) for shape in range(num_shapes)
    ])
    templates = np.roll(templates, -(size // 2), axis=(2, 3))
    self._min_area = MIN_AREA * templates.sum((2, 3)).min()
    # Correlation is a product with the conjugate.
    self._templates = np.conj(np.fft.rfft2(templates.astype(np.float32)))

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """The objects of each clip.

    Args:
      videos: uint8 [n, time, height, width, 3].

    Returns:
      int32 [n, colours, 3]: shape, colour and direction of each object, in the
      order of colours; -1 where there is none. A direction is -1 where nothing
      moves.
    """
    colours = len(self._colours) - 1
    found = np.full((len(videos), colours, 3), -1, np.int32)
    for clip, video in enumerate(videos):
      nearest = self._nearest(video)
      for colour in range(colours):
        own = nearest == colour
        if np.median(own.sum((1, 2))) >= self._min_area:
          found[clip, colour] = self._read(own, nearest == colours, colour)
    return found

  def shapes(self, videos: np.ndarray) -> np.ndarray:
    """The objects of each frame, every frame by itself.

    Args:
      videos: uint8 [n, time, height, width, 3].

    Returns:
      int32 [n, time, colours]: the shape of the object of each colour, -1 where
      a frame has none.
    """
    colours = len(self._colours) - 1
    found = np.full((*videos.shape[:2], colours), -1, np.int32)
    for clip, video in enumerate(videos):
      nearest = self._nearest(video)
      for colour in range(colours):
        own = nearest == colour
        shown = own.sum((1, 2)) >= self._min_area
        if shown.any():
          fits, _ = self._fits(own[shown], nearest[shown] == colours)
          found[clip, shown, colour] = (fits > fits.max(0) - 1e-3).argmax(0)
    return found

  def _nearest(self, video):
    """int [time, height, width]: palette index, len(palette) is background."""
    # |x - c|^2 without |x|^2, which is the same for all c.
    distance = (self._colours**2).sum(1) - 2 * (
        video.astype(np.float32) @ self._colours.T
    )
    return distance.argmin(-1)

  def _fits(self, own, background):
    """How well each shape fits each frame, and where it fits best.

    Args:
      own: bool [time, height, width], the pixels of a colour.
      background: bool, likewise.

    Returns:
      float [shapes, time], the pixels that a template shares with its colour
      less those that it has on background; and float [shapes, time, 2], the
      centre of the template.
    """
    spectrum = np.fft.rfft2(own.astype(np.float32) - background)
    fits, paths = [], []
    for templates in self._templates:
      fit = np.fft.irfft2(spectrum[:, None] * templates, s=own.shape[1:])
      fit = fit.reshape(len(own), -1)
      shift, row, column = np.unravel_index(
          fit.argmax(1), (len(self._shifts), *own.shape[1:])
      )
      fits.append(fit.max(1))
      paths.append(np.stack([row, column], 1) + self._shifts[shift])
    return np.stack(fits), np.stack(paths)

  def _read(self, own, background, colour):
    fits, paths = self._fits(own, background)
    totals = fits.sum(1)
    # Among shapes that fit alike it is the first, whatever the rounding.
    kind = int((totals > totals.max() - 1e-3).argmax())
    path = paths[kind]
    time = np.arange(len(path)) - (len(path) - 1) / 2
    slope = time @ path
    if np.linalg.norm(slope) < 1e-6:
      return kind, colour, -1
    return kind, colour, int(np.argmax(self._directions @ slope))


def match_shares(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
  """Shares of clips that show what they should.

  Args:
    found: int32 [n, objects, 3] of (shape, colour, direction), -1 in all three
      where there is no object; of `ShapesReader`.
    wanted: int32 [n, other number of objects, 3], likewise.

  Returns:
    'colour', 'shape' and 'motion': of clips whose objects have just the wanted
    colours (shapes, directions), each as often as wanted, on whichever object;
    'all': of clips whose objects are the wanted ones.
  """
  same = {name: 0 for name in ('colour', 'shape', 'motion', 'all')}
  for a, b in zip(found, wanted, strict=True):
    a, b = (sorted(map(tuple, x[x[:, 1] >= 0].tolist())) for x in (a, b))
    same['all'] += a == b
    for name, i in (('shape', 0), ('colour', 1), ('motion', 2)):
      same[name] += sorted(x[i] for x in a) == sorted(x[i] for x in b)
  return {name: count / len(found) for name, count in same.items()}
