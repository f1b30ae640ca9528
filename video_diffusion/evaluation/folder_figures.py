"""How near frames or clips are to those that a model was trained on."""
from collections.abc import Iterable, Iterator
import math

import numpy as np

BLOCK = 2**23  # number of values of a block: 64 MiB in 64 bits


def nearest(
    samples: np.ndarray,
    train: np.ndarray | Iterable[np.ndarray],
    *,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
  """The nearest training example of each sample.

  Memory holds the samples, and in 64 bits one block of them and one block of
  the training examples.

  Args:
    samples: [n, ...], for instance uint8 frames or clips.
    train: [m, ...], examples of the same shape; or blocks of them, one after
      the other, where they do not fit into memory together.
    block: largest number of values of a block, which has one example at least.

  Returns:
    (index, distance), each [n]: the number of the nearest training example,
    the first of several, and the root mean square, over the values of an
    example, of the difference to it.

  Raises:
    ValueError: there is no training example, or one has another shape.
  """
  size = int(np.prod(samples.shape[1:]))
  # Neither a block nor the distances between two blocks are larger.
  rows = max(1, min(block // max(1, size), math.isqrt(block)))
  index = np.full(len(samples), -1)
  squares = np.full(len(samples), np.inf)
  distance = np.full(len(samples), np.inf)
  first = 0
  for part in _blocks(train, rows):
    if part.shape[1:] != samples.shape[1:]:
      raise ValueError(
          f'training examples of shape {part.shape[1:]} cannot be compared '
          f'with samples of shape {samples.shape[1:]}.'
      )
    part = part.reshape(len(part), size).astype(np.float64)
    lengths = (part**2).sum(1)
    for start in range(0, len(samples), rows):
      own = samples[start : start + rows]
      own = own.reshape(len(own), size).astype(np.float64)
      # |a - b|^2 by a product of matrices: exact for whole numbers, and good
      # enough to choose by for others.
      products = (own**2).sum(1)[:, None] + lengths - 2 * own @ part.T
      choice = products.argmin(1)
      least = products[np.arange(len(own)), choice]
      better = np.flatnonzero(least < squares[start : start + rows])
      difference = own[better] - part[choice[better]]
      squares[start + better] = least[better]
      index[start + better] = first + choice[better]
      distance[start + better] = np.sqrt((difference**2).mean(1))
    first += len(part)
  if len(samples) and not first:
    raise ValueError('there is no training example to compare with.')
  return index, distance


def _blocks(train, rows) -> Iterator[np.ndarray]:
  """Blocks of at most so many training examples."""
  parts = [train] if hasattr(train, 'shape') else train
  for part in parts:
    for start in range(0, len(part), rows):
      yield part[start : start + rows]


def figures(
    frames: np.ndarray, train: np.ndarray | None = None
) -> dict[str, np.ndarray | float | None]:
  """Figures of a set of frames.

  Args:
    frames: uint8 [n, height, width, 3].
    train: training frames, uint8 [m, height, width, 3]; None for these
      themselves.

  Returns:
    'colour': the mean colour, float [3]; 'spread': the standard deviation of a
    pixel over the frames, on average; 'nearest': the distance of a frame to
    the nearest training frame, on average, None without `train`. All are on the
    range from 0 to 255.
  """
  distance = None
  if train is not None:
    distance = float(nearest(frames, train)[1].mean())
  return {
      'colour': frames.mean((0, 1, 2), dtype=np.float64),
      'spread': float(frames.std(0, dtype=np.float64).mean()),
      'nearest': distance,
  }
