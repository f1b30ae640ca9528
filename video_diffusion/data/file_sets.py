"""Data sets that are made from files on this machine: options and sources."""
import dataclasses
import pathlib

from video_diffusion.data import options as options_lib
from video_diffusion.data import records
from video_diffusion.data import wanted as wanted_lib
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import kinetics600
from video_diffusion.data.builders import moving_mnist
from video_diffusion.data.builders import video_files
from video_diffusion.data.builders import video_folder
from video_diffusion.data.options import number
from video_diffusion.data.wanted import Wanted
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.filesystem import files


@dataclasses.dataclass(frozen=True)
class KineticsOptions:
  """Options of a folder of videos that is laid out as Kinetics-600.

  Attributes:
    path: the folder, or a directory of records.
    dir: folder of the records; see `wanted.data_dir`.
    epoch: what an epoch runs over; see `windows.Examples`.
    clip_frames: frames of the clips in which a video is stored. To read a frame
      is to read its clip: short clips are fast.
    fps: frames per second, by time of presentation; 0 takes all frames.
    short_clips: what becomes of a video with too few frames: 'drop', 'loop'
      (start over) or 'refuse'.
    fraction: fraction of the files that are taken, by a hash of their names;
      1 for finished records.
    keep_cache: keep the decoded frames, for other settings and more files.
  """

  path: str = ''
  dir: str = ''
  epoch: str = options_lib.epoch('videos')
  clip_frames: int = options_lib.clip_frames(16)
  fps: float = number(0.0, low=0, high=1000)
  short_clips: str = 'drop'
  fraction: float = options_lib.fraction()
  keep_cache: bool = True


@dataclasses.dataclass(frozen=True)
class VideoFolderOptions(KineticsOptions):
  """Options of a folder of videos; those of `KineticsOptions`, and this one.

  Attributes:
    classes: the first sub-folder of a file is its class.
  """

  epoch: str = options_lib.epoch('windows')
  classes: bool = False


@dataclasses.dataclass(frozen=True)
class ImageFolderOptions:
  """Options of a folder of images; see `VideoFolderOptions`."""

  path: str = ''
  dir: str = ''
  classes: bool = False
  fraction: float = options_lib.fraction()
  keep_cache: bool = True


def _settings(wanted, options):
  if options.epoch == 'clips':
    wanted.require_length(options.clip_frames)
  return file_plans.Settings(
      height=wanted.height,
      width=wanted.width,
      clip_frames=options.clip_frames,
      min_frames=wanted.min_frames,
      fps=options.fps,
      short_clips=options.short_clips,
      limits=wanted.limits,
  )


def plan_video_folder(
    name: str, wanted: Wanted, options: VideoFolderOptions
) -> file_plans.Plan | pathlib.Path:
  """What is to be made of a folder of videos, or the records made of it.

  Args:
    name: name of the data set.
    wanted: what is asked for.
    options: its options.

  Raises:
    UserError: names an option, or a folder without a video.
  """
  return video_folder.plan(
      wanted_lib.given_path(options.path, 'a folder of videos, of any depth'),
      _settings(wanted, options),
      data_dir=wanted_lib.data_dir(options.dir),
      classes=options.classes,
      fraction=options.fraction,
      keep_cache=options.keep_cache,
  )


def plan_image_folder(
    name: str, wanted: Wanted, options: ImageFolderOptions
) -> file_plans.Plan | pathlib.Path:
  """The same of a folder of images, each of them a video of one frame.

  Args and errors are those of `plan_video_folder`.
  """
  return video_folder.plan(
      wanted_lib.given_path(options.path, 'a folder of images, of any depth'),
      file_plans.Settings(
          height=wanted.height,
          width=wanted.width,
          clip_frames=1,
          min_frames=1,
          limits=wanted.limits,
      ),
      data_dir=wanted_lib.data_dir(options.dir),
      name=name,
      classes=options.classes,
      fraction=options.fraction,
      keep_cache=options.keep_cache,
  )


def plan_kinetics600(
    name: str, wanted: Wanted, options: KineticsOptions
) -> file_plans.Plan | pathlib.Path:
  """The same of a folder of Kinetics-600, by the CSV files beside the clips.

  Args and errors are those of `plan_video_folder`.
  """
  return kinetics600.plan(
      wanted_lib.given_path(options.path, kinetics600.WANTED),
      _settings(wanted, options),
      data_dir=wanted_lib.data_dir(options.dir),
      fraction=options.fraction,
      keep_cache=options.keep_cache,
  )


PLANS = {
    'video_folder': plan_video_folder,
    'image_folder': plan_image_folder,
    'kinetics600': plan_kinetics600,
}


def plan(
    name: str, wanted: Wanted, options: ImageFolderOptions | KineticsOptions
) -> file_plans.Plan | None:
  """What is to be made of a folder; None where records are there already.

  Args and errors are those of `plan_video_folder`.
  """
  if _stored(wanted, options):
    return None
  found = PLANS[name](name, wanted, options)
  return found if isinstance(found, file_plans.Plan) else None


def make(
    name: str, wanted: Wanted, options: ImageFolderOptions | KineticsOptions
) -> records.VideoRecords:
  """The source of one of PLANS; prepares its records on first use.

  Args:
    name: name of the data set.
    wanted: what is asked for.
    options: its options.

  Raises:
    UserError: names an option, or a folder without a video that can be used.
  """
  return _stored(wanted, options) or wanted_lib.open_records(
      video_files.made(PLANS[name](name, wanted, options)), wanted,
      _epoch(options),
  )


def _stored(wanted, options) -> records.VideoRecords | None:
  """The finished records that the path of the options is, else None."""
  found = wanted_lib.stored_records(options.path, wanted, _epoch(options))
  if found and options.fraction != 1:
    raise ArgumentError(
        Argument('fraction'), f' is {options.fraction:g}, a fraction of files, '
        'and ', Argument('path'), f', {options.path}, holds finished records, '
        'which are taken whole; set it to 1, or give the videos.',
    )
  return found


def _epoch(options) -> str:
  """What an epoch runs over; an image is a video."""
  return getattr(options, 'epoch', 'videos')


@dataclasses.dataclass(frozen=True)
class MovingMnistOptions:
  """Options of moving_mnist_stochastic; see `moving_mnist.prepare`.

  Attributes:
    path: folder with MNIST's files; '' takes the digits of TFDS.
    dir: folder of the records; see `wanted.data_dir`.
    clip_frames: frames of a clip, which is a video of its own.
    train_clips: clips of the training digits.
    test_clips: clips of the test digits.
  """

  path: str = ''
  dir: str = ''
  clip_frames: int = options_lib.clip_frames(20)
  train_clips: int = options_lib.num_clips(10_000)
  test_clips: int = options_lib.num_clips(1000)


def make_moving_mnist(name: str, wanted: Wanted, options: MovingMnistOptions):
  """The source of synthetic clips of MNIST's digits; makes them on first use.

  Args and errors are those of `make`.
  """
  wanted.require_length(options.clip_frames)
  stored = wanted_lib.stored_records(options.path, wanted)
  return stored or wanted_lib.open_records(
      moving_mnist.prepare(
          files.expand(options.path, Argument('path')),
          data_dir=wanted_lib.data_dir(options.dir),
          height=wanted.height,
          width=wanted.width,
          clip_frames=options.clip_frames,
          train_clips=options.train_clips,
          test_clips=options.test_clips,
          seed=wanted.seed,
      ),
      wanted,
  )
