import numpy as np
import pytest

from video_diffusion.metrics import frechet


def test_commuting_covariances_have_a_closed_form():
  # Of diagonal ones: |m|^2 + sum (sqrt(a) - sqrt(b))^2.
  a, b = np.array([4.0, 1.0, 0.0]), np.array([9.0, 1.0, 2.0])
  found = frechet.frechet_distance(
      np.zeros(3), np.diag(a), np.array([1.0, 2.0, 0.0]), np.diag(b)
  )
  assert found == pytest.approx(5.0 + 1.0 + 0.0 + 2.0, rel=1e-12)


def test_it_is_symmetric_turns_with_the_axes_and_is_zero_at_home():
  rng = np.random.default_rng(0)
  a, b = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) for _ in range(2))
  a, b = (frechet.mean_and_covariance(x) for x in (a, b))
  there = frechet.frechet_distance(*a, *b)
  assert there == pytest.approx(frechet.frechet_distance(*b, *a), rel=1e-9)
  turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  turned = [(turn @ mean, turn @ cov @ turn.T) for mean, cov in (a, b)]
  assert frechet.frechet_distance(*turned[0], *turned[1]) == pytest.approx(
      there, rel=1e-9
  )
  assert abs(frechet.frechet_distance(*a, *a)) < 1e-9 * np.trace(a[1])


def test_against_the_matrix_root_of_scipy():
  linalg = pytest.importorskip('scipy.linalg')
  rng = np.random.default_rng(1)
  features = [
      rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
      for _ in range(2)
  ]
  a, b = map(frechet.mean_and_covariance, features)
  root = linalg.sqrtm(a[1] @ b[1]).real
  gap = a[0] - b[0]
  want = gap @ gap + np.trace(a[1] + b[1] - 2 * root)
  assert frechet.frechet_distance(*a, *b) == pytest.approx(want, rel=1e-8)


def test_too_few_or_bad_features_are_one_sentence():
  for features in (np.zeros((1, 3)), np.full((4, 3), np.nan)):
    with pytest.raises(ValueError, match='at least two, all finite'):
      frechet.mean_and_covariance(features)
