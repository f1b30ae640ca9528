"""Moments of batches are numpy's two-pass values, in whatever order."""
import itertools

import numpy as np
import pytest

from video_diffusion.metrics import frechet
from video_diffusion.metrics import moments

SIZES = (1, 0, 17, 2, 63, 117)  # of batches


def features_of(dim=7, *, offset=0.0):
  rng = np.random.default_rng(3)
  mix = rng.normal(size=(dim, dim))
  return offset + rng.normal(size=(sum(SIZES), dim)) @ mix


def parts_of(features):
  return np.split(features, np.cumsum(SIZES)[:-1])


def assert_same(found, features, tolerance=1e-10):
  mean, cov = features.mean(0), np.cov(features, rowvar=False)
  assert found.count == len(features)
  np.testing.assert_allclose(found.mean, mean, rtol=tolerance, atol=tolerance)
  scale = np.abs(cov).max()
  np.testing.assert_allclose(
      found.covariance, cov, rtol=0, atol=tolerance * scale
  )


@pytest.mark.parametrize('offset', [0.0, 1e4])
def test_uneven_batches_are_numpys_two_passes(offset):
  features = features_of(offset=offset)
  found = moments.Moments.empty(7)
  for part in parts_of(features):
    found = found.add(part)
  assert_same(found, features)
  mean, cov = frechet.mean_and_covariance(features)
  np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
  np.testing.assert_allclose(found.covariance, cov, rtol=0, atol=1e-10 * 50)


def test_the_order_and_the_tree_of_merges_do_not_matter():
  features = features_of(3, offset=10.0)
  parts = [moments.Moments.of(part) for part in parts_of(features)]
  for order in itertools.permutations(parts):
    assert_same(moments.merged(order), features)
  left, right = moments.merged(parts[:3]), moments.merged(parts[3:])
  assert_same(right.merge(left), features)


def test_merging_changes_none_of_the_parts():
  a, b = (moments.Moments.of(part) for part in np.eye(6).reshape(2, 3, 6))
  before = a.to_array(), b.to_array()
  a.merge(b)
  a.add(np.ones((2, 6)))
  np.testing.assert_array_equal(a.to_array(), before[0])
  np.testing.assert_array_equal(b.to_array(), before[1])
  with pytest.raises(ValueError, match='read-only'):
    a.scatter[0] = 1.0


def test_counts_are_repeated_rows():
  features = features_of()
  counts = np.random.default_rng(0).integers(0, 4, len(features))
  found = moments.Moments.of(features, counts)
  assert_same(found, np.repeat(features, counts, axis=0))
  nothing = moments.Moments.of(features, np.zeros(len(features)))
  assert nothing.count == 0 and not nothing.scatter.any()


def test_an_array_goes_to_a_file_and_back(tmp_path):
  for dim in (1, 2, 7, 40):
    found = moments.Moments.of(np.random.default_rng(dim).normal(size=(9, dim)))
    np.save(tmp_path / 'moments.npy', found.to_array())
    again = moments.Moments.from_array(np.load(tmp_path / 'moments.npy'))
    assert again.count == found.count == 9
    np.testing.assert_array_equal(again.mean, found.mean)
    np.testing.assert_array_equal(again.scatter, found.scatter)


@pytest.mark.parametrize('wrong, sentence', [
    (lambda: moments.Moments.of(np.zeros(3)), r'must be \[n, d\]'),
    (lambda: moments.Moments.of(np.full((2, 2), np.nan)), 'not finite'),
    (lambda: moments.Moments.of(np.zeros((2, 2)), [1]), r'must be \(2,\)'),
    (lambda: moments.Moments.of(np.zeros((1, 2))).covariance, 'at least two'),
    (lambda: moments.Moments.empty(2).add(np.zeros((1, 3))), 'length 2'),
    (lambda: moments.Moments.from_array(np.zeros(6)), 'holds no moments'),
    (lambda: moments.merged([]), 'no moments to merge'),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  with pytest.raises(ValueError, match=sentence):
    wrong()
