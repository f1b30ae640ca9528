"""Registry of data sets: name -> a source of clips by id."""
import os
from typing import Any

from video_diffusion.data import pipeline
from video_diffusion.data import records
from video_diffusion.data import shapes
from video_diffusion.data.builders import moving_mnist
from video_diffusion.data.builders import tfds_sets
from video_diffusion.data.builders import video_folder

# Data sets that are folders of video files -> what to put there.
VIDEO_FOLDERS = {
    'video_folder': 'any folder of mp4, avi, mov, mkv, webm or gif files',
    'kinetics600': 'the downloaded and trimmed Kinetics-600 training clips',
}


OPTIONS = {
    'moving_shapes': {
        'train_clips', 'test_clips', 'radius', 'speed', 'bounce',
        'heldout_pairs',
    },
    'video_folder': {'path', 'dir', 'frame_stride', 'clip_frames'},
    'moving_mnist_stochastic': {
        'path', 'dir', 'clip_frames', 'train_clips', 'test_clips',
    },
    'ucf101': {
        'dir', 'tfds_config', 'train_split', 'test_split', 'clip_frames',
        'short_clips',
    },
    'bair_robot_pushing_small': {
        'dir', 'camera', 'train_split', 'test_split', 'clip_frames',
        'short_clips',
    },
    'moving_mnist': {
        'dir', 'train_split', 'test_split', 'clip_frames', 'short_clips',
    },
    'mnist': {'dir', 'train_split', 'test_split'},
    'tfds_images': {
        'dir', 'tfds_name', 'image_field', 'label_field', 'train_split',
        'test_split',
    },
}
NAMES = tuple(sorted({*OPTIONS, *VIDEO_FOLDERS}))


def make_source(
    name: str,
    *,
    split: str,
    frames: int,
    height: int,
    width: int,
    seed: int,
    **options: Any,
) -> pipeline.Source:
  """The source of a data set's split.

  Args:
    name: one of NAMES.
    split: 'train' or 'test'.
    frames: T, frames of a clip.
    height: pixels.
    width: pixels.
    seed: of data sets that are drawn.
    **options: the further `config.data` fields of this data set.

  Raises:
    ValueError: an unknown name, or data that is missing or unusable.
  """
  wanted = OPTIONS.get(name, OPTIONS['video_folder'])
  if name in NAMES and wanted != set(options):
    raise ValueError(
        f'data.name is {name!r}, but the config has the data fields of another '
        'data set; use the file of configs/ that is made for it.'
    )
  if name == 'moving_shapes':
    sizes = {
        'train': options.pop('train_clips'),
        'test': options.pop('test_clips'),
    }
    return shapes.MovingShapes(
        split=split,
        seed=seed,
        num_examples=sizes[split],
        num_frames=frames,
        height=height,
        width=width,
        **options,
    )
  if options.get('clip_frames', frames) < frames:
    raise ValueError(
        f'data.clip_frames is {options["clip_frames"]}; it must be at least '
        f'data.frames, {frames}.'
    )
  if name == 'moving_mnist_stochastic':
    directory = moving_mnist.prepare(
        os.path.expanduser(options.pop('path')),
        data_dir=data_dir(options.pop('dir')),
        height=height,
        width=width,
        seed=seed,
        **options,
    )
    return records.VideoRecords(directory, split)
  if name in tfds_sets.SETS:
    if 'clip_frames' not in options and frames > 1:
      raise ValueError(
          f'data.name is {name!r}, which holds images, and data.frames is '
          f'{frames}; name it in data.image_mixture, or set data.frames to 1.'
      )
    directory = tfds_sets.prepare(
        name,
        data_dir=data_dir(options.pop('dir')),
        height=height,
        width=width,
        min_frames=frames,
        **options,
    )
    return records.VideoRecords(directory, split)
  if name in VIDEO_FOLDERS:
    path = os.path.expanduser(options.pop('path'))
    if not path:
      raise ValueError(
          f'data.path is empty; pass --config.data.path=DIR, for {name} '
          f'{VIDEO_FOLDERS[name]}, which is decoded once into records.'
      )
    directory = video_folder.prepare(
        path,
        data_dir=data_dir(options.pop('dir')),
        height=height,
        width=width,
        min_frames=frames,
        **options,
    )
    return records.VideoRecords(directory, split)
  raise ValueError(f'data.name is {name!r}; it must be one of {NAMES}.')


def data_dir(configured: str) -> str:
  """Where records live: `data.dir`, TFDS_DATA_DIR or ~/tensorflow_datasets."""
  return os.path.expanduser(
      configured
      or os.environ.get('TFDS_DATA_DIR', '')
      or '~/tensorflow_datasets'
  )
