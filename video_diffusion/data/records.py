"""Reads prepared records by id, without tf.data."""
from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import sides
from video_diffusion.errors import UserError

# Modules whose import does nothing but define features.
_FEATURES = 'tensorflow_datasets.core.features.'


class VideoRecords:
  """Clips of a prepared data set, read by id.

  Safe to call from several threads at once. Reading a frame means reading its
  clip: clips not much longer than the windows are the fastest.

  Attributes:
    num_examples: number of clips.
    num_groups: number of videos that they were cut from.
    frame_size: (height, width).
    shortest: frames of the shortest clip of all splits.
    class_names: names of the classes, in the order of the labels; () without
      labels.
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
      UserError: `directory` holds no prepared records, or no such split, or
        they are damaged.
    """
    directory = pathlib.Path(directory)
    video_ids_file = directory / 'video_ids.npz'
    if not video_ids_file.exists():
      raise UserError(
          f'{directory} holds no records of this package (no video_ids.npz); '
          'give a directory that --mode=prepare named.'
      )
    self._directory, self._split = directory, split
    try:
      with np.load(video_ids_file) as video_ids:
        if split not in video_ids:
          raise UserError(
              f'{directory} holds no split {split!r}; it has '
              f'{", ".join(video_ids)}.'
          )
        self._video_ids = video_ids[split]
      content = (directory / 'report.json').read_bytes()
      self._report = json.loads(content)
      _check_report(self._report, split)
    except UserError:
      raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
      raise _damaged(directory, error) from error
    self._records, self.frame_size = _open(directory, split)
    if self._video_ids.shape != (len(self._records),):
      raise _damaged(directory, 'video_ids.npz is of other records')
    self.num_examples = len(self._records)
    self.num_groups = len(np.unique(self._video_ids))
    self.fingerprint = self._report.get(
        'content', hashlib.sha256(content).hexdigest()[:16]
    )
    self.shortest = self._report['shortest']
    self.class_names = tuple(self._report['class_names'])
    self.label_sizes = (len(self.class_names),) if self.class_names else ()

  @property
  def summary(self) -> dict[str, Any]:
    """The numbers of clips and frames, and more, for a table: name -> value.

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
    """Number of clips of all splits without a caption; 0 if no clip has one."""
    captions = self._report['captions']
    return captions and sum(self._report['clips'].values()) - captions

  def sides(self) -> sides.Found:
    """Returns the captions of all splits that name a side."""
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
    """Returns a random window of clip `index`.

    Args:
      index: number of the clip, in [0, num_examples).
      rng: draws the window, see `mixing.window`, and nothing else.
      num_frames: frames of the window.
      frameskips: distances of its frames to draw from.

    Returns:
      'video': uint8 [num_frames, height, width, 3], a copy; where the data set
      has classes, 'labels': int32 [1], -1 for none; where a clip of the data
      set has a caption, 'caption': str, '' for none.

    Raises:
      UserError: the clip is too short, or the records are damaged.
    """
    record = self._read(self._records, index)
    clip = record['video']
    try:
      frames = mixture_lib.window(rng, len(clip), num_frames, frameskips)
    except UserError as error:
      raise UserError(f'{os.fsdecode(record["file"])}: {error}') from error
    example = {'video': clip[frames]}
    if self.label_sizes:
      example['labels'] = np.array([record['label']], np.int32)
    if self._report['captions']:
      example['caption'] = record['caption'].decode()
    return example

  def captions(self) -> Iterator[str]:
    """Yields the caption of each clip; yields nothing without captions."""
    if not self._report['captions']:
      return
    # The whole record is read, but no frame unpacked.
    found, _ = _open(self._directory, self._split, skip='video')
    for i in range(self.num_examples):
      yield self._read(found, i)['caption'].decode()

  def length(self, index: int) -> int:
    """Returns the number of frames of clip `index`."""
    return len(self._read(self._records, index)['video'])

  def group(self, index: int) -> int:
    """Returns the number of the video that clip `index` was cut from."""
    return int(self._video_ids[index])

  def _read(self, opened, index):
    try:
      return opened[index]
    except RuntimeError as error:  # of ArrayRecord, whose files have checksums
      reason = f'record {index} of {self._split!r}: {error}'
      raise _damaged(self._directory, reason) from error


def _check_report(report, split: str) -> None:
  """Raises ValueError for a report that lacks what `VideoRecords` takes."""
  if not isinstance(report, dict):
    raise ValueError('report.json is no JSON object')
  report = {'skipped': [], 'captions_naming_sides': [0, '']} | report
  wanted = {
      'shortest': int, 'captions': int, 'class_names': list, 'clips': dict,
      'frames': dict, 'skipped': list, 'captions_naming_sides': list,
  }
  for name, kind in wanted.items():
    if not isinstance(report.get(name), kind):
      raise ValueError(f'report.json has no {name}')
  counts = [*report['clips'].values(), report['frames'].get(split)]
  if not all(isinstance(count, int) for count in counts):
    raise ValueError(f'report.json has no numbers of clips of {split!r}')
  if not all(isinstance(name, str) for name in report['class_names']):
    raise ValueError('report.json has class_names that are no text')
  if [*map(type, report['captions_naming_sides'])] != [int, str]:
    raise ValueError('report.json has no captions_naming_sides')


def _open(directory: pathlib.Path, split: str, skip: str = ''):
  """(records by id, (height, width)); the feature `skip` is not decoded."""
  try:
    height, width = _check_tfds_files(directory)
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise _damaged(directory, error) from error
  with quiet_tfds() as tfds:
    decoders = {skip: tfds.decode.SkipDecoding()} if skip else None
    try:
      builder = tfds.builder_from_directory(os.fspath(directory))
      # ArrayRecord's reader takes concurrent reads, hence there is no lock.
      opened = builder.as_data_source(split, decoders=decoders)
      len(opened)  # which opens the files
    # TFDS, protobuf and ArrayRecord fail each in their own way.
    except Exception as error:
      raise _damaged(directory, error) from error
  return opened, (height, width)


def _check_tfds_files(directory: pathlib.Path) -> tuple[int, int]:
  """(height, width) of records in which TFDS finds nothing but records.

  TFDS imports the modules that features.json names, and opens the files that
  dataset_info.json names. Records may come from another person: neither may
  lead out of TFDS or out of the directory.

  Raises:
    OSError, ValueError, TypeError, KeyError: the files are not as `packing`
      writes them.
  """
  features = json.loads((directory / 'features.json').read_bytes())
  classes = list(_values(features, 'pythonClassName'))
  if not all(str(name).startswith(_FEATURES) for name in classes):
    raise ValueError('features.json names classes that are not of TFDS')
  info = json.loads((directory / 'dataset_info.json').read_bytes())
  paths = [info['name'], *_values(info, 'filepathTemplate')]
  if any('/' in str(path) or '\\' in str(path) for path in paths):
    raise ValueError('dataset_info.json names files elsewhere')
  video = features['featuresDict']['features']['video']
  _, height, width, channels = map(int, video['tensor']['shape']['dimensions'])
  if channels != 3:
    raise ValueError(f'features.json has videos of {channels} channels')
  return height, width


def _values(tree, key: str) -> Iterator[Any]:
  """All values that have a key, at any depth."""
  if isinstance(tree, dict):
    for name, value in tree.items():
      if name == key:
        yield value
      yield from _values(value, key)
  elif isinstance(tree, list):
    for value in tree:
      yield from _values(value, key)


def _damaged(directory, reason) -> UserError:
  if isinstance(reason, KeyError):
    reason = f'{reason} is missing'
  reason = str(reason).strip().partition('\n')[0]
  return UserError(
      f'{directory} holds damaged records ({reason}); delete the folder and '
      'prepare the data again, or copy the folder again.'
  )


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
