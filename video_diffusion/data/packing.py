"""Packs clips into a TFDS data set of ArrayRecord files, whole or not at all.

Every data set that lies on disk ends here, and `records.VideoRecords` reads it:
one form of records, at the training size, whatever the origin.
"""
from collections.abc import Callable, Iterable
import json
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import records

VERSION = '2.0.0'  # a part of the path: raise it when the records change
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
    ValueError: the video is too short, or has no frames to loop.
  """
  if num_frames < min_frames and short_clips != 'drop':
    if short_clips == 'refuse' or not num_frames:
      raise ValueError(
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

  Args:
    splits: split name -> clips, taken one after the other, once.
    data_dir: local folder for prepared data, made where absent.
    name: of the data set.
    key: digest of the settings and of the content.
    height: rows of all frames.
    width: columns of all frames.
    class_names: what the labels mean; () where there are none.
    report: goes beside the records as report.json when all clips are written,
      with 'clips' and 'frames' added: {split: number}. May grow until then.

  Returns:
    The directory, a prepared TFDS data set.

  Raises:
    ValueError: a split has no clips.
  """
  target = directory(data_dir, name, key)
  report['clips'], report['frames'], video_ids = {}, {}, {}
  with records.quiet_tfds() as tfds:

    # Not registered: the class is defined anew in each call.
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      """Writes clips that are decoded already."""

      VERSION = tfds.core.Version(VERSION)

      def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
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

      def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, *members)
            for split, members in splits.items()
        }

      def _generate_examples(self, split, clips, at_most):
        # Beyond 1 GB TFDS sorts on disk, in 1000 buckets of equal ranges of
        # the key's 128 bits, each read into memory whole. Small keys would
        # all be in the first.
        step = 2**128 // at_most
        ids, frames = [], 0
        for i, clip in enumerate(clips):
          video = np.asarray(clip.load())
          ids.append(clip.video_id)
          frames += len(video)
          yield i * step, {
              'video': video,
              'file': os.fsencode(clip.name),
              'video_id': clip.video_id,
              'label': clip.label,
              'caption': clip.caption,
          }
        if not ids:
          raise ValueError(f'{name} has no clip for the split {split!r}.')
        report['clips'][split], report['frames'][split] = len(ids), frames
        video_ids[split] = np.array(ids, np.int32)
        if len(video_ids) == len(splits):
          # TFDS renames its directory when all is written: so these files
          # come into being together with the records.
          place = pathlib.Path(self.data_dir)
          np.savez(place / 'video_ids.npz', **video_ids)
          content = report | {'class_names': list(class_names)}
          (place / 'report.json').write_text(json.dumps(content, indent=1))

    Builder.name = name
    pathlib.Path(data_dir).mkdir(parents=True, exist_ok=True)
    builder = Builder(
        data_dir=data_dir, config=tfds.core.BuilderConfig(name=key)
    )
    # Nothing is downloaded, yet TFDS makes the folder for it.
    with tempfile.TemporaryDirectory() as downloads:
      try:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False,
                compute_stats=tfds.download.ComputeStatsMode.SKIP,
            ),
            file_format='array_record',
        )
      except OSError:
        # Another process prepared the same meanwhile and was faster.
        if not target.exists():
          raise
  return target
