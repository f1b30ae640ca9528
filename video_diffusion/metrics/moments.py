"""The mean and the covariance of feature vectors that come in batches."""
from collections.abc import Iterable
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """How many vectors there are, their mean, and their spread about it.

  `add` and `merge` return new moments by the pairwise update of Chan, Golub and
  LeVeque (1983), "Algorithms for computing the sample variance". No vector is
  kept, and unlike a sum of squares less the square of a sum, the update does
  not cancel where the mean is large beside the spread. The order in which parts
  are merged changes rounding alone.

  Attributes:
    count: the number of vectors, an int of at least 0.
    mean: float64 [d]; zeros where there are no vectors.
    scatter: float64 [d, d], the sum of (x - mean) (x - mean)^T.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  def __post_init__(self):
    for name in ('mean', 'scatter'):
      array = np.asarray(getattr(self, name), np.float64).view()
      array.setflags(write=False)
      object.__setattr__(self, name, array)

  @classmethod
  def empty(cls, dim: int) -> 'Moments':
    """The moments of no vectors of length dim."""
    return cls(0, np.zeros(dim), np.zeros((dim, dim)))

  @classmethod
  def of(
      cls, features: np.ndarray, counts: np.ndarray | None = None
  ) -> 'Moments':
    """The moments of one batch, in two passes.

    Args:
      features: real numbers [n, d], n of at least 0, all finite.
      counts: whole numbers of at least 0, [n]: how often each row is there.
        None is once each. A bootstrap repeats rows so without copying them.

    Raises:
      ValueError: features has another number of axes or is not finite, or
        counts has another shape.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
      raise ValueError(
          f'features has the shape {features.shape}; it must be [n, d].'
      )
    if not np.isfinite(features).all():
      raise ValueError('features has numbers that are not finite.')
    n, dim = features.shape
    if counts is None:
      total, weights = n, np.ones(n)
    else:
      weights = np.asarray(counts, np.float64)
      if weights.shape != (n,):
        raise ValueError(
            f'counts has the shape {weights.shape}; it must be ({n},).'
        )
      total = int(weights.sum())
    if not total:
      return cls.empty(dim)
    mean = weights @ features / total
    spread = features - mean
    # What rounding has left in the mean would count n times in the scatter.
    rest = weights @ spread / total
    scatter = spread.T @ (weights[:, None] * spread)
    scatter -= total * np.outer(rest, rest)
    return cls(total, mean + rest, (scatter + scatter.T) / 2)

  def add(self, features: np.ndarray) -> 'Moments':
    """These moments with the vectors [n, d] of another batch, n of any size."""
    return self.merge(Moments.of(features))

  def merge(self, other: 'Moments') -> 'Moments':
    """The moments of both sets of vectors together.

    Raises:
      ValueError: the vectors have different lengths.
    """
    if self.mean.shape != other.mean.shape:
      raise ValueError(
          f'The vectors of one part have length {len(self.mean)}, those of '
          f'another {len(other.mean)}.'
      )
    if not self.count or not other.count:
      return other if other.count else self
    count = self.count + other.count
    gap = other.mean - self.mean
    share = other.count / count
    return Moments(
        count,
        self.mean + share * gap,
        self.scatter + other.scatter
        + self.count * share * np.outer(gap, gap),
    )

  @property
  def covariance(self) -> np.ndarray:
    """float64 [d, d], by count - 1.

    Raises:
      ValueError: there are fewer than two vectors.
    """
    if self.count < 2:
      raise ValueError(
          f'{self.count} feature vectors; a covariance needs at least two.'
      )
    return self.scatter / (self.count - 1)

  def to_array(self) -> np.ndarray:
    """float64 [1 + d + d * d]: count, mean and scatter, for `from_array`.

    One plain array is what a file holds and what processes exchange.
    """
    return np.concatenate([[self.count], self.mean, self.scatter.ravel()])

  @classmethod
  def from_array(cls, array: np.ndarray) -> 'Moments':
    """The moments that `to_array` has written.

    Raises:
      ValueError: no moments have an array of this shape.
    """
    array = np.array(array, np.float64)
    # 1 + d + d^2 lies between d^2 and (d + 1)^2.
    dim = int(np.sqrt(array.size))
    if array.shape != (1 + dim + dim * dim,):
      raise ValueError(
          f'An array of shape {array.shape} holds no moments; their arrays '
          'have 1 + d + d * d numbers on one axis.'
      )
    return cls(
        int(array[0]), array[1 : 1 + dim], array[1 + dim :].reshape(dim, dim)
    )


def merged(parts: Iterable[Moments]) -> Moments:
  """The moments of all parts together.

  Raises:
    ValueError: there are no parts, or their vectors differ in length.
  """
  whole = None
  for part in parts:
    whole = part if whole is None else whole.merge(part)
  if whole is None:
    raise ValueError('There are no moments to merge.')
  return whole
