import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.data import shapes
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import guidance
from video_diffusion.evaluation import extension_figures


def test_seams_are_where_blocks_begin():
  plan = extension.extend(10, block_frames=4, overlap=2)
  assert extension_figures.seams(plan) == [3, 5, 7]
  assert extension_figures.seams(
      extension.extend(4, block_frames=4, overlap=2)
  ) == []


def test_a_jump_at_a_seam_is_seen_there():
  level = np.array([0, 0, 0, 0, 0.3, 0.3, 0.3], np.float32)
  videos = np.broadcast_to(level[None, :, None, None, None], (2, 7, 4, 4, 3))
  assert extension_figures.frame_to_frame(videos, [3]) == {
      'frame_to_frame_rms': 0.05, 'frame_to_frame_rms_at_seams': 0.3
  }
  assert extension_figures.frame_to_frame(videos, [1, 3]) == {
      'frame_to_frame_rms': 0.05, 'frame_to_frame_rms_at_seams': 0.15
  }


def test_the_own_error_is_that_of_known_frames_alone():
  videos = np.zeros((2, 4, 4, 4, 3), np.float32)

  def denoise(z, logsnr):
    assert z.shape == videos.shape and logsnr.tolist() == [20.0, 20.0]
    np.testing.assert_allclose(z, 0, atol=1e-3)  # hardly any noise
    x_hat = jnp.zeros_like(z)
    return x_hat.at[:, 1].set(0.25).at[:, 2].set(7.0)

  error = lambda *places: extension_figures.own_error(
      denoise, videos, places, logsnr=20.0
  )
  assert error(0, 3) == 0.0
  assert error(1) == 0.25
  assert error(2) == 1.0  # x_hat is clipped
  assert error(0, 1, 3, 1) == pytest.approx(np.sqrt(0.25**2 / 2))


def test_an_enlargement_is_compared_with_the_small_and_the_real_clip():
  rng = np.random.default_rng(0)
  real = rng.uniform(-1, 1, (2, 3, 8, 8, 3)).astype(np.float32)
  low = np.asarray(guidance.area(2)(real))
  perfect = extension_figures.enlargement(real, low, real)
  assert perfect['low_res_rms'] == perfect['rms_to_the_real_clip'] == 0.0
  assert perfect['rms_of_bilinear_enlargement'] > 0.3
  repeated = low.repeat(2, 2).repeat(2, 3)
  got = extension_figures.enlargement(repeated, low, real)
  assert got['low_res_rms'] == 0.0
  assert got['rms_to_the_real_clip'] == round(
      float(np.sqrt(((repeated - real) ** 2).mean())), 4
  )
  shifted = extension_figures.enlargement(real + 0.125, low, real)
  assert shifted['low_res_rms'] == shifted['rms_to_the_real_clip'] == 0.125


def test_shape_figures_are_those_of_uint8_frames():
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=4, num_frames=4, height=16, width=16,
      radius=0.25,
  )
  video = source.example(0, np.random.default_rng(0), 4)['video'][None]
  figures = extension_figures.shape_figures(
      video.astype(np.float32) / 127.5 - 1
  )
  assert figures['palette'] == 1.0 and figures['area'] == (
      video.any(-1).mean()
  )
