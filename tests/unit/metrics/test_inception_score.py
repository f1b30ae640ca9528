"""The Inception Score against the plain formula and torch-fidelity."""
import numpy as np
import pytest

from tests.support import optional
from video_diffusion.metrics import inception_score


def some_logits():
  """As the stored values below were computed from."""
  return 3.0 * np.random.RandomState(1).standard_normal((203, 11))


# isc_features_to_metric of torch-fidelity 0.4.0 (torch 2.13.0, CPU), shuffled
# by its seed 2020 unless the seed is None: (splits, seed, mean, deviation).
STORED = (
    (10, 2020, 3.5899284714467585, 0.5355448083275486),
    (1, 2020, 4.051921815378636, 0.0),
    (4, None, 3.865302333584215, 0.19452836492395267),
)


def plain(logits, splits, epsilon):
  """The score as TGAN v2 has it: probabilities, each with epsilon added."""
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) + epsilon
  scores = []
  for i in range(splits):
    part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
    terms = [
        row * (np.log(row) - np.log(part.mean(0))) for row in part
    ]
    scores.append(np.exp(np.mean(np.sum(terms, axis=1))))
  return np.mean(scores), np.std(scores)


@pytest.mark.parametrize('splits', [1, 3, 10])
def test_the_plain_formula_of_the_c3d_protocol(splits):
  found = inception_score.inception_score(
      some_logits(), splits=splits, seed=None
  )
  assert found == pytest.approx(plain(some_logits(), splits, 1e-20), rel=1e-10)


@pytest.mark.parametrize('splits, seed, mean, std', STORED)
def test_values_of_torch_fidelity(splits, seed, mean, std):
  found = inception_score.inception_score(
      some_logits(), splits=splits, seed=seed
  )
  assert found == pytest.approx((mean, std), rel=1e-10)


def test_against_torch_fidelity_itself():
  torch = optional.optional('torch')
  isc = optional.optional('torch_fidelity.metric_isc')
  for splits, seed in ((10, 2020), (7, 5)):
    want = isc.isc_features_to_metric(
        torch.from_numpy(some_logits()), splits=splits, rng_seed=seed
    )
    found = inception_score.inception_score(
        some_logits(), splits=splits, seed=seed
    )
    assert found == pytest.approx(tuple(want.values()), rel=1e-10)


def test_the_ends_of_the_range():
  # One class each: as many as there are classes; all alike: 1. Logits so large
  # that probabilities are exact zeros and ones are no NaN.
  sure = 1e4 * np.eye(5)[np.arange(50) % 5]
  score = lambda x: inception_score.inception_score(x, splits=2)[0]
  assert inception_score.inception_score(sure, splits=1) == (
      pytest.approx(5.0), 0.0
  )
  assert score(np.tile([3.0, 1e4, -1e4], (10, 1))) == pytest.approx(1.0)


@pytest.mark.parametrize('wrong, sentence', [
    ({'logits': np.zeros(3)}, r'must be \[n, classes\]'),
    ({'logits': np.full((3, 2), np.nan)}, 'all finite'),
    ({'splits': 0}, 'splits is 0'),
    ({'splits': 204}, 'from 1 to the 203 samples'),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  with pytest.raises(ValueError, match=sentence):
    inception_score.inception_score(**{'logits': some_logits()} | wrong)
