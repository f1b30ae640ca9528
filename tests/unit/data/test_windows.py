"""Every start of every video is equally likely, whatever the frameskip."""
import collections

import numpy as np
import pytest
import scipy.stats

from video_diffusion.data import stretches as stretches_lib
from video_diffusion.data import windows
from video_diffusion.errors import UserError

# Videos of one window, of a few, with a rest, and of many clips.
LENGTHS = (5, 7, 12, 13, 40)
CHUNK = 8


def stretches(lengths=LENGTHS, chunk=CHUNK):
  collector, number = stretches_lib.Collector(), 0
  for video, length in enumerate(lengths):
    for start in range(0, length, chunk):
      collector.add(video, start, min(chunk, length - start))
      number += 1
  return stretches_lib.from_table(collector.table(), number)


def examples(epoch, lengths=LENGTHS, min_frames=5):
  found = stretches(lengths)
  if epoch == 'clips':
    found = found.clips(min_frames)
  return windows.Examples(found, epoch=epoch, min_frames=min_frames)


def draw(source, epochs, num_frames, frameskips):
  """Counts of (video, start, frameskip), of all examples of many epochs."""
  rng, seen = np.random.default_rng(0), collections.Counter()
  for _ in range(epochs):
    for index in range(source.num_examples):
      video, frames = source.window(index, rng, num_frames, frameskips)
      assert len(frames) == num_frames
      skip, = set(np.diff(frames).tolist())
      seen[video, int(frames[0]), skip] += 1
  return seen


def starts(num_frames, skip, lengths=LENGTHS):
  """All (video, start, frameskip) at which a window fits."""
  return [
      (video, start, skip)
      for video, length in enumerate(lengths)
      for start in range(length - (num_frames - 1) * skip)
  ]


@pytest.mark.parametrize('frameskips', [(1,), (4,), (1, 4)])
def test_windows_of_all_videos_are_equally_likely(frameskips):
  source = examples('windows', min_frames=5 if 1 in frameskips else 17)
  assert source.num_examples == (
      1 + 1 + 2 + 2 + 8 if 1 in frameskips else 2
  )
  assert source.video(0) is None
  seen = draw(source, 20_000 // source.num_examples, 5, frameskips)
  assert seen.keys() == {
      place for skip in frameskips for place in starts(5, skip)
  }
  total = sum(seen.values())
  for skip in frameskips:
    counts = [seen[place] for place in starts(5, skip)]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    share = sum(counts) / total
    assert share == pytest.approx(1 / len(frameskips), abs=0.02)


@pytest.mark.parametrize('lengths', [LENGTHS, (5,), (5, 9, 6)])
@pytest.mark.parametrize('num_frames, skip', [(5, 1), (1, 1), (2, 2), (4, 1)])
def test_parts_of_the_line_are_exactly_equal(lengths, num_frames, skip):
  """Enumerates an epoch: what each example draws of each random number."""
  source = examples('windows', lengths)
  total = len(starts(num_frames, skip, lengths))

  class Fixed:

    def integers(self, size):
      assert size == total
      return self.number

  rng, seen = Fixed(), collections.Counter()
  for index in range(source.num_examples):
    for rng.number in range(total):
      video, frames = source.window(index, rng, num_frames, (skip,))
      seen[video, int(frames[0]), skip] += 1
  assert seen == dict.fromkeys(
      starts(num_frames, skip, lengths), source.num_examples
  )


def test_an_epoch_of_windows_is_spread_over_the_videos():
  """Each example has its part of the line, and so each video its share."""
  source = examples('windows', (100, 20, 5, 300))
  rng, line = np.random.default_rng(0), starts(5, 1, (100, 20, 5, 300))
  part = len(line) / source.num_examples
  for index in range(source.num_examples):
    video, frames = source.window(index, rng, 5, (1,))
    place = line.index((video, int(frames[0]), 1))
    assert index * part - 1 < place < (index + 1) * part


def test_windows_longer_than_the_nominal_ones_are_uniform_too():
  seen = draw(examples('windows'), 1500, 20, (2,))
  assert seen.keys() == {(4, 0, 2), (4, 1, 2)}
  assert seen[4, 0, 2] == pytest.approx(sum(seen.values()) / 2, rel=0.05)


@pytest.mark.parametrize('frameskips', [(1,), (4,), (1, 4)])
def test_an_epoch_of_videos_takes_each_once_at_a_uniform_start(frameskips):
  lengths = LENGTHS if 1 in frameskips else (17, 18, 40)
  source = examples('videos', lengths)
  assert source.num_examples == len(lengths)
  assert [source.video(i) for i in range(len(lengths))] == [
      *range(len(lengths))
  ]
  seen = draw(source, 6000, 5, frameskips)
  by_video = collections.Counter()
  for (video, _, _), count in seen.items():
    by_video[video] += count
  assert set(by_video.values()) == {6000}
  for video in range(len(lengths)):
    for skip in frameskips:
      counts = [seen[p] for p in starts(5, skip, lengths) if p[0] == video]
      if len(counts) > 1:
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
  # In a video that all distances fit, each is as likely.
  longest = len(lengths) - 1
  for skip in frameskips:
    share = sum(
        n for place, n in seen.items() if place[::2] == (longest, skip)
    ) / 6000
    assert share == pytest.approx(1 / len(frameskips), abs=0.03)


def test_an_epoch_of_clips_hides_what_lies_across_them():
  source = examples('clips')
  # Clips of five and more frames, of which 40 has five.
  assert source.num_examples == 1 + 1 + 1 + 2 + 5
  seen = draw(source, 200, 5, (1,))
  hidden = {place[:2] for place in starts(5, 1)} - {place[:2] for place in seen}
  assert hidden == (
      {(2, start) for start in range(4, 8)}
      | {(3, start) for start in range(4, 8)}
      | {(4, start) for start in range(36) if start % 8 > 3}
  )


@pytest.mark.parametrize('epoch, sentence', [
    ('windows', 'the longest video has 40 frames, fewer than the 41 wanted'),
    ('videos', 'the video has 5 frames, fewer than the 41 wanted'),
    ('clips', 'the video has 5 frames, fewer than the 41 wanted'),
])
def test_a_window_that_fits_nowhere_is_refused(epoch, sentence):
  with pytest.raises(UserError, match=sentence):
    examples(epoch).window(0, np.random.default_rng(0), 21, (3, 2))


def test_random_frames_take_every_place_and_only_skips_that_fit():
  rng = np.random.default_rng(0)
  seen = {
      tuple(windows.random_frames(rng, 6, 3, (1, 2, 3)).tolist())
      for _ in range(300)
  }
  assert seen == {(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 2, 4),
                  (1, 3, 5)}
  with pytest.raises(ValueError, match='has 6 frames, fewer than the 7'):
    windows.random_frames(rng, 6, 4, (2,))
