"""Packs clips into a TFDS data set of ArrayRecord files, whole or not at all.

Every data set that lies on disk ends here, and `records.VideoRecords` reads it:
one form of records, at the training size, whatever the origin.
"""
from collections.abc import Callable, Iterable
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple
import uuid

import numpy as np

from video_diffusion.data import records
from video_diffusion.errors import UserError

VERSION = '2.0.0'  # a part of the path: raise it when the records change
MOST_SHARDS = 512  # of a split: a reader keeps them open
SHORT_CLIPS = ('drop', 'loop', 'refuse')


class Clip(NamedTuple):
  """One record to be.

  Attributes:
    load: () -> uint8 [n, height, width, 3], called once, when it is written.
    video_id: number of the video that the clip was cut from, over all splits.
    name: of that video, for people.
    label: class, -1 for none.
    caption: '' for none.
  """

  load: Callable[[], np.ndarray]
  video_id: int
  name: str
  label: int = -1
  caption: str = ''


class Split(NamedTuple):
  """The clips of a split, in order, and a number that they do not exceed."""

  clips: Iterable[Clip]
  at_most: int


def directory(data_dir: str | os.PathLike, name: str, key: str) -> pathlib.Path:
  """Where the records of a data set and its settings' digest lie."""
  return pathlib.Path(data_dir) / name / key / VERSION


def cut_clips(
    num_frames: int, *, clip_frames: int, min_frames: int, short_clips: str
) -> list[np.ndarray]:
  """Which frames of a video its clips hold.

  Clips follow one another and have `clip_frames` frames; a rest of at least
  `min_frames` is a shorter clip, and less than that is left out.

  Args:
    num_frames: of the video.
    clip_frames: frames of a clip, at least min_frames.
    min_frames: of the shortest clip.
    short_clips: what becomes of a video shorter than min_frames: 'drop' has no
      clip of it, 'loop' starts it over until there are min_frames, 'refuse'
      raises.

  Returns:
    int64 [n] for each clip, n in [min_frames, clip_frames].

  Raises:
    UserError: the video is too short, or has no frames to loop.
  """
  if num_frames < min_frames and short_clips != 'drop':
    if short_clips == 'refuse' or not num_frames:
      raise UserError(
          f'it has {num_frames} frames, fewer than the {min_frames} wanted.'
      )
    return [np.arange(min_frames) % num_frames]
  clips = [
      np.arange(start, min(start + clip_frames, num_frames))
      for start in range(0, num_frames, clip_frames)
  ]
  return [clip for clip in clips if len(clip) >= min_frames]


def pack(
    splits: dict[str, Split],
    *,
    data_dir: str | os.PathLike,
    name: str,
    key: str,
    height: int,
    width: int,
    class_names: tuple[str, ...] = (),
    report: dict[str, Any],
) -> pathlib.Path:
  """Writes `directory(data_dir, name, key)`; it appears only when complete.

  A process that is killed leaves a folder '...incomplete...' beside it, which
  can be deleted.

  Args:
    splits: split name -> clips, taken one after the other, once.
    data_dir: local folder for prepared data, made where absent.
    name: of the data set.
    key: digest of the settings and of the content.
    height: rows of all frames.
    width: columns of all frames.
    class_names: what the labels mean; () where there are none.
    report: goes beside the records as report.json when all clips are written,
      with these added: 'clips' and 'frames', each {split: number}, 'shortest',
      the frames of the shortest clip, 'captions', the number of clips with one,
      and 'class_names'. May grow until then.

  Returns:
    The directory, a prepared TFDS data set.

  Raises:
    UserError: a split has no clips.
  """
  target = directory(data_dir, name, key)
  report |= {'clips': {}, 'frames': {}, 'captions': 0}
  video_ids = {}

  def examples(split):
    ids, frames = [], 0
    for clip in splits[split].clips:
      video = np.asarray(clip.load())
      ids.append(clip.video_id)
      frames += len(video)
      report['captions'] += bool(clip.caption)
      report['shortest'] = min(len(video), report.get('shortest', len(video)))
      yield {
          'video': video,
          'file': os.fsencode(clip.name),
          'video_id': clip.video_id,
          'label': clip.label,
          'caption': clip.caption,
      }
    if not ids:
      raise UserError(f'{name} has no clip for the split {split!r}.')
    report['clips'][split], report['frames'][split] = len(ids), frames
    video_ids[split] = np.array(ids, np.int32)

  target.parent.mkdir(parents=True, exist_ok=True)
  place = target.with_name(f'{VERSION}.incomplete-{uuid.uuid4().hex}')
  place.mkdir()
  try:
    with records.quiet_tfds() as tfds:
      info = tfds.core.DatasetInfo(
          builder=tfds.core.DatasetIdentity(
              name=name,
              version=tfds.core.Version(VERSION),
              data_dir=os.fspath(place),
              module_name='',
              config_name=key,
          ),
          description=f'Clips of {name} at the training size.',
          features=tfds.features.FeaturesDict({
              'video': tfds.features.Tensor(
                  shape=(None, height, width, 3),
                  dtype=np.uint8,
                  encoding='bytes',
              ),
              'file': tfds.features.Text(),
              'video_id': np.int32,
              'label': np.int32,
              'caption': tfds.features.Text(),
          }),
          disable_shuffling=True,  # record i is clip i of its split
      )
      # Not TFDS's usual builder: beyond 1 GB that sorts the clips on disk,
      # which takes their space once more, uncompressed.
      longest = max(split.at_most for split in splits.values())
      writer = tfds.core.SequentialWriter(
          info,
          max_examples_per_shard=max(256, -(-longest // MOST_SHARDS)),
          file_format='array_record',
      )
      writer.initialize_splits(list(splits))
      for split in splits:
        writer.add_examples({split: examples(split)})
      writer.close_all()
    np.savez(place / 'video_ids.npz', **video_ids)
    content = report | {'class_names': list(class_names)}
    (place / 'report.json').write_text(json.dumps(content, indent=1))
    place.rename(target)
  except OSError:
    # Another process prepared the same meanwhile and was faster.
    if not target.exists():
      raise
  finally:
    shutil.rmtree(place, ignore_errors=True)
  return target
