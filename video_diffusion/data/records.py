"""Prepared records, read by id without tf.data."""
from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
from typing import Any

import numpy as np

from video_diffusion.data import mixing
from video_diffusion.data import sides
from video_diffusion.errors import UserError


class VideoRecords:
  """Clips of a prepared data set, read by id.

  Safe to call from several threads at once. Reading a frame means reading its
  clip: clips not much longer than the windows are the fastest.

  Attributes:
    num_examples: number of clips.
    num_groups: number of videos that they were cut from.
    frame_size: (height, width).
    shortest: frames of the shortest clip of all splits.
    class_names: what the labels mean, () without labels.
    label_sizes: (number of classes,), () without labels.
    fingerprint: 'content' of the report, see `packing.pack`; of records that
      were made before there was one, a digest of the report, hence of the
      numbers of files, clips and frames alone.
  """

  def __init__(self, directory: str | os.PathLike, split: str):
    """Opens the records.

    Args:
      directory: what `packing.pack` returned.
      split: 'train' or 'test'.

    Raises:
      UserError: `directory` holds no prepared records, or no such split.
    """
    directory = pathlib.Path(directory)
    video_ids_file = directory / 'video_ids.npz'
    if not video_ids_file.exists():
      raise UserError(
          f'{directory} holds no records of this package (no video_ids.npz); '
          'give a directory that --mode=prepare named.'
      )
    with np.load(video_ids_file) as video_ids:
      if split not in video_ids:
        raise UserError(
            f'{directory} holds no split {split!r}; it has '
            f'{", ".join(video_ids)}.'
        )
      self._video_ids = video_ids[split]
    with quiet_tfds() as tfds:
      builder = tfds.builder_from_directory(os.fspath(directory))
      # ArrayRecord's reader takes concurrent reads, hence there is no lock.
      self._records = builder.as_data_source(split)
    self.num_examples = len(self._records)
    self.num_groups = len(np.unique(self._video_ids))
    self.frame_size = tuple(builder.info.features['video'].shape[1:3])
    content = (directory / 'report.json').read_bytes()
    self._directory, self._split = directory, split
    self._report = json.loads(content)
    self.fingerprint = self._report.get(
        'content', hashlib.sha256(content).hexdigest()[:16]
    )
    self.shortest = self._report['shortest']
    self.class_names = tuple(self._report['class_names'])
    self.label_sizes = (len(self.class_names),) if self.class_names else ()

  @property
  def summary(self) -> dict[str, Any]:
    """What there is, for a table: name -> number or text.

    clips and frames of this split; seconds (None where the origin has no
    clock), size 'height x width' of the stored frames, and videos skipped and
    missing, over all splits.
    """
    height, width = self.frame_size
    return {
        'clips': self.num_examples,
        'frames': self._report['frames'][self._split],
        'seconds': self._report.get('seconds'),
        'size': f'{height} x {width}',
        'skipped': len(self._report.get('skipped', ())),
        'missing': self._report.get('missing', 0),
    }

  @property
  def clips_without_caption(self) -> int:
    """Clips of all splits without a caption; 0 where none has one."""
    captions = self._report['captions']
    return captions and sum(self._report['clips'].values()) - captions

  def sides(self) -> sides.Found:
    """Captions of all splits that name a side."""
    # Records that were made before they were counted are read.
    found = self._report.get('captions_naming_sides')
    return sides.Found(*found) if found else sides.find(self.captions())

  def example(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> dict[str, Any]:
    """A random window of clip `index`.

    Args:
      index: in [0, num_examples).
      rng: draws the window, see `mixing.window`, and nothing else.
      num_frames: of the window.
      frameskips: distances of its frames to draw from.

    Returns:
      'video': uint8 [num_frames, height, width, 3], a copy; where the data set
      has classes, 'labels': int32 [1], -1 for none; where a clip of the data
      set has a caption, 'caption': str, '' for none.

    Raises:
      UserError: the clip is too short.
    """
    record = self._records[index]
    clip = record['video']
    try:
      frames = mixing.window(rng, len(clip), num_frames, frameskips)
    except UserError as error:
      raise UserError(f'{os.fsdecode(record["file"])}: {error}') from error
    example = {'video': clip[frames]}
    if self.label_sizes:
      example['labels'] = np.array([record['label']], np.int32)
    if self._report['captions']:
      example['caption'] = record['caption'].decode()
    return example

  def captions(self) -> Iterator[str]:
    """The caption of each clip; nothing where the data set has none."""
    if not self._report['captions']:
      return
    with quiet_tfds() as tfds:
      builder = tfds.builder_from_directory(os.fspath(self._directory))
      # The whole record is read, but no frame unpacked.
      found = builder.as_data_source(
          self._split, decoders={'video': tfds.decode.SkipDecoding()}
      )
    for i in range(self.num_examples):
      yield found[i]['caption'].decode()

  def length(self, index: int) -> int:
    """The number of frames of clip `index`."""
    return len(self._records[index]['video'])

  def group(self, index: int) -> int:
    """The number of the video that clip `index` was cut from."""
    return int(self._video_ids[index])


@contextlib.contextmanager
def quiet_tfds() -> Iterator:
  """Yields tensorflow_datasets, silent but for errors."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  logger = logging.getLogger('absl')  # to which TFDS logs
  level = logger.level
  logger.setLevel(logging.ERROR)  # it warns of its being given a config
  try:
    # It announces its work by print().
    with contextlib.redirect_stdout(io.StringIO()):
      yield tfds
  finally:
    logger.setLevel(level)
