"""FID and IS of frames through torch-fidelity, with a network of our own.

Its Inception cannot be fetched here; what is shown is which frames are scored,
and that its formulas are those of `metrics`.
"""
import sys

import numpy as np
import pytest

from tests.support import optional
from video_diffusion.errors import UserError
from video_diffusion.evaluation import frames
from video_diffusion.metrics import frechet
from video_diffusion.metrics import inception_score

NAME = 'video-diffusion-test-pixels'


def videos(n, seed, size=(6, 8)):
  rng = np.random.default_rng(seed)
  # Each clip has a shade of its own, and later frames are darker.
  shade = rng.uniform(60, 250, (n, 1, 1, 1, 3))
  fade = np.linspace(1, 0.3, 4)[:, None, None, None]
  noise = rng.uniform(-40, 40, (n, 4, *size, 3))
  return np.clip(shade * fade + noise, 0, 255).astype(np.uint8)


def features_of(frame):
  """The test network in numpy: float64 [n, 5] of uint8 [n, h, w, 3]."""
  mean = frame.mean((1, 2), dtype=np.float64) / 40
  corner = frame[:, 0, 0, :2] / 80
  return np.concatenate([mean, corner], axis=1)


@pytest.fixture(scope='module')
def fidelity():
  """torch_fidelity, which knows the test network by NAME."""
  torch = optional.optional('torch')
  fidelity = optional.optional('torch_fidelity')
  seen = []

  class Pixels(fidelity.FeatureExtractorBase):

    def __init__(self, name, features_list, **kwargs):
      super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
      return ('pixels',)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
      return 'pixels'

    @staticmethod
    def can_be_compiled():
      return False

    def forward(self, x):
      assert x.dtype == torch.uint8 and x.shape[1] == 3
      seen.append(len(x))
      found = features_of(np.moveaxis(x.numpy(), 1, -1))
      return (torch.from_numpy(found),)

  fidelity.register_feature_extractor(NAME, Pixels)
  fidelity.seen = seen
  return fidelity


def expected(samples, reference, splits):
  a, b = (
      frechet.mean_and_covariance(features_of(x)) for x in (samples, reference)
  )
  return (
      frechet.frechet_distance(*a, *b),
      *inception_score.inception_score(features_of(samples), splits=splits),
  )


@pytest.mark.parametrize('which', ['all', 'first'])
@pytest.mark.parametrize('splits', [1, 10])
def test_scores_are_those_of_our_metrics(fidelity, which, splits):
  samples, reference = videos(30, 0), videos(25, 1, (10, 7))
  fidelity.seen.clear()
  found = frames.frame_scores(
      [samples[:7], samples[7], samples[8:]], reference, frames=which,
      splits=splits, extractor=NAME, batch_size=16,
  )
  kept = slice(None) if which == 'all' else slice(1)
  frames_a, frames_b = (
      x[:, kept].reshape(-1, *x.shape[2:]) for x in (samples, reference)
  )
  want = expected(frames_a, frames_b, splits)
  np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-12)
  assert max(fidelity.seen) == 16
  assert sum(fidelity.seen) == len(frames_a) + len(frames_b)


def test_first_and_all_differ_and_no_reference_has_no_fid(fidelity):
  samples = videos(30, 0)
  options = {'extractor': NAME, 'splits': 2}
  first, every = (
      frames.frame_scores(samples, samples[::2], frames=which, **options)
      for which in ('first', 'all')
  )
  assert first.is_mean != pytest.approx(every.is_mean, rel=1e-3)
  alone = frames.frame_scores(samples, None, **options)
  assert alone.fid is None
  assert alone[1:] == pytest.approx(every[1:])


def test_a_network_without_its_weights_is_one_sentence(fidelity, monkeypatch):
  import urllib.error

  def fail(**kwargs):
    raise urllib.error.URLError('no network')

  monkeypatch.setattr(fidelity, 'calculate_metrics', fail)
  with pytest.raises(UserError, match=r'cannot fetch .* \(no network\); copy'):
    frames.frame_scores(videos(10, 0), None)


def test_frames_of_batches_of_any_kind():
  clips = videos(5, 0)
  for given in (clips, [clips], [clips[:2], clips[2:]], iter([*clips])):
    every = frames.frames_of(given, 'all')
    np.testing.assert_array_equal(
        np.concatenate(every), clips.reshape(20, 6, 8, 3)
    )
  first = frames.frames_of([clips[:2], clips[2], clips[3:]], 'first')
  np.testing.assert_array_equal(np.concatenate(first), clips[:, 0])


@pytest.mark.parametrize('missing', ['torch', 'torch_fidelity'])
def test_without_torch_fidelity_it_says_what_to_install(monkeypatch, missing):
  monkeypatch.setitem(sys.modules, missing, None)
  sentence = r"pip install 'video_diffusion\[frames\]'"
  with pytest.raises(UserError, match=sentence) as error:
    frames.frame_scores(videos(2, 0), None)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('wrong, sentence', [
    ({'frames': 'last'}, "frames is 'last'; it must be 'all' or 'first'"),
    ({'samples': videos(3, 0) / 255.0}, 'samples has float64 of shape'),
    ({'samples': []}, 'samples has 0 frames'),
    ({'samples': [videos(1, 0), videos(1, 0, (4, 4))]},
     r'frames of \(6, 8\) and of \(4, 4\) pixels; all must be of one size'),
    ({'reference': videos(1, 0)[:, :1]}, 'reference has 1 frames'),
    ({'weights': 'none.pth'}, "weights is 'none.pth', where there is no file"),
    ({'splits': 41}, 'splits is 41; it must be from 1 to the 40 frames'),
])
def test_mistakes_are_one_sentence(monkeypatch, wrong, sentence):
  # They are found before the network is made.
  torch = type(sys)('torch')
  torch.utils = type(sys)('utils')
  torch.utils.data = type(sys)('data')
  torch.utils.data.Dataset = object
  monkeypatch.setattr(frames, '_import', lambda: (torch, None))
  arguments = {'samples': videos(10, 0), 'reference': videos(3, 0)} | wrong
  with pytest.raises(UserError, match=sentence):
    frames.frame_scores(**arguments)
