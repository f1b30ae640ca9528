"""The kernel distance of two sets of features: KID of images, KVD of videos.

It is the unbiased estimate of the squared maximum mean discrepancy (Gretton et
al. 2012, eq. 3) with the kernel k(x, y) = (x . y / d + 1)^3 of Binkowski et al.
2018 (KID, arXiv 1801.01401) and Unterthiner et al. 2018 (KVD, arXiv
1812.01717). Unlike a Frechet distance its expected value does not depend on the
number of samples; it may be a little below zero.
"""
import numpy as np

BLOCK = 2048  # rows; a block of the kernel takes 32 MiB, its powers as much


def kernel_distance(
    features_a: np.ndarray, features_b: np.ndarray, *, block: int = BLOCK
) -> float:
  """The unbiased squared MMD of two whole sets.

  Args:
    features_a: real numbers [n, d], n of at least 2, all finite.
    features_b: likewise [m, d]; m need not be n.
    block: rows of each set whose kernel is in memory at a time. It changes
      rounding alone.

  Raises:
    ValueError: a set has fewer than two rows or numbers that are not finite,
      or the sets do not have the same d.
  """
  a, b = _checked(features_a, features_b)
  n, m = len(a), len(b)
  return float(
      _sum_of_pairs(a, block) / (n * (n - 1))
      + _sum_of_pairs(b, block) / (m * (m - 1))
      - 2.0 * _sum(a, b, block) / (n * m)
  )


def kernel_distance_of_subsets(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
  """Mean and standard deviation over random subsets, the protocol of KID.

  The subsets are those that torch-fidelity takes with the same seed. The
  standard deviation is that of one subset, by the number of subsets; it is not
  the error of the mean.

  Args:
    features_a: real numbers [n, d], all finite.
    features_b: likewise [m, d].
    subsets: how many pairs of subsets there are, at least 1.
    subset_size: rows of each, without repetition; at least 2, at most n and m.
    seed: of the choice of rows.

  Raises:
    ValueError: as of `kernel_distance`, or subset_size is out of its range.
  """
  a, b = _checked(features_a, features_b)
  if subsets < 1:
    raise ValueError(f'subsets is {subsets}; it must be at least 1.')
  if not 2 <= subset_size <= min(len(a), len(b)):
    raise ValueError(
        f'subset_size is {subset_size}; it must be at least 2 and at most the '
        f'{min(len(a), len(b))} vectors of the smaller set.'
    )
  rng = np.random.RandomState(seed)
  found = []
  for _ in range(subsets):
    rows_a = rng.choice(len(a), subset_size, replace=False)
    rows_b = rng.choice(len(b), subset_size, replace=False)
    found.append(kernel_distance(a[rows_a], b[rows_b]))
  return float(np.mean(found)), float(np.std(found))


def _checked(*sets):
  """Both sets as float64, or a ValueError."""
  sets = [np.asarray(x, np.float64) for x in sets]
  a, b = (x.shape for x in sets)
  if len(a) != 2 or len(b) != 2 or a[1] != b[1]:
    raise ValueError(
        f'The sets of features have the shapes {a} and {b}; they must be [n, d]'
        ' and [m, d].'
    )
  for x in sets:
    if len(x) < 2 or not np.isfinite(x).all():
      raise ValueError(
          f'{len(x)} feature vectors; there must be at least two, all finite.'
      )
  return sets


def _kernel(x, y):
  base = x @ y.T / x.shape[1] + 1.0
  return base * base * base  # many times faster than base ** 3


def _sum(a, b, block):
  """The sum of the kernel over all pairs (x of a, y of b)."""
  return sum(
      _kernel(a[i : i + block], b[j : j + block]).sum()
      for i in range(0, len(a), block)
      for j in range(0, len(b), block)
  )


def _sum_of_pairs(x, block):
  """The sum over all ordered pairs of two different rows of one set."""
  diagonal = ((np.einsum('nd,nd->n', x, x) / x.shape[1] + 1.0) ** 3).sum()
  return _sum(x, x, block) - diagonal
