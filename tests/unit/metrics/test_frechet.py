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


def gaussian(rng, dim, scale=1.0):
  """(mean, covariance of full rank) of a random Gaussian."""
  mix = rng.normal(size=(dim, dim))
  return rng.normal(size=dim), scale * (mix @ mix.T / dim + 0.1 * np.eye(dim))


def test_gaussians_that_a_linear_map_joins_have_a_known_distance():
  # T = S^(1/2), symmetric and positive, is the optimal map from N(m, C) to
  # N(m + g, T C T), so that W2^2 = |g|^2 + tr((T - 1) C (T - 1)).
  rng = np.random.default_rng(4)
  for dim in (3, 40):
    mean, cov = gaussian(rng, dim)
    gap, push = gaussian(rng, dim)
    moved = push - np.eye(dim)
    found = frechet.frechet_distance(mean, cov, mean + gap, push @ cov @ push)
    want = gap @ gap + np.trace(moved @ cov @ moved)
    assert found == pytest.approx(want, rel=1e-10)


def test_fewer_vectors_than_dimensions_are_exact():
  # Both sets lie in one 4-dimensional subspace, where all is regular.
  rng = np.random.default_rng(5)
  small = [rng.normal(size=(6, 4)) * s + s for s in (1.0, 3.0)]
  axes, _ = np.linalg.qr(rng.normal(size=(50, 4)))
  want = frechet.frechet_distance(
      *frechet.mean_and_covariance(small[0]),
      *frechet.mean_and_covariance(small[1]),
  )
  large = [frechet.mean_and_covariance(x @ axes.T) for x in small]
  found = frechet.frechet_distance(*large[0], *large[1])
  assert found == pytest.approx(want, rel=1e-10)


def test_singular_covariances_that_share_nothing_add_up():
  # 10 vectors in 200 dimensions, on axes of their own: the cross term is zero.
  rng = np.random.default_rng(6)
  a, b = np.zeros((10, 200)), np.zeros((10, 200))
  a[:, :100], b[:, 100:] = rng.normal(size=(2, 10, 100))
  a, b = frechet.mean_and_covariance(a), frechet.mean_and_covariance(b)
  gap = a[0] - b[0]
  want = gap @ gap + np.trace(a[1]) + np.trace(b[1])
  assert frechet.frechet_distance(*a, *b) == pytest.approx(want, rel=1e-12)
  # Roots of what rounding makes of zeros would leave 1e-7 of the trace.
  assert abs(frechet.frechet_distance(*a, *a)) < 1e-12 * np.trace(a[1])


@pytest.mark.parametrize('scale', [1e-12, 1e12])
def test_scales_far_from_one_lose_nothing(scale):
  rng = np.random.default_rng(7)
  a, b = gaussian(rng, 20), gaussian(rng, 20)
  want = scale * frechet.frechet_distance(*a, *b)
  a, b = ((scale**0.5 * mean, scale * cov) for mean, cov in (a, b))
  assert frechet.frechet_distance(*a, *b) == pytest.approx(want, rel=1e-9)


def test_nothing_varies():
  # Zero covariances leave the distance of the means.
  zero = np.zeros((3, 3))
  assert frechet.frechet_distance(np.ones(3), zero, np.zeros(3), zero) == 3.0
