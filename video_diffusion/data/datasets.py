"""Registry of data sets: name -> a source of clips by id."""
from collections.abc import Collection, Sequence
import os
from typing import Any

from video_diffusion.data import pipeline
from video_diffusion.data import records
from video_diffusion.data import shapes
from video_diffusion.data.builders import video_folder

# Data sets that are folders of video files -> what to put there.
VIDEO_FOLDERS = {
    'video_folder': 'any folder of mp4, avi, mov, mkv, webm or gif files',
    'ucf101': 'the unpacked UCF101.rar (13,320 avi files)',
    'bair': 'one video file per BAIR robot pushing episode, main camera',
    'kinetics600': 'the downloaded and trimmed Kinetics-600 training clips',
}


OPTIONS = {
    'moving_shapes': {
        'train_clips', 'test_clips', 'radius', 'speed', 'bounce',
        'heldout_pairs',
    },
    'video_folder': {'path', 'dir', 'frame_stride', 'clip_frames'},
}
NAMES = tuple(sorted({*OPTIONS, *VIDEO_FOLDERS}))


def check(name: str, options: Collection[str]) -> None:
  """Raises ValueError for an unknown data set, or fields that it lacks."""
  if name not in NAMES:
    raise ValueError(f'data.name is {name!r}; it must be one of {NAMES}.')
  wanted = OPTIONS.get(name, OPTIONS['video_folder'])
  wrong = [f'data.{field}' for field in sorted(wanted ^ set(options))]
  if wrong:
    raise ValueError(
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
    frameskips: distances of frames that windows of the clips are to have.
    **options: the further `config.data` fields of this data set.

  Raises:
    ValueError: an unknown name, or data that is missing or unusable.
  """
  check(name, options)
  if name == 'moving_shapes':
    sizes = {
        'train': options.pop('train_clips'),
        'test': options.pop('test_clips'),
    }
    return shapes.MovingShapes(
        split=split,
        seed=seed,
        num_examples=sizes[split],
        num_frames=(frames - 1) * max(frameskips) + 1,
        height=height,
        width=width,
        **options,
    )
  # A shorter clip holds no window.
  frames = (frames - 1) * min(frameskips) + 1
  if name in VIDEO_FOLDERS:
    path = os.path.expanduser(options.pop('path'))
    if not path:
      raise ValueError(
          f'data.path is empty; pass --config.data.path=DIR, for {name} '
          f'{VIDEO_FOLDERS[name]}, which is decoded once into records.'
      )
    if options['clip_frames'] < frames:
      raise ValueError(
          f'data.clip_frames is {options["clip_frames"]}; it must be at least '
          f'{frames}, for data.frames at the least of data.frameskips.'
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
  raise AssertionError(f'{name} is named, but nothing makes it')


def data_dir(configured: str) -> str:
  """Where records live: `data.dir`, TFDS_DATA_DIR or ~/tensorflow_datasets."""
  return os.path.expanduser(
      configured
      or os.environ.get('TFDS_DATA_DIR', '')
      or '~/tensorflow_datasets'
  )
