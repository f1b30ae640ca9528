"""Packs clips into a TFDS data set of ArrayRecord files.

All data sets on disk are packed here, whatever their origin, so that there is
one form of records, at the training size. `records.VideoRecords` reads it. The
folder of the records appears when it is complete.
"""
from collections.abc import Callable, Iterable
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import record_files
from video_diffusion.data import records
from video_diffusion.data import storage
from video_diffusion.data import stretches as stretches_lib
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks

VERSION = '2.1.0'  # a part of the path: raise it when the records change
MOST_SHARDS = 512  # of a split: a reader keeps them open
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
  report |= {'clips': {}, 'frames': {}, 'captions': 0}
  tables = {}
  content = hashlib.sha256(json.dumps(list(class_names)).encode())
  content_of_clips = content.copy()

  def examples(split):
    stretches, clips, frames = stretches_lib.Collector(), 0, 0
    for clip in splits[split].clips:
      video = np.asarray(clip.load())
      stretches.add(clip.video_id, clip.start, len(video))
      clips, frames = clips + 1, frames + len(video)
      source = clip.source or hashlib.sha256(video.tobytes()).hexdigest()
      line = json.dumps([
          split, source, len(video), clip.video_id, clip.label, clip.caption
      ]).encode()
      content.update(line)
      if len(video) >= min_frames:
        content_of_clips.update(line)
      report['captions'] += bool(clip.caption)
      yield {
          'video': video,
          'file': os.fsencode(clip.name),
          'video_id': clip.video_id,
          'label': clip.label,
          'caption': clip.caption,
      }
    if not clips:
      raise UserError(f'{name} has no clip for the split {split!r}.')
    report['clips'][split], report['frames'][split] = clips, frames
    tables[split] = stretches.table()

  with storage.writing_to(data_dir), locks.Lock(target.parent, wait=True):
    if target.exists():  # another process was faster
      return target
    files.remove_parts(target.parent)
    with files.writing_folder(target) as place:
      _write_records(
          place, splits, examples, name=name, key=key, height=height,
          width=width,
      )
      np.savez(place / records.FILE, **tables)
      report['shortest'] = min(
          int(table[:, stretches_lib.FRAMES].min()) for table in tables.values()
      )
      as_text = lambda sha: f'{mixture_lib.CONTENT}{sha.hexdigest()[:32]}'
      report['content'] = as_text(content)
      report['content_of_clips'] = as_text(content_of_clips)
      report['class_names'] = list(class_names)
      (place / 'report.json').write_text(json.dumps(report, indent=1))
  return target


def _write_records(place, splits, examples, *, name, key, height, width):
  """Writes `examples(split)` of all splits as a prepared TFDS data set."""
  with record_files.quiet_tfds() as tfds:
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
    serializer = tfds.core.example_serializer.ExampleSerializer(
        info.features.get_serialized_info()
    )
    longest = max(split.at_most for split in splits.values())
    per_shard = max(256, -(-longest // MOST_SHARDS))
    found = []
    for split in splits:
      template = tfds.core.ShardedFileTemplate(
          dataset_name=name,
          data_dir=place,
          split=split,
          filetype_suffix='array_record',
          template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}',
      )
      # The fields of a record in one order, whichever process writes it.
      records_of_split = (
          serializer.get_tf_example(info.features.encode_example(example))
          .SerializeToString(deterministic=True)
          for example in examples(split)
      )
      lengths, size = _write_shards(records_of_split, template, per_shard)
      found.append(tfds.core.SplitInfo(
          name=split, shard_lengths=lengths, num_bytes=size,
          filename_template=template,
      ))
    info.set_file_format('array_record')
    info.set_splits(tfds.core.splits.SplitDict(found))
    info.write_to_directory(place)


def _write_shards(serialized, template, per_shard) -> tuple[list[int], int]:
  """Writes records in shards; returns their lengths, and the bytes of all.

  Not by TFDS's builder: beyond 1 GB that sorts the clips on disk, which takes
  their space once more, uncompressed. Nor by its SequentialWriter, whose
  records have their fields in an order that differs between processes.
  """
  from array_record.python import array_record_module

  lengths, size, serialized = [], 0, iter(serialized)
  for first in serialized:
    path = template.sharded_filepath(
        shard_index=len(lengths), num_shards=None
    )
    writer = array_record_module.ArrayRecordWriter(
        os.fspath(path), 'group_size:1'
    )
    lengths.append(0)
    for record in itertools.chain(
        [first], itertools.islice(serialized, per_shard - 1)
    ):
      writer.write(record)
      lengths[-1] += 1
      size += len(record)
    writer.close()
  return lengths, size
