"""How videos are cut into clips."""
import pytest

from video_diffusion.data import packing


@pytest.mark.parametrize(
    'num_frames, expected',
    [
        (0, []), (3, []), (4, [(0, 4)]), (10, [(0, 10)]), (13, [(0, 10)]),
        (14, [(0, 10), (10, 14)]), (25, [(0, 10), (10, 20), (20, 25)]),
    ],
)
def test_cuts(num_frames, expected):
  sizes = dict(clip_frames=10, min_frames=4)
  for short_clips in packing.SHORT_CLIPS:
    if num_frames < 4 and short_clips != 'drop':
      continue
    cuts = packing.cut_clips(num_frames, short_clips=short_clips, **sizes)
    assert [cut.tolist() for cut in cuts] == [
        list(range(*each)) for each in expected
    ]


def test_videos_that_are_too_short():
  sizes = dict(clip_frames=10, min_frames=8)
  loop, = packing.cut_clips(3, short_clips='loop', **sizes)
  assert loop.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
  with pytest.raises(ValueError, match='it has 3 frames, fewer than the 8'):
    packing.cut_clips(3, short_clips='refuse', **sizes)
  with pytest.raises(ValueError, match='it has 0 frames'):
    packing.cut_clips(0, short_clips='loop', **sizes)
