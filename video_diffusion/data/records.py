"""Prepared records, read by id without tf.data."""
from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import io
import logging
import os
import pathlib

import numpy as np

from video_diffusion.data import pipeline


class VideoRecords:
  """Clips of a prepared folder of videos, read by id.

  Safe to call from several threads at once.

  Attributes:
    num_examples: number of clips.
    num_groups: number of video files that they were cut from.
    fingerprint: digest of the numbers of files, clips and frames, and of what
      was skipped.
  """

  def __init__(self, directory: str | os.PathLike, split: str):
    """Opens the records.

    Args:
      directory: what `prepare` returned.
      split: 'train' or 'test'.

    Raises:
      ValueError: `directory` holds no prepared records, or no such split.
    """
    directory = pathlib.Path(directory)
    video_ids_file = directory / 'video_ids.npz'
    if not video_ids_file.exists():
      raise ValueError(
          f'{directory} holds no prepared folder of videos: give the '
          'directory that video_folder.prepare returned')
    with np.load(video_ids_file) as video_ids:
      if split not in video_ids:
        raise ValueError(
            f'{directory} holds no split {split!r}: choose one of '
            f'{", ".join(video_ids)}')
      self._video_ids = video_ids[split]
    with quiet_tfds() as tfds:
      # ArrayRecord's reader takes concurrent reads, hence there is no lock.
      self._records = tfds.builder_from_directory(
          os.fspath(directory)).as_data_source(split)
    self.num_examples = len(self._records)
    report = (directory / 'report.json').read_bytes()
    self.fingerprint = hashlib.sha256(report).hexdigest()[:16]
    self.num_groups = len(np.unique(self._video_ids))

  def example(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> dict[str, np.ndarray]:
    """A random window of clip `index`.

    Args:
      index: in [0, num_examples).
      rng: draws the window, see `pipeline.window`, and nothing else.
      num_frames: of the window.
      frameskips: distances of its frames to draw from.

    Returns:
      {'video': uint8 [num_frames, height, width, 3]}, a copy.

    Raises:
      ValueError: the clip is too short.
    """
    record = self._records[index]
    clip = record['video']
    try:
      frames = pipeline.window(rng, len(clip), num_frames, frameskips)
    except ValueError as error:
      raise ValueError(f'{os.fsdecode(record["file"])}: {error}') from error
    return {'video': clip[frames]}

  def length(self, index: int) -> int:
    """The number of frames of clip `index`."""
    return len(self._records[index]['video'])

  def group(self, index: int) -> int:
    """Returns the number of the file that clip `index` was cut from."""
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
