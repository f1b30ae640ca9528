import numpy as np

from video_diffusion.data import shapes
from video_diffusion.metrics import shapes_score

PALETTE = np.array(list(shapes.PALETTE.values()))


def figures(videos):
  return shapes_score.shape_figures(videos, PALETTE, shapes.BACKGROUND)


def test_a_square_of_known_size_and_path():
  video = np.zeros((1, 4, 16, 16, 3), np.uint8)
  for i in range(4):
    video[0, i, 2 : 6, 3 + 2 * i : 7 + 2 * i] = (250, 10, 20)
  got = figures(video)
  assert got['palette'] == 1.0
  assert got['area'] == 16 / 256
  np.testing.assert_allclose(got['motion'], 2.0)


def test_real_noise_and_blank_clips_are_told_apart():
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=64, num_frames=8, height=16, width=16
  )
  rng = np.random.default_rng(0)
  real = np.stack([source.example(i, rng, 8)['video'] for i in range(64)])
  noise = rng.integers(0, 256, real.shape, np.uint8)
  assert figures(real)['palette'] == 1.0
  assert figures(noise)['palette'] < 0.1
  assert figures(real[:, :1])['motion'] == 0.0
  assert figures(np.zeros_like(real)) == {
      'palette': 0.0, 'area': 0.0, 'motion': 0.0
  }


def test_frames_out_of_place_are_off_the_path():
  video = np.zeros((3, 9, 32, 32, 3), np.uint8)
  for i in range(9):
    video[:, i, 2 : 6, 3 + 2 * i : 7 + 2 * i] = (250, 10, 20)
  # Of the second clip, the fifth frame's square is 8 pixels lower.
  video[1, 4] = np.roll(video[1, 4], 8, axis=0)
  video[2, 8] = 0
  even, off, gone = shapes_score.path_errors(video, shapes.BACKGROUND)
  np.testing.assert_allclose(even, 0, atol=1e-6)
  # Eight frames 8/9 above the mean, one 64/9 below; no slope fits better.
  np.testing.assert_allclose(
      off, np.sqrt((8 * (8 / 9) ** 2 + (64 / 9) ** 2) / 9)
  )
  assert gone == np.inf
