"""Flicker of clips whose change is known by construction."""
import numpy as np
import pytest

from video_diffusion.metrics import flicker


def grey(*levels):
  """One clip whose frames are flat grey, of these levels."""
  frames = np.array(levels, np.uint8)[None, :, None, None, None]
  return np.broadcast_to(frames, (1, len(levels), 4, 6, 3))


def noise(n=3, time=8):
  return np.random.default_rng(0).integers(
      0, 256, (n, time, 4, 6, 3), np.uint8
  )


def test_flat_frames_change_by_their_levels():
  absolute, relative = flicker.flicker(grey(100, 110, 100, 90))
  assert absolute == pytest.approx([10.0]) and relative == pytest.approx([0.1])
  # uint8 does not wrap around, and half the light has half the change.
  dark, same = flicker.flicker(grey(50, 55, 50, 45))
  assert dark == pytest.approx([5.0]) and same == pytest.approx(relative)
  assert flicker.flicker(grey(0, 255))[0] == pytest.approx([255.0])


def test_luma_is_that_of_rec_601():
  videos = np.zeros((1, 3, 2, 2, 3), np.uint8)
  for channel in range(3):
    videos[0, channel, ..., channel] = 200
  np.testing.assert_allclose(
      flicker.luma(videos), [[59.8, 117.4, 22.8]], rtol=1e-12
  )


def test_ink_counts_pixels():
  # A white square of 4 pixels, then 6, then 4, on black; and motion alone.
  videos = np.zeros((2, 3, 8, 8, 3), np.uint8)
  videos[0, :, :2, :2] = 255
  videos[0, 1, 2, :2] = 255
  for t in range(3):
    videos[1, t, t : t + 2, t : t + 2] = 255
  np.testing.assert_allclose(flicker.ink(videos)[0], [3060, 4590, 3060])
  np.testing.assert_allclose(
      flicker.ink_flicker(videos), [2 / (14 / 3), 0.0], rtol=1e-12
  )


def test_vectors_change_by_their_length():
  series = np.array([[[3.0, 0.0], [0.0, 4.0], [0.0, 4.0]]])
  assert flicker.change(series) == pytest.approx([2.5])
  mean = np.hypot(1.0, 8 / 3)
  assert flicker.relative_change(series) == pytest.approx([2.5 / mean])


def test_black_clips_do_not_divide_by_zero():
  assert flicker.flicker(grey(0, 0, 0))[1] == [0.0]
  assert flicker.ink_flicker(grey(0, 0)) == [0.0]
  assert flicker.relative_change([[-1.0, 1.0]]) == [np.inf]


def test_shuffled_frames_are_the_same_frames():
  videos = noise()
  found = flicker.shuffled_frames(videos, seed=1)
  orders = []
  for clip, shuffled in zip(videos, found, strict=True):
    order = [
        int(np.flatnonzero((clip == frame).all((1, 2, 3)))[0])
        for frame in shuffled
    ]
    assert sorted(order) == list(range(8))
    orders.append(tuple(order))
  assert len(set(orders)) == 3  # each clip has its own
  np.testing.assert_array_equal(found, flicker.shuffled_frames(videos, 1))
  assert (found != flicker.shuffled_frames(videos, seed=2)).any()


def test_a_ramp_flickers_more_when_it_is_shuffled():
  videos = np.concatenate([grey(*range(0, 160, 10))] * 4)
  calm, _ = flicker.flicker(videos)
  wild, _ = flicker.flicker(flicker.shuffled_frames(videos, seed=0))
  assert calm == pytest.approx([10.0] * 4) and (wild > 30).all()


def test_unrelated_frames_keep_their_places_in_time():
  videos = np.zeros((30, 4, 2, 2, 3), np.uint8)
  videos += np.arange(30, dtype=np.uint8)[:, None, None, None, None]
  videos[..., 0] = np.arange(4)[:, None, None]
  found = flicker.unrelated_frames(videos, seed=1)
  np.testing.assert_array_equal(found[..., 0], videos[..., 0])
  origin = found[..., 0, 0, 1]  # the clip that a frame is of
  np.testing.assert_array_equal(
      np.sort(origin, axis=0), np.arange(30)[:, None].repeat(4, 1)
  )
  assert (origin[:, 1:] == origin[:, :-1]).mean() < 0.2
  np.testing.assert_array_equal(found, flicker.unrelated_frames(videos, 1))
  assert (found != flicker.unrelated_frames(videos, seed=2)).any()


def test_a_repeated_frame_stands_still():
  videos = noise()
  for options in ({'frame': 0}, {'frame': -1}, {'seed': 3}):
    found = flicker.repeated_frame(videos, **options)
    assert found.shape == videos.shape and found.dtype == np.uint8
    assert not flicker.flicker(found)[0].any()
    for clip, still in zip(videos, found, strict=True):
      assert (clip == still[0]).all((1, 2, 3)).any()
  np.testing.assert_array_equal(
      flicker.repeated_frame(videos, frame=2)[:, 5], videos[:, 2]
  )


@pytest.mark.parametrize('wrong, sentence', [
    (lambda: flicker.flicker(grey(1)), 'at least two of time'),
    (lambda: flicker.flicker(np.zeros((1, 2, 4, 4, 3))), 'must be uint8'),
    (lambda: flicker.ink(noise()[..., :1]), 'must be uint8'),
    (lambda: flicker.change(np.zeros(3)), r'must be \[n, time\]'),
    (lambda: flicker.repeated_frame(noise(), frame=8), 'have 8 frames'),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  with pytest.raises(ValueError, match=sentence):
    wrong()
