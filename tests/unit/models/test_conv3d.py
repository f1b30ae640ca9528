import jax
import numpy as np
import pytest

from video_diffusion.models import conv3d


@pytest.mark.parametrize('window', [1, 3, 7])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('frames', [1, 4, 5])
def test_both_ways_are_one_convolution(window, stride, frames):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, frames, 9, 6, 3)).astype(np.float32)
  kernel = rng.normal(size=(*(window,) * 3, 3, 4)).astype(np.float32)
  want = conv3d.whole(x, kernel, stride)
  found = conv3d.by_frames(x, kernel, stride)
  assert found.shape == want.shape
  np.testing.assert_allclose(found, want, rtol=0, atol=2e-5 * window**1.5)


@pytest.mark.parametrize('platform, count', [('cpu', 3), ('tpu', 1)])
def test_cpus_alone_sum_convolutions_of_frames(platform, count):
  """XLA's CPU compiler is slow for three axes, and others are not."""
  x, kernel = np.ones((1, 4, 8, 8, 3)), np.ones((3, 3, 3, 3, 4))
  lowered = jax.jit(conv3d.convolve).trace(x, kernel).lower(
      lowering_platforms=(platform,)
  ).as_text()
  assert lowered.count('stablehlo.convolution') == count
