"""Features of the FVD: sizes, batches, resizes, and published scores."""
import hashlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import i3d as bench
from tests.support import i3d_files
from tests.support.paths import ROOT
from video_diffusion.checkpoints import metric_networks
from video_diffusion.errors import UserError
from video_diffusion.evaluation import features
from video_diffusion.evaluation import fvd
from video_diffusion.evaluation import resize


# ---- The network beside what is published ------------------------------------
@i3d_files.needs_data
def test_features_and_fvd_of_the_original_graph():
  expected = i3d_files.expected()
  sets = bench.oracle_sets()
  digests = [hashlib.sha256(x.tobytes()).hexdigest() for x in sets]
  assert digests == list(expected['fvd_set_sha256'])
  network = features.I3DFeatures(i3d_files.rule_weights())
  # Two clips here; all 48 by `python -m benchmarks.i3d --only oracle`.
  found = network([x[:1] for x in sets])
  want = np.stack([expected[f'fvd_feats_{name}'][0] for name in 'AB'])
  np.testing.assert_allclose(found, want, rtol=0, atol=1e-4)
  score = fvd.fvd(expected['fvd_feats_A'], expected['fvd_feats_B'])
  assert score == pytest.approx(float(expected['fvd64_AB']), rel=1e-4)
  assert score == pytest.approx(109.8069, rel=1e-4)


@i3d_files.needs_weights
def test_zeros_against_ones_by_the_real_weights(tmp_path):
  # n = 10 and 11; up to 30 by `python -m benchmarks.i3d --only series`.
  weights = metric_networks.load_i3d(cache=tmp_path)
  network = features.I3DFeatures(weights)
  assert metric_networks.I3D_SHA256[:16] in network.description
  for frames in (10, 11):
    found = bench.zeros_against_ones(network, frames)
    assert found == pytest.approx(bench.SERIES[frames], rel=0.01)


# ---- Resizing ----------------------------------------------------------------
@i3d_files.needs_data
def test_the_reference_resize_is_that_of_tensorflow():
  video = jnp.asarray(bench.oracle_sets()[0][:1, :1], jnp.float32)
  found = 2 * resize.stretch(video, 224, 'reference')[0, 0] / 255 - 1
  rows = [0, 1, 2, 3, 4, 100, *range(219, 224)]
  want = i3d_files.expected()['resize_A0_t0_rows']
  np.testing.assert_allclose(found[jnp.array(rows)], want, rtol=0, atol=2.5e-7)


@pytest.mark.parametrize('height, width', [(64, 48), (224, 300), (240, 7)])
def test_the_half_pixel_resize_is_that_of_jax(height, width):
  x = np.random.default_rng(0).uniform(size=(1, 1, height, width, 3))
  x = jnp.asarray(x, jnp.float32)
  found = resize.stretch(x, 224, 'half_pixel')
  want = jax.image.resize(
      x, (1, 1, 224, 224, 3), 'bilinear', antialias=False
  )
  np.testing.assert_allclose(found, want, rtol=0, atol=1e-4)


def test_resizes_written_out():
  # 2 pixels to 4: the places are 0, 1/2, 1, 3/2, and -1/4, 1/4, 3/4, 5/4.
  np.testing.assert_array_equal(
      resize.matrix(2, 4, 'reference'), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
  )
  np.testing.assert_array_equal(
      resize.matrix(2, 4, 'half_pixel'),
      [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]],
  )
  for way in resize.WAYS:
    np.testing.assert_array_equal(resize.matrix(5, 5, way), np.eye(5))


# ---- Batches, by a network that takes no time --------------------------------
@pytest.fixture
def quick(monkeypatch):
  """A network whose feature is the mean of each channel, and its shapes."""
  shapes = []

  def mean(params, x, *, resize):
    shapes.append(x.shape)  # once for each compilation
    return x.astype(jnp.float32).mean((1, 2, 3)) + params

  monkeypatch.setattr(features, '_logits', mean)
  weights = metric_networks.NetworkWeights(np.float32(0), 'none', 'none')
  make = lambda **options: features.I3DFeatures(weights, **options)
  return make, shapes


def clips(n, frames=9, height=4, width=6):
  rng = np.random.default_rng(n)
  return rng.integers(0, 256, (n, frames, height, width, 3), np.uint8)


def test_any_batches_give_the_same_features_in_order(quick):
  make, shapes = quick
  videos, done = clips(11), []
  want = videos.mean((1, 2, 3))
  network = make(batch_size=4)
  close = lambda found: np.testing.assert_allclose(found, want, rtol=1e-5)
  close(network(videos, progress=done.append))
  assert done == [4, 8, 11]
  # As a generator of lots of any size, and of videos without a batch axis.
  close(network(videos[i : i + 3] for i in range(0, 11, 3)))
  close(network(list(videos)))
  close(network([videos[:0], videos]))
  assert shapes == [(4, 9, 4, 6, 3)]
  # A lone video is computed alone, then filled up to what is compiled.
  np.testing.assert_allclose(make()(videos[0]), want[:1], rtol=1e-5)
  assert shapes[-1] == (1, 9, 4, 6, 3)


def test_one_compilation_for_each_size(quick):
  make, shapes = quick
  network = make(batch_size=2)
  sets = [clips(2), clips(3, frames=10), clips(1)]
  found = network(sets)
  want = np.concatenate([x.mean((1, 2, 3)) for x in sets])
  np.testing.assert_allclose(found, want, rtol=1e-5)
  assert shapes == [(2, 9, 4, 6, 3), (2, 10, 4, 6, 3)]


def test_clips_are_given_as_they_are(quick):
  make, _ = quick
  x = np.full((2, 9, 224, 224, 3), 0.25, np.float32)
  np.testing.assert_allclose(make().of_clips(x), np.full((2, 3), 0.25))
  with pytest.raises(UserError, match='clips are uint8 of the shape'):
    make().of_clips(clips(1))
  with pytest.raises(UserError, match=r'float32 \[n, time, 224, 224, 3\]'):
    make().of_clips(x[:, :, 1:])


@pytest.mark.parametrize(
    'videos, message',
    [
        (clips(1, frames=8), 'have 8 frames; I3D needs at least 9'),
        (clips(1)[..., :1], r'uint8 of the shape \(1, 9, 4, 6, 1\); they must'),
        (clips(1)[0, 0], r'of the shape \(4, 6, 3\); they must be uint8 \[n, '),
        (clips(1).astype(np.float32), 'are float32 of the shape'),
        (clips(1, height=0), r'of the shape \(1, 9, 0, 6, 3\)'),
        (clips(0), 'holds no videos; there must be at least one'),
        ([], 'holds no videos; there must be at least one'),
    ],
)
def test_videos_that_are_none(quick, videos, message):
  with pytest.raises(UserError, match=message):
    quick[0]()(videos)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'resize': 'bicubic'}, "resize is 'bicubic'; it must be one of ref"),
        ({'batch_size': 0}, 'batch_size is 0; it must be a whole number of'),
    ],
)
def test_arguments_that_are_wrong(options, message):
  with pytest.raises(UserError, match=message):
    features.i3d(clips(1), **options)


def test_identities_tell_resizes_and_weights_apart(quick):
  make, _ = quick
  assert make().identity != make(resize='half_pixel').identity
  assert 'half_pixel' in make(resize='half_pixel').description


ON_DEVICES = """
import jax.numpy as jnp, numpy as np
from video_diffusion.checkpoints import metric_networks
from video_diffusion.evaluation import features
shapes = []
def mean(params, x, *, resize):
  shapes.append(x.shape)
  return x.astype(jnp.float32).mean((1, 2, 3)) + params
features._logits = mean
weights = metric_networks.NetworkWeights(np.float32(0), '', '')
videos = np.random.default_rng(0).integers(0, 256, (7, 9, 4, 6, 3), np.uint8)
network = features.I3DFeatures(weights, batch_size=4)
np.testing.assert_allclose(network(videos), videos.mean((1, 2, 3)), rtol=1e-5)
assert shapes == [(6, 9, 4, 6, 3)], shapes
"""


def test_a_batch_is_split_over_the_devices_of_the_process():
  subprocess.run(
      [sys.executable, '-c', ON_DEVICES], check=True, cwd=ROOT,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': '3'},
  )


# ---- The distance ------------------------------------------------------------
def test_fvd_of_equal_and_of_moved_sets():
  x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
  assert abs(fvd.fvd(x, x)) < 1e-6
  assert fvd.fvd(x, x + np.float32(2)) == pytest.approx(20, rel=1e-5)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda x: x[:1], r'features_b has the shape \(1, 5\); both sets must'),
        (lambda x: x[:, :4], r'features_b has the shape \(50, 4\)'),
        (lambda x: x[0], r'features_b has the shape \(5,\)'),
        (lambda x: x / 0.0, 'features_b holds numbers that are not finite'),
    ],
)
def test_features_that_are_none(change, message):
  x = np.ones((50, 5))
  with np.errstate(divide='ignore'), pytest.raises(UserError, match=message):
    fvd.fvd(x, change(x))
