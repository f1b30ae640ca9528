"""Packs clips into a TFDS data set of ArrayRecord files.

All data sets on disk are packed here, whatever their origin, so that there is
one form of records, at the training size. `records.VideoRecords` reads it. The
folder of the records appears when it is complete.
"""
from collections.abc import Callable, Iterable, Iterator
import hashlib
import itertools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import record_writer
from video_diffusion.data import storage
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks

VERSION = record_writer.VERSION
SHORT_CLIPS = ('drop', 'loop', 'refuse')


class Clip(NamedTuple):
  """A clip that becomes one record.

  Attributes:
    load: () -> uint8 [n, height, width, 3], called once, when it is written.
    video_id: number of the video that the clip was cut from, over all splits.
    name: name of that video, for people.
    label: class, -1 for none.
    caption: '' for none.
    source: digest of the file that it was cut from; '' where the frames
      themselves are what there is.
    start: its first frame, as the video counts.
  """

  load: Callable[[], np.ndarray]
  video_id: int
  name: str
  label: int = -1
  caption: str = ''
  source: str = ''
  start: int = 0


class Split(NamedTuple):
  """The clips of a split, in order, and a number that they do not exceed."""

  clips: Iterable[Clip]
  at_most: int


def directory(data_dir: str | os.PathLike, name: str, key: str) -> pathlib.Path:
  """Returns the folder of the records of a data set with these settings."""
  return pathlib.Path(data_dir) / name / key / VERSION


def cut_clips(
    num_frames: int, *, clip_frames: int, min_frames: int, short_clips: str
) -> list[np.ndarray]:
  """Returns which frames of a video each of its clips holds.

  Clips follow one another and have `clip_frames` frames; the last one has the
  rest.

  Args:
    num_frames: frames of the video.
    clip_frames: frames of a clip.
    min_frames: frames of the shortest window.
    short_clips: what becomes of a video shorter than min_frames: 'drop' has no
      clip of it, 'loop' starts it over until there are min_frames, 'refuse'
      raises.

  Returns:
    int64 [n] for each clip, n in [1, clip_frames].

  Raises:
    UserError: the video is too short, or has no frames to loop.
  """
  if num_frames < min_frames and short_clips != 'drop':
    if short_clips == 'refuse' or not num_frames:
      raise UserError(
          f'it has {num_frames} frames, fewer than the {min_frames} wanted.'
      )
    frames = np.arange(min_frames) % num_frames
  else:
    frames = np.arange(num_frames if num_frames >= min_frames else 0)
  starts = range(0, len(frames), clip_frames)
  return [frames[start : start + clip_frames] for start in starts]


def pack(
    splits: dict[str, Split],
    *,
    data_dir: str | os.PathLike,
    name: str,
    key: str,
    height: int,
    width: int,
    min_frames: int = 1,
    class_names: tuple[str, ...] = (),
    report: dict[str, Any],
) -> pathlib.Path:
  """Writes `directory(data_dir, name, key)`; it appears only when complete.

  Of several processes one writes, and the others wait for it. What a process
  leaves that is killed, the next one deletes.

  Args:
    splits: split name -> clips, taken one after the other, once; those of a
      video in order.
    data_dir: local folder for prepared data, made where absent.
    name: name of the data set.
    key: digest of the settings and of the content.
    height: rows of all frames.
    width: columns of all frames.
    min_frames: frames of the shortest window.
    class_names: names of the classes, in the order of the labels; () without
      labels.
    report: goes beside the records as report.json when all clips are written,
      with these added: 'clips' and 'frames', each {split: number}, 'shortest',
      the frames of the shortest stretch of video, 'captions', the number of
      clips with one, 'class_names', and 'content', which says by a digest what
      the data are: of all clips in order, the source (or the frames), the
      number of frames, the video, the label and the caption; and the class
      names. 'content_of_clips' is the same without clips of less than
      min_frames frames, which epochs over clips leave out. May grow until then.

  Returns:
    The directory, a prepared TFDS data set.

  Raises:
    UserError: a split has no clips.
    StorageError: data_dir cannot be written.
  """
  target = directory(data_dir, name, key)
  if target.exists():  # the disk may be read-only
    return target
  summary = record_writer.Summary(class_names, min_frames)
  per_shard = record_writer.clips_per_shard(
      max(split.at_most for split in splits.values())
  )
  with storage.writing_to(data_dir), locks.Lock(target.parent, wait=True):
    if target.exists():  # another process was faster
      return target
    files.remove_parts(target.parent)
    with files.writing_folder(target) as place:
      writer = record_writer.Writer(
          place, name=name, key=key, height=height, width=width
      )
      shards = {}
      for split in splits:
        clips = _loaded(split, splits[split].clips, summary)
        shards[split] = []
        for first in clips:
          shards[split].append(writer.write(
              writer.path(split, len(shards[split])),
              itertools.chain([first], itertools.islice(clips, per_shard - 1)),
          ))
        if not shards[split]:
          raise UserError(f'{name} has no clip for the split {split!r}.')
      writer.finish(shards)
      summary.write(place, report)
  return target


def _loaded(split, clips, summary) -> Iterator:
  """(what it holds, its frames) of each clip, which the summary gets too."""
  for clip in clips:
    video = np.asarray(clip.load())
    described = record_writer.Described(
        clip.video_id, clip.name, clip.label, clip.caption
    )
    summary.add(
        split, described, start=clip.start, frames=len(video),
        source=clip.source or hashlib.sha256(video.tobytes()).hexdigest(),
    )
    yield described, video
