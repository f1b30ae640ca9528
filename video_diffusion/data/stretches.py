"""Stretches of video: which frames of which video the records hold.

A video is stored in clips of a few frames, each of them a record, because a
frame is read with its whole record. What a window may reach over is not a clip
but a stretch: frames of a video that follow one another without a gap, in
records that do, too.
"""
from typing import NamedTuple

import numpy as np

FRAMES = 2  # column of a table; see `Collector.table`


class Stretches(NamedTuple):
  """Stretches of video, in the order of videos and, within one, of starts.

  Attributes, int64 [n] each:
    videos: number of the video.
    starts: first frame, as the video counts.
    frames: number of frames.
    chunks: frames of each of its records, but for the last, which has the rest.
    records: number of its first record.
  """

  videos: np.ndarray
  starts: np.ndarray
  frames: np.ndarray
  chunks: np.ndarray
  records: np.ndarray

  def find(self, video: int, frame: int) -> int:
    """Returns the number of the stretch that holds a frame of a video."""
    first, last = np.searchsorted(self.videos, [video, video + 1])
    before = np.searchsorted(self.starts[first:last], frame, 'right')
    return int(first + before) - 1

  def sorted(self) -> 'Stretches':
    """Returns them in their order."""
    order = np.lexsort((self.starts, self.videos))
    return Stretches(*(values[order] for values in self))

  def clips(self, min_frames: int) -> 'Stretches':
    """Returns each record as a stretch of its own, if it is long enough."""
    counts = _num_records(self.frames, self.chunks)
    stretch = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(stretch)) - (np.cumsum(counts) - counts)[stretch]
    chunks, before = self.chunks[stretch], number * self.chunks[stretch]
    frames = np.minimum(chunks, self.frames[stretch] - before)
    all_of_them = Stretches(
        self.videos[stretch], self.starts[stretch] + before, frames, frames,
        self.records[stretch] + number,
    )
    long_enough = frames >= min_frames
    return Stretches(*(values[long_enough] for values in all_of_them))


class Collector:
  """Joins clips, in the order of their records, to stretches."""

  def __init__(self):
    self._rows: list[list[int]] = []

  def add(self, video: int, start: int, frames: int) -> None:
    """Adds the clip of the next record; see `Stretches`."""
    if self._rows:
      last_video, last_start, length, chunk = self._rows[-1]
      follows = (video, start) == (last_video, last_start + length)
      if follows and length % chunk == 0 and frames <= chunk:
        self._rows[-1][2] += frames
        return
    self._rows.append([video, start, frames, frames])

  def table(self) -> np.ndarray:
    """Returns int32 [n, 4]: video, start, frames and chunk of each stretch."""
    return np.array(self._rows, np.int32)


def from_table(table: np.ndarray, num_records: int) -> Stretches:
  """Returns the stretches of a `Collector.table`.

  Args:
    table: the table, perhaps from a damaged file.
    num_records: number of records that it is of.

  Raises:
    ValueError: it is no such table, or one of other records.
  """
  if table.dtype != np.int32 or table.ndim != 2 or table.shape[1] != 4:
    raise ValueError('the table of videos has another form')
  videos, starts, frames, chunks = table.T.astype(np.int64)
  if not len(table) or table.min() < 0 or min(frames.min(), chunks.min()) < 1:
    raise ValueError('the table of videos has stretches of no frames')
  counts = _num_records(frames, chunks)
  if counts.sum() != num_records:
    raise ValueError('the table of videos is of other records')
  first = np.cumsum(counts) - counts
  return Stretches(videos, starts, frames, chunks, first).sorted()


def from_clips(video_ids: np.ndarray, frames: np.ndarray) -> Stretches:
  """Returns the stretches of records that do not say how clips follow.

  Each clip is a stretch of its own. Its frames are counted through all clips.

  Args:
    video_ids: int [n], the video of each record.
    frames: int [n], its number of frames.
  """
  frames = np.asarray(frames, np.int64)
  return Stretches(
      np.asarray(video_ids, np.int64), np.cumsum(frames) - frames, frames,
      frames, np.arange(len(frames)),
  ).sorted()


def _num_records(frames, chunks):
  return -(-frames // chunks)
