"""Data sets that TFDS downloads: their options, and how a source is made."""
import dataclasses
from typing import Any

from video_diffusion.data import options as options_lib
from video_diffusion.data import wanted as wanted_lib
from video_diffusion.data.builders import tfds_sets
from video_diffusion.data.wanted import Wanted


@dataclasses.dataclass(frozen=True)
class Ucf101Options:
  """Options of ucf101; see `tfds_sets.prepare`."""

  dir: str = ''
  train_split: str = tfds_sets.SETS['ucf101'].train_split
  test_split: str = tfds_sets.SETS['ucf101'].test_split
  epoch: str = options_lib.epoch('videos')
  clip_frames: int = options_lib.clip_frames(16)
  short_clips: str = 'loop'
  tfds_config: str = options_lib.tfds_name('ucf101_1_256', r'[\w.-]*')


@dataclasses.dataclass(frozen=True)
class BairOptions:
  """Options of bair_robot_pushing_small; see `tfds_sets.prepare`."""

  dir: str = ''
  train_split: str = tfds_sets.SETS['bair_robot_pushing_small'].train_split
  test_split: str = tfds_sets.SETS['bair_robot_pushing_small'].test_split
  clip_frames: int = options_lib.clip_frames(30)
  short_clips: str = 'refuse'
  camera: str = options_lib.tfds_name('image_main', r'\w*')


@dataclasses.dataclass(frozen=True)
class TfdsMovingMnistOptions:
  """Options of moving_mnist; see `tfds_sets.prepare`."""

  dir: str = ''
  train_split: str = tfds_sets.SETS['moving_mnist'].train_split
  test_split: str = tfds_sets.SETS['moving_mnist'].test_split
  clip_frames: int = options_lib.clip_frames(20)
  short_clips: str = 'refuse'


@dataclasses.dataclass(frozen=True)
class MnistOptions:
  """Options of mnist; see `tfds_sets.prepare`."""

  dir: str = ''
  train_split: str = tfds_sets.SETS['mnist'].train_split
  test_split: str = tfds_sets.SETS['mnist'].test_split


@dataclasses.dataclass(frozen=True)
class TfdsImagesOptions:
  """Options of tfds_images, any set of images that TFDS has.

  Attributes:
    dir: folder of the original and of the records; see `wanted.data_dir`.
    train_split: TFDS's split to train on.
    test_split: TFDS's split that is held out.
    tfds_name: 'NAME', 'NAME/CONFIG' or either with ':VERSION'.
    image_field: the feature that holds the image.
    label_field: the feature that holds the class; '' for none.
  """

  dir: str = ''
  train_split: str = tfds_sets.SETS['tfds_images'].train_split
  test_split: str = tfds_sets.SETS['tfds_images'].test_split
  tfds_name: str = options_lib.tfds_name('', r'\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?')
  image_field: str = options_lib.tfds_name('image', r'\w*')
  label_field: str = options_lib.tfds_name('label', r'\w*')


def make(name: str, wanted: Wanted, options: Any):
  """The source of a data set of TFDS; downloads and prepares it on first use.

  Args:
    name: name of the data set, one of `tfds_sets.SETS`.
    wanted: what is asked for.
    options: its options, an object of the class above that belongs to it.

  Raises:
    UserError: names an option, or what TFDS could not do.
  """
  given = dataclasses.asdict(options)
  directory = wanted_lib.data_dir(given.pop('dir'))
  epoch = given.pop('epoch', 'videos')
  if 'clip_frames' in given:
    given['min_frames'] = wanted.min_frames
    if epoch == 'clips':
      wanted.require_length(options.clip_frames)
  return wanted_lib.open_records(
      tfds_sets.prepare(
          name, data_dir=directory, height=wanted.height, width=wanted.width,
          **given,
      ),
      wanted,
      epoch,
  )
