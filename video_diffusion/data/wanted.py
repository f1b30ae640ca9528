"""What a source of videos is asked for, and where its records are."""
from collections.abc import Sequence
import os
from typing import NamedTuple

from etils import epath

from video_diffusion.data import limits as limits_lib
from video_diffusion.data import records
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.filesystem import files


class Wanted(NamedTuple):
  """What a source is asked for, whatever the data set.

  Attributes:
    split: 'train' or 'test'.
    frames: T, frames of a window.
    height: rows of a frame.
    width: columns of a frame.
    seed: seed of data sets that are made at random.
    frameskips: distances of frames that windows of the clips may have.
    limits: limits of a video or image file.
  """

  split: str
  frames: int
  height: int
  width: int
  seed: int
  frameskips: Sequence[int]
  limits: limits_lib.Limits

  @property
  def min_frames(self) -> int:
    """Frames that the shortest window spans; shorter clips are of no use."""
    return (self.frames - 1) * min(self.frameskips) + 1

  @property
  def max_frames(self) -> int:
    """Frames that the longest window spans."""
    return (self.frames - 1) * max(self.frameskips) + 1

  def require_length(self, clip_frames: int) -> None:
    """Raises ArgumentError if no clip is as long as the shortest window."""
    if clip_frames < self.min_frames:
      raise ArgumentError(
          Argument('clip_frames'), f' is {clip_frames}; it must be at least '
          f'{self.min_frames}, for ', Argument('frames'), ' at the least of ',
          Argument('frameskips'), '.',
      )


def given_path(path: str, what: str) -> str:
  """The path of a data set; raises ArgumentError if it is empty.

  Args:
    path: local; may begin with ~.
    what: what to give, for the error.
  """
  if not path:
    raise ArgumentError(Argument('path'), f' is empty; set it to {what}.')
  return files.expand(path, Argument('path'))


def open_records(
    directory: os.PathLike, wanted: Wanted, epoch: str = 'videos'
) -> records.VideoRecords:
  """The records in a directory, with epochs over what `epoch` says."""
  return records.VideoRecords(
      directory, wanted.split, epoch=epoch, min_frames=wanted.min_frames
  )


def stored_records(
    path: str, wanted: Wanted, epoch: str = 'videos'
) -> records.VideoRecords | None:
  """The records at a path that is a directory of records, else None.

  Raises:
    ArgumentError: their frames have another size, or their videos are too
      short.
  """
  path = files.expand(path, Argument('path'), bucket=True)
  directory = epath.Path(path)
  info = directory / 'dataset_info.json'
  # If the system refuses the path, the builder of the data set says so.
  if files.is_local(path) and not (path and os.path.exists(info)):
    return None
  if not info.exists():
    raise ArgumentError(
        Argument('path'), f', {path}, holds no prepared records, which alone '
        'are read from a bucket; give these, or mount the bucket by gcsfuse '
        'and give the local path.',
    )
  source = open_records(directory, wanted, epoch)
  height, width = source.frame_size
  if (height, width) != (wanted.height, wanted.width):
    raise ArgumentError(
        Argument('path'), f', {directory}, holds records of {height} x {width} '
        'pixels; set ', Argument('height'), f'={height} and ',
        Argument('width'), f'={width}, or give the videos.',
    )
  if source.shortest < wanted.min_frames:
    raise ArgumentError(
        Argument('path'), f', {directory}, holds videos of {source.shortest} '
        f'frames, fewer than the {wanted.min_frames} that ', Argument('frames'),
        ' at the least of ', Argument('frameskips'), ' span; lower these, or '
        'give the videos.',
    )
  return source


def data_dir(configured: str) -> str:
  """The folder of all records.

  It is the given one, else TFDS_DATA_DIR, else ~/tensorflow_datasets.

  Raises:
    ArgumentError: the folder is not local, or there is no home folder.
  """
  if configured:
    return files.expand(configured, Argument('dir'))
  variable = os.environ.get('TFDS_DATA_DIR', '')
  if variable:
    return files.expand(variable, 'TFDS_DATA_DIR')
  try:
    return files.expand('~/tensorflow_datasets', Argument('dir'))
  except ArgumentError as error:
    name, *rest = error.parts
    raise ArgumentError(name, ' (by default)', *rest) from error
