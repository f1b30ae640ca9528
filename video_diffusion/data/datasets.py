"""Registry of data sets: a name, its options, and a source of videos.

A data set that is made on the fly needs a module with its options, a source
(see `mixture.Source`) and a function that makes it, an entry in `DATA_SETS`,
and a file in configs/.
"""
from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import types
from typing import Any, NamedTuple

from video_diffusion.data import file_sets
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import options as options_lib
from video_diffusion.data import shapes
from video_diffusion.data import tfds_options
from video_diffusion.data.builders import file_plans
from video_diffusion.data.options import number
from video_diffusion.data.wanted import Wanted
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class MovingShapesOptions:
  """Options of moving_shapes; see `shapes.MovingShapes`."""

  train_clips: int = options_lib.num_clips(1_000_000)
  test_clips: int = options_lib.num_clips(10_000)
  radius: float = number(0.15, low=0, high=1)
  speed: float = number(0.025, low=0, high=10)
  bounce: bool = False
  heldout_pairs: tuple[str, ...] = options_lib.texts(longest=1000)


def _moving_shapes(name: str, wanted: Wanted, options: MovingShapesOptions):
  sizes = {'train': options.train_clips, 'test': options.test_clips}
  return shapes.MovingShapes(
      split=wanted.split,
      seed=wanted.seed,
      num_examples=sizes[wanted.split],
      num_frames=wanted.max_frames,
      height=wanted.height,
      width=wanted.width,
      radius=options.radius,
      speed=options.speed,
      bounce=options.bounce,
      heldout_pairs=options.heldout_pairs,
  )


class DataSet(NamedTuple):
  """A data set of the registry.

  Attributes:
    options: the dataclass of its options; see `data.options`.
    make: (name, Wanted, options) -> source of videos.
    synthetic: it is made on the fly: no files are read, so that there is
      nothing to prepare.
    images: its clips have a single frame.
    plan: (name, Wanted, options) -> the files to decode, None where records
      are there; None for a data set that is not made of a folder of files.
  """

  options: type
  make: Callable[[str, Wanted, Any], mixture_lib.Source]
  synthetic: bool = False
  images: bool = False
  plan: Callable[[str, Wanted, Any], file_plans.Plan | None] | None = None


DATA_SETS: Mapping[str, DataSet] = types.MappingProxyType({
    'moving_shapes': DataSet(
        MovingShapesOptions, _moving_shapes, synthetic=True
    ),
    'video_folder': DataSet(
        file_sets.VideoFolderOptions, file_sets.make, plan=file_sets.plan
    ),
    'image_folder': DataSet(
        file_sets.ImageFolderOptions, file_sets.make, plan=file_sets.plan,
        images=True,
    ),
    'kinetics600': DataSet(
        file_sets.KineticsOptions, file_sets.make, plan=file_sets.plan
    ),
    'moving_mnist_stochastic': DataSet(
        file_sets.MovingMnistOptions, file_sets.make_moving_mnist
    ),
    'ucf101': DataSet(tfds_options.Ucf101Options, tfds_options.make),
    'bair_robot_pushing_small': DataSet(
        tfds_options.BairOptions, tfds_options.make
    ),
    'moving_mnist': DataSet(
        tfds_options.TfdsMovingMnistOptions, tfds_options.make
    ),
    'mnist': DataSet(tfds_options.MnistOptions, tfds_options.make, images=True),
    'tfds_images': DataSet(
        tfds_options.TfdsImagesOptions, tfds_options.make, images=True
    ),
})
NAMES = tuple(sorted(DATA_SETS))


def options_of(name: str) -> dict[str, options_lib.Option]:
  """The options of a data set, by name."""
  return options_lib.declared(DATA_SETS[name].options)


def all_options() -> dict[str, options_lib.Option]:
  """The options of all data sets, by name.

  Options of one name have one type and the same bounds.
  """
  found = {}
  for name in NAMES:
    found |= options_of(name)
  return found


def check(name: str, options: Collection[str], *, frames: int) -> None:
  """Checks that there is such a data set, and that it has such options.

  Args:
    name: name of the data set.
    options: names of the options that are given.
    frames: frames of a window.

  Raises:
    ArgumentError: there is no such data set or option, or the data set holds
      images and a window has several frames.
  """
  if name not in NAMES:
    raise ArgumentError(
        Argument('name'), f' is {name!r}; it must be one of {NAMES}.'
    )
  wrong = sorted(set(options) - options_of(name).keys())
  if wrong:
    parts = [part for option in wrong for part in (', ', Argument(option))]
    raise ArgumentError(
        Argument('name'), f' is {name!r}, which has no option ', *parts[1:],
        '; use the file of configs/ that is made for it.',
    )
  if DATA_SETS[name].images and frames > 1:
    raise ArgumentError(
        Argument('name'), f' is {name!r}, which holds images, and ',
        Argument('frames'), f' is {frames}; name it in ',
        Argument('image_mixture'), ', or set ', Argument('frames'), ' to 1.',
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
  """Makes the source of a data set's split; prepares its records if need be.

  Args:
    name: name of the data set.
    split: see `Wanted`.
    frames: see `Wanted`.
    height: see `Wanted`.
    width: see `Wanted`.
    seed: see `Wanted`.
    frameskips: see `Wanted`.
    limits: see `Wanted`.
    **options: options of the data set; those left out have their defaults.

  Raises:
    UserError: there is no such data set or option, or the data are missing or
      unusable.
  """
  check(name, options, frames=frames)
  wanted = Wanted(split, frames, height, width, seed, frameskips, limits)
  data_set = DATA_SETS[name]
  return data_set.make(name, wanted, data_set.options(**options))


def plan(
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
) -> file_plans.Plan | None:
  """Returns what `make_source` would decode and pack; decodes nothing.

  Args and errors are those of `make_source`.

  Returns:
    The plan, None where records are there already or are not made of a folder
    of files.
  """
  check(name, options, frames=frames)
  data_set = DATA_SETS[name]
  if not data_set.plan:
    return None
  wanted = Wanted(split, frames, height, width, seed, frameskips, limits)
  return data_set.plan(name, wanted, data_set.options(**options))
