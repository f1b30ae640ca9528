"""Coherence of clips of two digits, whose truth is known by construction.

Digits are squares here, and their brightness is their class.
"""
import numpy as np
import pytest

from video_diffusion.metrics import digit_clips
from video_diffusion.metrics import flicker

SIDE = 22  # of a digit, in frames of 64 x 64


def read_level(pixels, side):
  """A reader: class c is of level 100 + 10 c."""
  assert side == 32
  return np.rint((pixels.max((1, 2), initial=100) - 100) / 10).astype(int)


def clip(*frames):
  """A clip of frames, each a list of (class, row, column)."""
  video = np.zeros((len(frames), 64, 64, 3), np.uint8)
  for image, digits in zip(video, frames, strict=True):
    for kind, y, x in digits:
      image[y : y + SIDE, x : x + SIDE] = 100 + 10 * kind
  return video


A, B = (3, 0, 0), (5, 40, 30)
TOGETHER = [(3, 0, 0), (5, 10, 10)]


def readings(*clips):
  return digit_clips.read(np.stack(clips), read_level)


def test_clips_are_kept_or_not():
  found = readings(
      clip([A, B], [A, B], [A, B], [A, B]),
      clip([A, B], TOGETHER, [A, B], [A, B]),
      # They meet and come out on each other's side, which nothing tells from
      # passing by.
      clip([A, B], TOGETHER, TOGETHER, [(5, 0, 0), (3, 40, 30)]),
      # One becomes another; for a single frame; behind a meeting.
      clip([A, B], [A, B], [A, (6, 40, 30)], [A, (6, 40, 30)]),
      clip([A, B], [A, (6, 40, 30)], [A, B], [A, B]),
      clip([A, B], TOGETHER, [A, (6, 40, 30)], [A, (6, 40, 30)]),
      # Far apart, they exchange their classes from a frame to the next.
      clip([A, B], [A, B], [(5, 0, 0), (3, 40, 30)], [A, B]),
      # At most one frame shows them apart.
      clip(TOGETHER, TOGETHER, [A, B], TOGETHER),
      clip([], [A], [A, (3, 42, 0), (5, 30, 40)], []),
  )
  kept, judged = digit_clips.identity(found)
  assert kept.tolist() == [True] * 3 + [False] * 6
  assert judged.tolist() == [True] * 7 + [False] * 2
  assert found.parts[-1].tolist() == [0, 1, 3, 0]
  assert found.apart[1].tolist() == [True, False, True, True]


def test_two_digits_of_one_class():
  found = readings(clip([(3, 0, 0), (3, 40, 30)], [(3, 2, 0), (3, 40, 28)]))
  assert digit_clips.identity(found)[0].all()


def test_digits_are_followed_past_each_other():
  """The upper digit becomes the lower one: the order of parts changes."""
  frames = [[(3, 4 + 3 * t, 0), (5, 16 - 3 * t, 40)] for t in range(5)]
  found = readings(clip(*frames))
  np.testing.assert_array_equal(found.classes[0], [[3, 5]] * 5)
  np.testing.assert_allclose(found.centres[0, 4], [[26.5, 10.5], [14.5, 50.5]])
  assert digit_clips.identity(found)[0].all()
  assert digit_clips.displacement(found) == pytest.approx(3.0)


def test_paths_are_those_of_steps_between_frames_that_can_be_judged():
  moved = [(3, 3, 4), (5, 40, 30)]
  found = readings(clip([A, B], moved, TOGETHER, [(3, 3, 40), B]))
  assert digit_clips.displacement(found) == pytest.approx((5 + 0) / 2)
  assert digit_clips.displacement(readings(clip(TOGETHER, [A, B]))) is None


def test_parts_of_another_size_are_no_digits():
  def square(side):
    video = clip([A], [A])
    video[:, 30 : 30 + side, 34 : 34 + side] = 150
    return video

  sides = (3, 4, 19, 20, 27, 28)
  found = readings(*map(square, sides))
  # Less than a 64th of the digit's image is a speck.
  assert found.parts[:, 0].tolist() == [1, 2, 2, 2, 2, 2]
  assert found.apart[:, 0].tolist() == [False, False, False, True, True, False]


def test_all_figures_of_clips_and_of_their_frames_in_disorder():
  rng = np.random.default_rng(0)
  videos = np.stack([
      clip(*([(a, t, 0), (b, 40 - t, 34)] for t in range(8)))
      for a, b in rng.integers(0, 10, (40, 2))
  ])
  found = digit_clips.figures(videos, read_level)
  ink = videos[:, 0, ..., 0].sum((1, 2)) / 255
  assert found == {
      'flicker': 0.0, 'ink_spread': pytest.approx(ink.std()),
      'displacement': pytest.approx(1.0), 'identity': 1.0, 'judged': 1.0,
      'steady': 1.0, 'apart': 1.0, 'parts': 2.0,
  }
  mixed = digit_clips.figures(flicker.unrelated_frames(videos, 0), read_level)
  assert mixed['flicker'] > 0.05 and mixed['identity'] < 0.1
  assert mixed['steady'] < 0.2 and mixed['apart'] == 1.0
  assert mixed['ink_spread'] < 0.6 * found['ink_spread']


def test_blocks_change_nothing(monkeypatch):
  rng = np.random.default_rng(0)
  videos = rng.integers(0, 256, (5, 3, 64, 64, 3), np.uint8)
  videos[:, :, 20:30] = 0
  videos[2] = clip([A, B], [A, B], TOGETHER)
  whole = digit_clips.read(videos, read_level)
  monkeypatch.setattr(digit_clips, 'BLOCK', 2)
  for one, other in zip(
      whole, digit_clips.read(videos, read_level), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  assert whole.apart[2].tolist() == [True, True, False]


def test_black_clips_have_nothing_to_judge():
  found = digit_clips.figures(np.zeros((2, 3, 64, 64, 3), np.uint8), read_level)
  assert found['identity'] is None and found['displacement'] is None
  assert found['steady'] is None and found['judged'] == found['parts'] == 0.0
