"""The kernel distance against a plain sum and against torch-fidelity."""
import numpy as np
import pytest

from tests.support import optional
from video_diffusion.metrics import kvd


def two_sets():
  """As the stored values below were computed from."""
  rng = np.random.RandomState(0)
  a = rng.standard_normal((300, 20))
  return a, 1.2 * rng.standard_normal((250, 20)) + 0.3


# kid_features_to_metric of torch-fidelity 0.4.0 (torch 2.13.0, CPU) of
# `two_sets` in float64: (subsets, subset_size, seed, mean, standard deviation).
STORED = (
    (7, 100, 2020, 0.3831396777343438, 0.06591218322259243),
    (1, 250, 3, 0.3659733725538268, 0.0),
)


def plain(a, b):
  """The estimate, pair by pair."""
  k = lambda x, y: (sum(x * y) / len(x) + 1) ** 3
  within = [
      np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s)
               if i != j])
      for s in (a, b)
  ]
  return sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])


@pytest.mark.parametrize('block', [1, 4, 100])
def test_blocks_are_the_sum_over_pairs(block):
  a, b = two_sets()
  a, b = a[:13], b[:9]
  found = kvd.kernel_distance(a, b, block=block)
  assert found == pytest.approx(plain(a, b), rel=1e-10)


@pytest.mark.parametrize('subsets, size, seed, mean, std', STORED)
def test_subsets_are_those_of_torch_fidelity(subsets, size, seed, mean, std):
  found = kvd.kernel_distance_of_subsets(
      *two_sets(), subsets=subsets, subset_size=size, seed=seed
  )
  assert found == pytest.approx((mean, std), rel=1e-9)


def test_against_torch_fidelity_itself():
  torch = optional.optional('torch')
  kid = optional.optional('torch_fidelity.metric_kid')
  a, b = two_sets()
  for dtype, rel in ((np.float64, 1e-9), (np.float32, 1e-4)):
    want = kid.kid_features_to_metric(
        torch.from_numpy(a.astype(dtype)), torch.from_numpy(b.astype(dtype)),
        kid_subsets=5, kid_subset_size=120, rng_seed=8, verbose=False,
    )
    found = kvd.kernel_distance_of_subsets(
        a, b, subsets=5, subset_size=120, seed=8
    )
    assert found == pytest.approx(tuple(want.values()), rel=rel)


def test_it_is_unbiased_where_sets_are_of_one_distribution():
  # Also for small sets of unlike sizes, where a biased estimate is far above 0.
  rng = np.random.default_rng(0)
  found = [
      kvd.kernel_distance(rng.normal(size=(6, 8)), rng.normal(size=(11, 8)))
      for _ in range(2000)
  ]
  error = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found)) < 4 * error
  assert min(found) < 0


@pytest.mark.parametrize('wrong, sentence', [
    ({'features_a': np.zeros((1, 20))}, 'at least two, all finite'),
    ({'features_a': np.full((9, 20), np.inf)}, 'at least two, all finite'),
    ({'features_a': np.zeros((9, 3))}, r'must be \[n, d\] and \[m, d\]'),
    ({'subsets': 0}, 'subsets is 0'),
    ({'subset_size': 251}, 'at most the 250 vectors'),
    ({'subset_size': 1}, 'at least 2'),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  a, b = two_sets()
  with pytest.raises(ValueError, match=sentence):
    kvd.kernel_distance_of_subsets(
        **{'features_a': a, 'features_b': b, 'subset_size': 10} | wrong
    )
