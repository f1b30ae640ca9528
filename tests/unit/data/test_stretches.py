"""Stretches of video: joined from clips, taken apart, found again."""
import numpy as np
import pytest

from video_diffusion.data import stretches as stretches_lib


def collect(*clips):
  collector = stretches_lib.Collector()
  for clip in clips:
    collector.add(*clip)
  return collector.table()


def test_clips_that_follow_one_another_are_one_stretch():
  table = collect(
      (0, 0, 4), (0, 4, 4), (0, 8, 1),  # nine frames
      (1, 0, 4), (1, 8, 4), (1, 12, 2),  # with a gap
      (3, 0, 2),
      (3, 2, 2), (3, 4, 3),  # longer than those before: a stretch of its own
      (4, 7, 3), (4, 10, 2), (4, 12, 1),  # after a rest begins another
  )
  assert table.dtype == np.int32 and table.tolist() == [
      [0, 0, 9, 4], [1, 0, 4, 4], [1, 8, 6, 4], [3, 0, 4, 2], [3, 4, 3, 3],
      [4, 7, 5, 3], [4, 12, 1, 1],
  ]
  stretches = stretches_lib.from_table(table, 12)
  assert stretches.records.tolist() == [0, 3, 4, 6, 8, 9, 11]
  for video, frame, stretch in (
      (0, 0, 0), (0, 8, 0), (1, 3, 1), (1, 8, 2), (1, 13, 2), (3, 3, 3),
      (3, 4, 4), (4, 7, 5), (4, 12, 6),
  ):
    assert stretches.find(video, frame) == stretch


def test_clips_are_the_records():
  stretches = stretches_lib.from_table(
      collect((0, 0, 4), (0, 4, 4), (0, 8, 1), (5, 2, 3)), 4
  )
  every = stretches.clips(1)
  assert np.stack(every).T.tolist() == [
      [0, 0, 4, 4, 0], [0, 4, 4, 4, 1], [0, 8, 1, 1, 2], [5, 2, 3, 3, 3],
  ]
  assert stretches.clips(2).records.tolist() == [0, 1, 3]
  assert not len(stretches.clips(5).frames)


def test_videos_are_in_their_order_whatever_that_of_the_records():
  stretches = stretches_lib.from_table(
      collect((2, 0, 3), (1, 5, 2), (1, 0, 2)), 3
  )
  assert stretches.videos.tolist() == [1, 1, 2]
  assert stretches.starts.tolist() == [0, 5, 0]
  assert stretches.records.tolist() == [2, 1, 0]


def test_clips_that_do_not_say_how_they_follow_stay_apart():
  stretches = stretches_lib.from_clips(np.array([7, 7, 8]), np.array([4, 3, 5]))
  assert np.stack(stretches).T.tolist() == [
      [7, 0, 4, 4, 0], [7, 4, 3, 3, 1], [8, 7, 5, 5, 2],
  ]
  assert [stretches.find(7, 3), stretches.find(7, 4)] == [0, 1]


@pytest.mark.parametrize('table, num_records, words', [
    (np.ones((3, 4), np.int64), 3, 'another form'),
    (np.ones((3, 5), np.int32), 3, 'another form'),
    (np.ones(4, np.int32), 1, 'another form'),
    (np.ones((0, 4), np.int32), 0, 'no frames'),
    (np.array([[0, 0, 0, 1]], np.int32), 0, 'no frames'),
    (np.array([[0, 0, 1, 0]], np.int32), 1, 'no frames'),
    (np.array([[-1, 0, 1, 1]], np.int32), 1, 'no frames'),
    (np.array([[0, 0, 9, 4]], np.int32), 2, 'of other records'),
])
def test_a_table_of_another_form_is_no_table(table, num_records, words):
  with pytest.raises(ValueError, match=words):
    stretches_lib.from_table(table, num_records)
