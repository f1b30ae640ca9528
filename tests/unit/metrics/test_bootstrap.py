"""Bootstrap intervals: width, coverage, bias, and the cheap way by counts."""
import numpy as np
import pytest

from video_diffusion.metrics import bootstrap
from video_diffusion.metrics import frechet


def distance(a, b):
  return frechet.frechet_distance(
      *frechet.mean_and_covariance(a), *frechet.mean_and_covariance(b)
  )


def two_sets(n=60, m=50, dim=4):
  rng = np.random.default_rng(0)
  return rng.normal(size=(n, dim)), 1.5 * rng.normal(size=(m, dim)) + 1.0


def test_the_mean_of_normal_numbers_has_its_textbook_interval():
  x = np.random.default_rng(1).normal(size=400)
  found = bootstrap.interval(np.mean, x, draws=4000)
  error = x.std() / np.sqrt(len(x))
  assert found.value == pytest.approx(x.mean(), rel=1e-12)
  assert found.low == pytest.approx(x.mean() - 1.96 * error, abs=0.1 * error)
  assert found.high == pytest.approx(x.mean() + 1.96 * error, abs=0.1 * error)
  assert abs(found.bias) < 0.1 * error


def test_95_percent_of_intervals_hold_the_truth():
  rng = np.random.default_rng(2)
  held = []
  for i in range(200):
    found = bootstrap.interval(
        np.mean, rng.normal(size=50), draws=200, seed=i
    )
    held.append(found.low < 0 < found.high)
  assert 0.88 < np.mean(held) < 0.99


@pytest.mark.parametrize('both', [True, False])
def test_counts_are_resampled_rows(both):
  # The cheap way and the plain one draw the same rows.
  a, b = two_sets()
  found = bootstrap.frechet_interval(
      a, b, resample_reference=both, draws=30, seed=5
  )
  if both:
    want = bootstrap.interval(distance, a, b, draws=30, seed=5)
  else:
    want = bootstrap.interval(lambda x: distance(x, b), a, draws=30, seed=5)
  np.testing.assert_allclose(found, want, rtol=1e-9)
  assert found.value == pytest.approx(distance(a, b), rel=1e-10)


def test_a_seed_is_its_interval():
  a, b = two_sets()
  first, again, other = (
      bootstrap.frechet_interval(a, b, draws=10, seed=s) for s in (1, 1, 2)
  )
  assert first == again and first != other
  narrow = bootstrap.frechet_interval(a, b, draws=10, seed=1, level=0.2)
  assert first.low < narrow.low < narrow.high < first.high


def test_resampled_scores_lie_above_the_value():
  # Of 40 vectors in 20 dimensions of one distribution: all of it is bias.
  rng = np.random.default_rng(3)
  a, b = rng.normal(size=(2, 40, 20))
  found = bootstrap.frechet_interval(a, b, draws=40)
  assert found.low > found.value and found.bias > 0
  assert found.low - found.bias < found.value < found.high - found.bias


def test_more_samples_bring_the_fvd_down_and_narrow_its_interval():
  rng = np.random.default_rng(4)
  a, b = rng.normal(size=(1600, 10)), rng.normal(size=(5000, 10)) + 0.3
  found = bootstrap.fvd_over_counts(a, b, [50, 400, 1600], draws=40)
  counts, scores = zip(*found, strict=True)
  assert counts == (50, 400, 1600)
  values = [score.value for score in scores]
  widths = [score.high - score.low for score in scores]
  assert values[0] > values[1] > values[2] > 0.6
  assert widths[0] > widths[1] > widths[2]
  assert values[2] == pytest.approx(distance(a, b), rel=1e-10)
  assert values[0] == pytest.approx(distance(a[:50], b), rel=1e-10)


@pytest.mark.parametrize('wrong, sentence', [
    (lambda a, b: bootstrap.interval(np.mean, a, draws=1), 'draws is 1'),
    (lambda a, b: bootstrap.interval(np.mean, a, level=95), 'level is 95'),
    (lambda a, b: bootstrap.interval(np.mean, a[:0]), 'no clips'),
    (lambda a, b: bootstrap.frechet_interval(a[:1], b), 'at least two'),
    (lambda a, b: bootstrap.fvd_over_counts(a, b, [61]), 'counts has 61'),
    (lambda a, b: bootstrap.fvd_over_counts(a, b, [1]), 'counts has 1'),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  with pytest.raises(ValueError, match=sentence):
    wrong(*two_sets())
