"""How far a score would move with other clips: bootstrap intervals."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from video_diffusion.metrics import frechet
from video_diffusion.metrics import moments


class Interval(NamedTuple):
  """A score with its percentile bootstrap interval (Efron 1979).

  Attributes:
    value: the score of the sets as they are.
    low: lower end of the interval.
    high: upper end of the interval.
    bias: mean of the resampled scores, less the value.
  """

  value: float
  low: float
  high: float
  bias: float


def interval(
    statistic: Callable[..., float],
    *sets: np.ndarray,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
  """The interval of any statistic of sets of clips or of their features.

  Args:
    statistic: takes as many arrays as there are sets and returns a number.
    *sets: arrays whose leading axis is resampled with replacement, each set by
      itself; their lengths need not agree.
    draws: how often they are resampled, at least 2.
    level: share of the resampled scores inside the interval, within (0, 1).
    seed: of the resampling.

  Raises:
    ValueError: a set is empty, or draws or level is out of its range.
  """
  return _interval(
      lambda *counts: statistic(*(
          np.repeat(x, count, axis=0)
          for x, count in zip(sets, counts, strict=True)
      )),
      [len(x) for x in sets], draws=draws, level=level, seed=seed,
  )


def frechet_interval(
    samples: np.ndarray,
    reference: np.ndarray,
    *,
    resample_reference: bool = True,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
  """The interval of the Frechet distance, so of the FVD of I3D's features.

  A resampled set is a count for each clip; its mean and covariance come from
  the counts, and no features are copied.

  The distance grows as samples get fewer, and a resampled set holds but 63 % of
  the clips. The resampled scores therefore lie above the value, by `bias`, and
  the interval may do so altogether where clips are not many times more than
  dimensions. Its width is what other clips would change; read (low - bias,
  high - bias) where an interval about the value is wanted.

  Args:
    samples: features [n, d] of the clips that are scored, n of at least 2.
    reference: features [m, d] of real clips, m of at least 2.
    resample_reference: whether the real clips are resampled too, as where they
      are themselves a sample; a fixed set that the score is defined by is not.
    draws: how often the sets are resampled, at least 2.
    level: share of the resampled scores inside the interval, within (0, 1).
    seed: of the resampling.

  Raises:
    ValueError: a set is too small or not finite, or draws or level is out of
      its range.
  """
  samples = np.asarray(samples, np.float64)
  reference = np.asarray(reference, np.float64)
  fixed = frechet.mean_and_covariance(reference)
  frechet.mean_and_covariance(samples)  # Raises for what cannot be scored.

  def distance(counts_a, counts_b=None):
    a = moments.Moments.of(samples, counts_a)
    if counts_b is None:
      mean, cov = fixed
    else:
      b = moments.Moments.of(reference, counts_b)
      mean, cov = b.mean, b.covariance
    return frechet.frechet_distance(a.mean, a.covariance, mean, cov)

  sizes = [len(samples), len(reference)] if resample_reference else [
      len(samples)
  ]
  return _interval(distance, sizes, draws=draws, level=level, seed=seed)


def fvd_over_counts(
    samples: np.ndarray,
    reference: np.ndarray,
    counts: Sequence[int],
    **options,
) -> list[tuple[int, Interval]]:
  """The FVD of growing numbers of samples, each with its interval.

  It shows whether a score has settled: the FVD falls towards its limit about as
  1 / count (Chong and Forsyth 2020, arXiv 1911.07023, of the FID). The first
  `count` samples are taken, so that a larger count holds all of a smaller one;
  samples that are ordered, by class for instance, must be shuffled before.

  Args:
    samples: features [n, d] of the clips that are scored.
    reference: features [m, d] of real clips, all of which are always taken.
    counts: numbers of samples, each from 2 to n.
    **options: those of `frechet_interval`.

  Returns:
    (count, interval) for every count.

  Raises:
    ValueError: a count is out of its range, or as of `frechet_interval`.
  """
  for count in counts:
    if not 2 <= count <= len(samples):
      raise ValueError(
          f'counts has {count}; it must be from 2 to the {len(samples)} '
          'samples.'
      )
  return [
      (int(count), frechet_interval(samples[:count], reference, **options))
      for count in counts
  ]


def _interval(of_counts, sizes, *, draws, level, seed):
  """Interval of what `of_counts` makes of an int array [n] for each set."""
  if draws < 2:
    raise ValueError(f'draws is {draws}; it must be at least 2.')
  if not 0 < level < 1:
    raise ValueError(f'level is {level}; it must be between 0 and 1.')
  if not all(sizes):
    raise ValueError('There are no clips in one of the sets.')
  rng = np.random.default_rng(seed)
  value = float(of_counts(*(np.ones(n, np.int64) for n in sizes)))
  scores = [
      float(of_counts(*(
          np.bincount(rng.integers(0, n, n), minlength=n) for n in sizes
      )))
      for _ in range(draws)
  ]
  low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
  return Interval(
      value, float(low), float(high), float(np.mean(scores)) - value
  )
