"""The Frechet distance between two Gaussians, in numpy alone."""
import numpy as np

from video_diffusion.metrics import moments


def mean_and_covariance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """float64 ([d], [d, d]) of features [n, d], by n - 1.

  `moments.Moments` does the same for features that come in batches.

  Raises:
    ValueError: fewer than two rows, or numbers that are not finite.
  """
  features = np.asarray(features, np.float64)
  if len(features) < 2 or not np.isfinite(features).all():
    raise ValueError(
        f'{len(features)} feature vectors; there must be at least two, all '
        'finite.'
    )
  found = moments.Moments.of(features)
  return found.mean, found.covariance


def frechet_distance(
    mean_a: np.ndarray,
    cov_a: np.ndarray,
    mean_b: np.ndarray,
    cov_b: np.ndarray,
) -> float:
  """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)).

  The trace of the root is the sum of the singular values of cov_a^(1/2)
  cov_b^(1/2), for their squares are the eigenvalues of cov_a cov_b. It takes no
  root of what rounding has left of a zero, so that a singular covariance, as of
  fewer vectors than dimensions, loses no digits.

  Args:
    mean_a: [d]; mean_b likewise.
    cov_a: [d, d], symmetric, without negative eigenvalues; cov_b likewise.
  """
  cross = np.linalg.svd(_root(cov_a).T @ _root(cov_b), compute_uv=False).sum()
  gap = np.asarray(mean_a, np.float64) - np.asarray(mean_b, np.float64)
  return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


def _root(cov):
  """float64 [d, rank] whose product with its own transpose is cov.

  Eigenvalues within the rounding of the largest are zeros.
  """
  values, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
  kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
  return vectors[:, kept] * np.sqrt(values[kept])
