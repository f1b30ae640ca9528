"""Writes the files of prepared records: shards, and what describes them."""
from collections.abc import Iterable, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import record_files
from video_diffusion.data import records
from video_diffusion.data import stretches as stretches_lib

VERSION = '2.1.0'  # a part of the path: raise it when the records change
MOST_SHARDS = 512  # of a split: a reader keeps them open
FEWEST_CLIPS = 256  # of a shard


class Described(NamedTuple):
  """What a record holds beside its frames; see `packing.Clip`."""

  video_id: int
  name: str
  label: int
  caption: str


class Shard(NamedTuple):
  """A shard that was written.

  Attributes:
    clips: number of its records.
    size: bytes of these before compression.
  """

  clips: int
  size: int


def clips_per_shard(at_most: int) -> int:
  """Returns the clips of a shard, for splits of so many clips at most."""
  return max(FEWEST_CLIPS, -(-at_most // MOST_SHARDS))


class Summary:
  """Collects what the report and the table of videos say of the clips."""

  def __init__(self, class_names: Sequence[str], min_frames: int):
    """Begins without clips; the arguments are those of `packing.pack`."""
    self._class_names, self._min_frames = list(class_names), min_frames
    self._stretches: dict[str, stretches_lib.Collector] = {}
    self._clips: dict[str, int] = {}
    self._frames: dict[str, int] = {}
    self._captions = 0
    self._content = hashlib.sha256(json.dumps(self._class_names).encode())
    self._content_of_clips = self._content.copy()

  def add(
      self, split: str, clip: Described, *, source: str, start: int, frames: int
  ) -> None:
    """Adds the next clip; those of a split follow one another."""
    collector = self._stretches.setdefault(split, stretches_lib.Collector())
    collector.add(clip.video_id, start, frames)
    self._clips[split] = self._clips.get(split, 0) + 1
    self._frames[split] = self._frames.get(split, 0) + frames
    self._captions += bool(clip.caption)
    line = json.dumps(
        [split, source, frames, clip.video_id, clip.label, clip.caption]
    ).encode()
    self._content.update(line)
    if frames >= self._min_frames:
      self._content_of_clips.update(line)

  def write(self, place: pathlib.Path, report: dict[str, Any]) -> None:
    """Writes videos.npz and report.json, which `report` goes into."""
    tables = {name: each.table() for name, each in self._stretches.items()}
    np.savez(place / records.FILE, **tables)
    as_text = lambda sha: f'{mixture_lib.CONTENT}{sha.hexdigest()[:32]}'
    report = report | {
        'clips': self._clips,
        'frames': self._frames,
        'captions': self._captions,
        'shortest': min(
            int(table[:, stretches_lib.FRAMES].min())
            for table in tables.values()
        ),
        'content': as_text(self._content),
        'content_of_clips': as_text(self._content_of_clips),
        'class_names': self._class_names,
    }
    (place / 'report.json').write_text(json.dumps(report, indent=1))


class Writer:
  """Writes the shards of a data set as a prepared TFDS data set.

  Not by TFDS's builder: beyond 1 GB that sorts the clips on disk, which takes
  their space once more, uncompressed. Nor by its SequentialWriter, whose
  records have their fields in an order that differs between processes.
  """

  def __init__(
      self, place: pathlib.Path, *, name: str, key: str, height: int, width: int
  ):
    """Prepares to write; writes nothing yet.

    Args:
      place: folder of the records.
      name: name of the data set.
      key: name of its settings.
      height: rows of all frames.
      width: columns of all frames.
    """
    self._place, self._name = place, name
    with record_files.quiet_tfds() as tfds:
      self._info = tfds.core.DatasetInfo(
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
      self._serializer = tfds.core.example_serializer.ExampleSerializer(
          self._info.features.get_serialized_info()
      )

  def path(self, split: str, index: int) -> pathlib.Path:
    """Returns the path of a shard."""
    with record_files.quiet_tfds() as tfds:
      template = self._template(tfds, split)
      return pathlib.Path(
          template.sharded_filepath(shard_index=index, num_shards=None)
      )

  def write(
      self,
      path: pathlib.Path,
      clips: Iterable[tuple[Described, np.ndarray]],
  ) -> Shard:
    """Writes a shard of (what it holds, uint8 [n, height, width, 3])."""
    from array_record.python import array_record_module

    count, size = 0, 0
    writer = array_record_module.ArrayRecordWriter(
        os.fspath(path), 'group_size:1'
    )
    for clip, video in clips:
      example = self._info.features.encode_example({
          'video': video,
          'file': os.fsencode(clip.name),
          'video_id': clip.video_id,
          'label': clip.label,
          'caption': clip.caption,
      })
      # The fields of a record in one order, whichever process writes it.
      record = self._serializer.get_tf_example(example).SerializeToString(
          deterministic=True
      )
      writer.write(record)
      count, size = count + 1, size + len(record)
    writer.close()
    return Shard(count, size)

  def finish(self, shards: dict[str, list[Shard]]) -> None:
    """Writes TFDS's description of the shards of all splits."""
    with record_files.quiet_tfds() as tfds:
      self._info.set_file_format('array_record')
      self._info.set_splits(tfds.core.splits.SplitDict([
          tfds.core.SplitInfo(
              name=split,
              shard_lengths=[shard.clips for shard in found],
              num_bytes=sum(shard.size for shard in found),
              filename_template=self._template(tfds, split),
          )
          for split, found in shards.items()
      ]))
      self._info.write_to_directory(self._place)

  def _template(self, tfds, split):
    return tfds.core.ShardedFileTemplate(
        dataset_name=self._name,
        data_dir=self._place,
        split=split,
        filetype_suffix='array_record',
        template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}',
    )
