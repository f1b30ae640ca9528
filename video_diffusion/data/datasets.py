"""Registry of data sets: name -> a source of clips by id."""
from collections.abc import Callable, Collection, Sequence
import os
import pathlib
from typing import Any, NamedTuple

from video_diffusion.data import limits as limits_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import records
from video_diffusion.data import shapes
from video_diffusion.data.builders import kinetics600
from video_diffusion.data.builders import moving_mnist
from video_diffusion.data.builders import tfds_sets
from video_diffusion.data.builders import video_files
from video_diffusion.data.builders import video_folder
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files


class Wanted(NamedTuple):
  """What a source is asked for, whatever the data set; see `make_source`."""

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


def _moving_shapes(name, wanted, *, train_clips, test_clips, **options):
  sizes = {'train': train_clips, 'test': test_clips}
  return shapes.MovingShapes(
      split=wanted.split,
      seed=wanted.seed,
      num_examples=sizes[wanted.split],
      num_frames=(wanted.frames - 1) * max(wanted.frameskips) + 1,
      height=wanted.height,
      width=wanted.width,
      **options,
  )


def _video_folder(
    name, wanted, *, path, dir, clip_frames, fps, short_clips, classes,
    keep_cache,
):
  return _records(path, wanted) or records.VideoRecords(
      video_folder.prepare(
          _given(path, 'a folder of videos, of any depth'),
          video_files.Settings(
              height=wanted.height,
              width=wanted.width,
              clip_frames=clip_frames,
              min_frames=wanted.min_frames,
              fps=fps,
              short_clips=short_clips,
              limits=wanted.limits,
          ),
          data_dir=data_dir(dir),
          classes=classes,
          keep_cache=keep_cache,
      ),
      wanted.split,
  )


def _image_folder(name, wanted, *, path, dir, classes, keep_cache):
  _single_frames(name, wanted)
  return _records(path, wanted) or records.VideoRecords(
      video_folder.prepare(
          _given(path, 'a folder of images, of any depth'),
          video_files.Settings(
              height=wanted.height,
              width=wanted.width,
              clip_frames=1,
              min_frames=1,
              limits=wanted.limits,
          ),
          data_dir=data_dir(dir),
          name=name,
          classes=classes,
          keep_cache=keep_cache,
      ),
      wanted.split,
  )


def _kinetics600(
    name, wanted, *, path, dir, clip_frames, fps, short_clips, keep_cache
):
  return _records(path, wanted) or records.VideoRecords(
      kinetics600.prepare(
          _given(path, kinetics600.WANTED),
          video_files.Settings(
              height=wanted.height,
              width=wanted.width,
              clip_frames=clip_frames,
              min_frames=wanted.min_frames,
              fps=fps,
              short_clips=short_clips,
              limits=wanted.limits,
          ),
          data_dir=data_dir(dir),
          keep_cache=keep_cache,
      ),
      wanted.split,
  )


def _moving_mnist(
    name, wanted, *, path, dir, clip_frames, train_clips, test_clips
):
  _require_length(clip_frames, wanted)
  return _records(path, wanted) or records.VideoRecords(
      moving_mnist.prepare(
          files.expand(path, 'data.path'),
          data_dir=data_dir(dir),
          height=wanted.height,
          width=wanted.width,
          clip_frames=clip_frames,
          train_clips=train_clips,
          test_clips=test_clips,
          seed=wanted.seed,
      ),
      wanted.split,
  )


def _tfds_videos(name, wanted, *, dir, clip_frames, **options):
  _require_length(clip_frames, wanted)
  return records.VideoRecords(
      tfds_sets.prepare(
          name,
          data_dir=data_dir(dir),
          height=wanted.height,
          width=wanted.width,
          clip_frames=clip_frames,
          min_frames=wanted.min_frames,
          **options,
      ),
      wanted.split,
  )


def _tfds_images(name, wanted, *, dir, **options):
  _single_frames(name, wanted)
  return records.VideoRecords(
      tfds_sets.prepare(
          name,
          data_dir=data_dir(dir),
          height=wanted.height,
          width=wanted.width,
          **options,
      ),
      wanted.split,
  )


def _single_frames(name, wanted):
  if wanted.frames > 1:
    raise UserError(
        f'data.name is {name!r}, which holds images, and data.frames is '
        f'{wanted.frames}; name it in data.image_mixture, or set data.frames '
        'to 1.'
    )


def _require_length(clip_frames, wanted):
  if clip_frames < wanted.min_frames:
    raise UserError(
        f'data.clip_frames is {clip_frames}; it must be at least '
        f'{wanted.min_frames}, for data.frames at the least of '
        'data.frameskips.'
    )


class DataSet(NamedTuple):
  """A data set of the registry.

  Attributes:
    options: its own fields of `config.data`.
    make: (name, Wanted, **options) -> source of clips.
    drawn: no files are read, so there is nothing to prepare.
  """

  options: set[str]
  make: Callable[..., mixture_lib.Source]
  drawn: bool = False


_FOLDER = {'path', 'dir', 'keep_cache'}
_VIDEOS = _FOLDER | {'clip_frames', 'fps', 'short_clips'}
_TFDS = {'dir', 'train_split', 'test_split'}
_TFDS_VIDEOS = _TFDS | {'clip_frames', 'short_clips'}
DATA_SETS = {
    'moving_shapes': DataSet(
        {
            'train_clips', 'test_clips', 'radius', 'speed', 'bounce',
            'heldout_pairs',
        },
        _moving_shapes,
        drawn=True,
    ),
    'video_folder': DataSet(_VIDEOS | {'classes'}, _video_folder),
    'image_folder': DataSet(_FOLDER | {'classes'}, _image_folder),
    'kinetics600': DataSet(_VIDEOS, _kinetics600),
    'moving_mnist_stochastic': DataSet(
        {'path', 'dir', 'clip_frames', 'train_clips', 'test_clips'},
        _moving_mnist,
    ),
    'ucf101': DataSet(_TFDS_VIDEOS | {'tfds_config'}, _tfds_videos),
    'bair_robot_pushing_small': DataSet(
        _TFDS_VIDEOS | {'camera'}, _tfds_videos
    ),
    'moving_mnist': DataSet(_TFDS_VIDEOS, _tfds_videos),
    'mnist': DataSet(_TFDS, _tfds_images),
    'tfds_images': DataSet(
        _TFDS | {'tfds_name', 'image_field', 'label_field'}, _tfds_images
    ),
}
OPTIONS = {name: data_set.options for name, data_set in DATA_SETS.items()}
NAMES = tuple(sorted(DATA_SETS))


def check(name: str, options: Collection[str]) -> None:
  """Raises UserError for an unknown data set, or fields that it lacks."""
  if name not in NAMES:
    raise UserError(f'data.name is {name!r}; it must be one of {NAMES}.')
  wrong = [f'data.{field}' for field in sorted(OPTIONS[name] ^ set(options))]
  if wrong:
    raise UserError(
        f'data.name is {name!r}, but the config has the data fields of another '
        f'data set (see {", ".join(wrong)}); use the file of configs/ that is '
        'made for it.'
    )


def make_source(
    name: str,
    *,
    split: str,
    frames: int,
    height: int,
    width: int,
    seed: int,
    frameskips: Sequence[int] = (1,),
    limits: limits_lib.Limits = limits_lib.DEFAULT,
    **options: Any,
) -> mixture_lib.Source:
  """The source of a data set's split; prepares records where there are none.

  Args:
    name: one of NAMES.
    split: 'train' or 'test'.
    frames: T, frames of a window.
    height: pixels.
    width: pixels.
    seed: of data sets that are drawn.
    frameskips: distances of frames that windows of the clips are to have.
    limits: of a video or image file.
    **options: the further `config.data` fields of this data set. `path` may
      also be a directory of records.

  Raises:
    UserError: an unknown name, or data that is missing or unusable.
  """
  check(name, options)
  wanted = Wanted(
      split, frames, height, width, seed, frameskips, limits
  )
  return DATA_SETS[name].make(name, wanted, **options)


def _given(path: str, what: str) -> str:
  """The path; UserError where it is empty."""
  if not path:
    raise UserError(
        f'data.path is empty; pass --config.data.path=DIR, {what}.'
    )
  return files.expand(path, 'data.path')


def _records(path: str, wanted: Wanted) -> records.VideoRecords | None:
  """The records at a path that is a directory of such, None where it is not.

  Raises:
    UserError: their frames have another size, or their clips are too short.
  """
  directory = pathlib.Path(files.expand(path, 'data.path'))
  # Where the system refuses the path, the builder of the data set says so.
  if not path or not os.path.exists(directory / 'dataset_info.json'):
    return None
  source = records.VideoRecords(directory, wanted.split)
  height, width = source.frame_size
  if (height, width) != (wanted.height, wanted.width):
    raise UserError(
        f'data.path, {directory}, holds records of {height} x {width} pixels; '
        f'set data.height={height} and data.width={width}, or give the videos.'
    )
  if source.shortest < wanted.min_frames:
    raise UserError(
        f'data.path, {directory}, holds clips of {source.shortest} frames, '
        f'fewer than the {wanted.min_frames} that data.frames at the least of '
        'data.frameskips span; lower these, or give the videos.'
    )
  return source


def data_dir(configured: str) -> str:
  """Where records live: `data.dir`, TFDS_DATA_DIR or ~/tensorflow_datasets."""
  if configured:
    return files.expand(configured, 'data.dir')
  variable = os.environ.get('TFDS_DATA_DIR', '')
  if variable:
    return files.expand(variable, 'TFDS_DATA_DIR')
  return files.expand('~/tensorflow_datasets', 'data.dir (by default)')
