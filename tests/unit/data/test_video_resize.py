"""video.py: frames cropped at the middle and resized by area."""
import numpy as np
import pytest

from video_diffusion.data import video


def random_frames(n, height, width):
  return np.random.default_rng(0).integers(
      0, 256, (n, height, width, 3), np.uint8)


@pytest.mark.parametrize('factor', [1, 2, 3, 5])
def test_whole_factor_is_the_mean_of_blocks(factor):
  frames = random_frames(2, 8 * factor, 6 * factor)
  blocks = frames.reshape(2, 8, factor, 6, factor, 3).mean(axis=(2, 4))
  np.testing.assert_array_equal(
      video.resize_and_crop(frames, height=8, width=6), np.rint(blocks))


@pytest.mark.parametrize('height, width', [(14, 21), (50, 75), (9, 9)])
def test_any_factor_is_the_mean_of_the_area(height, width):
  frames = random_frames(1, 20, 30)
  crop_w = 20 * width // height
  left = (30 - crop_w) // 2
  # On a grid so fine, a new pixel is a block of 20 x 20.
  fine = frames[:, :, left:left + crop_w].repeat(height, 1).repeat(height, 2)
  means = fine.reshape(1, height, 20, width, 20, 3).mean(axis=(2, 4))
  got = video.resize_and_crop(frames, height=height, width=width)
  assert np.abs(got - means).max() < .501  # rounding


def test_crop_is_central():
  frames = np.zeros((1, 4, 10, 3), np.uint8)
  frames[:, :, 3:7] = 200
  assert (video.resize_and_crop(frames, height=2, width=2) == 200).all()
  frames = frames.swapaxes(1, 2)
  assert (video.resize_and_crop(frames, height=2, width=2) == 200).all()


@pytest.mark.parametrize('size', [(1, 1), (2, 1), (3, 500)])
@pytest.mark.parametrize('target', [(64, 64), (1, 7), (99, 2)])
def test_tiny_inputs_and_enlarging(size, target):
  height, width = target
  white = np.full((2, *size, 3), 255, np.uint8)
  got = video.resize_and_crop(white, height=height, width=width)
  assert got.dtype == np.uint8 and got.shape == (2, height, width, 3)
  assert (got == 255).all()


def test_enlarging_repeats_pixels():
  frames = random_frames(1, 3, 4)
  np.testing.assert_array_equal(
      video.resize_and_crop(frames, height=6, width=8),
      frames.repeat(2, axis=1).repeat(2, axis=2))
