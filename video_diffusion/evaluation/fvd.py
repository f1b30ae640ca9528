"""The Frechet video distance (Unterthiner et al. 2018, arXiv 1812.01717)."""
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.metrics import frechet


def fvd(features_a: np.ndarray, features_b: np.ndarray) -> float:
  """The Frechet distance between Gaussians fitted to two sets of features.

  It is symmetric, at least 0 up to rounding, and grows where the sets are
  small: compare scores of equally many videos alone. Covariances divide by
  n - 1, in float64.

  Args:
    features_a: float [n, d] with n >= 2, as from `features.i3d`.
    features_b: float [m, d] with m >= 2, of the same network and resize.

  Raises:
    ArgumentError: a set has fewer than two rows, numbers that are not finite,
      or another width than the other.
  """
  sets = {'features_a': features_a, 'features_b': features_b}
  sets = {name: np.asarray(x, np.float64) for name, x in sets.items()}
  width = sets['features_a'].shape[-1:]
  for name, x in sets.items():
    if x.ndim != 2 or len(x) < 2 or x.shape[1:] != width:
      raise ArgumentError(
          Argument(name), f' has the shape {x.shape}; both sets must be [n, d] '
          'of at least two videos, of the same d.',
      )
    if not np.isfinite(x).all():
      raise ArgumentError(
          Argument(name), ' holds numbers that are not finite.'
      )
  return frechet.frechet_distance(*(
      moment
      for x in sets.values()
      for moment in frechet.mean_and_covariance(x)
  ))
