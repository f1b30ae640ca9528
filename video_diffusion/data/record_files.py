"""Opens the files of prepared records, which may come from another person."""
from collections.abc import Iterator
import contextlib
import io
import json
import logging
import os
from typing import Any

from etils import epath

from video_diffusion.errors import UserError

# The features of a record, in groups that are read together.
PIXELS = frozenset({'video'})
TEXTS = frozenset({'label', 'caption'})
REST = frozenset({'file', 'video_id'})
# Modules whose import does nothing but define features.
_FEATURES = 'tensorflow_datasets.core.features.'


def read_report(directory: epath.Path, split: str) -> dict[str, Any]:
  """Returns the content of report.json, which has what `records` takes of it.

  Raises:
    UserError: the file is damaged, or there is no such split.
  """
  try:
    report = json.loads((directory / 'report.json').read_bytes())
    _check_report(report)
  except (OSError, ValueError) as error:
    raise damaged(directory, error) from error
  if split not in report['clips'] or split not in report['frames']:
    raise UserError(
        f'{directory} holds no split {split!r}; it has '
        f'{", ".join(report["clips"])}.'
    )
  return report


def _check_report(report) -> None:
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
  counts = [*report['clips'].values(), *report['frames'].values()]
  if not all(isinstance(count, int) for count in counts):
    raise ValueError('report.json has no numbers of clips')
  if not all(isinstance(name, str) for name in report['class_names']):
    raise ValueError('report.json has class_names that are no text')
  if [*map(type, report['captions_naming_sides'])] != [int, str]:
    raise ValueError('report.json has no captions_naming_sides')


class Records:
  """The records of a split, by number.

  Safe to call from several threads at once.

  Attributes:
    frame_size: (height, width) of their frames.
  """

  def __init__(self, directory: epath.Path, split: str):
    """Opens the files.

    Args:
      directory: what `packing.pack` returned.
      split: name of the split.

    Raises:
      UserError: the files are damaged.
    """
    self._directory, self._split = directory, split
    try:
      self.frame_size = _check_tfds_files(directory)
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise damaged(directory, error) from error
    with quiet_tfds() as tfds:
      try:
        builder = tfds.builder_from_directory(os.fspath(directory))
        # ArrayRecord's reader takes concurrent reads, hence there is no lock.
        self._packed = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        len(self._packed)  # which opens the files
        every = builder.info.features
        # PartialDecoding of TFDS would do the same, but imports TensorFlow.
        self._features = {
            names: tfds.features.FeaturesDict({n: every[n] for n in names})
            for names in (PIXELS, TEXTS, PIXELS | TEXTS, PIXELS | TEXTS | REST)
        }
      # TFDS, protobuf and ArrayRecord fail each in their own way.
      except Exception as error:
        raise damaged(directory, error) from error

  def __len__(self):
    return len(self._packed)

  def read(
      self, number: int, names: frozenset[str] = PIXELS | TEXTS | REST
  ) -> dict[str, Any]:
    """Returns features of a record; a third of the time goes into unused ones.

    Args:
      number: number of the record.
      names: PIXELS, TEXTS, PIXELS | TEXTS, or all features.

    Raises:
      UserError: the record is damaged.
    """
    try:
      packed = self._packed[int(number)]
    except RuntimeError as error:  # of ArrayRecord, whose files have checksums
      reason = f'record {number} of {self._split!r}: {error}'
      raise damaged(self._directory, reason) from error
    return self._features[names].deserialize_example_np(packed)


def _check_tfds_files(directory: epath.Path) -> tuple[int, int]:
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


def damaged(directory: epath.Path, reason: Exception | str) -> UserError:
  """Returns the error that says why records cannot be read."""
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
