"""Plans of sampling, from the sample fields; `drawing` executes them."""
import contextlib

from etils import epath
import ml_collections
import numpy as np

from video_diffusion import files
from video_diffusion.data import video as video_lib
from video_diffusion.diffusion import extension
from video_diffusion.errors import UserError
from video_diffusion.validation import require


def read_init(config: ml_collections.ConfigDict) -> np.ndarray | None:
  """The frames of sample.init_video, float32 [f, h, w, 3] in [-1, 1].

  Cropped and resized to the size of the model, or to that divided by
  sample.upscale. None without a file.

  Raises:
    UserError: the file cannot be used, or the size does not divide.
  """
  options, data = config.sample, config.data
  if not options.init_video:
    require(
        options.upscale == 1,
        f'sample.upscale is {options.upscale}, but there is no '
        'sample.init_video to enlarge.',
    )
    return None
  for side in ('height', 'width'):
    require(
        data[side] % options.upscale == 0,
        f'sample.upscale is {options.upscale}; it must divide data.{side}, '
        f'{data[side]}.',
    )
  path = epath.Path(files.expand(options.init_video, 'sample.init_video'))
  require(path.is_file(), f'sample.init_video {path} is not a file.')
  size = dict(
      height=data.height // options.upscale, width=data.width // options.upscale
  )
  frames = [
      video_lib.resize_and_crop(frame[None], **size)
      for frame in video_lib.read_frames(path)
  ]
  return np.concatenate(frames).astype(np.float32) / 127.5 - 1.0


def make_plan(
    config: ml_collections.ConfigDict,
    init: np.ndarray | None,
    refiner: ml_collections.ConfigDict | None = None,
) -> extension.Plan:
  """The plan that the sample fields ask for.

  With a refiner, the config of a second run: the paper's cascade to
  sample.frames. Without init_video: sample.frames frames, as one block up to
  the training length and by extension beyond. With it: its extension to
  sample.frames, its interpolation by sample.factor, or its enlargement by
  sample.upscale.

  Raises:
    UserError: lengths that do not fit.
  """
  options, block = config.sample, config.data.frames
  overlap = options.overlap or max(1, block // 2)
  if refiner is not None:
    with _fields('frames', 'stride', 'overlap'):
      return extension.cascade(
          options.frames or block * options.stride,
          base_frames=block,
          stride=options.stride,
          block_frames=refiner.data.frames,
          overlap=refiner.sample.overlap or 1,
      )
  if init is None:
    require(
        options.task == 'extend',
        f'sample.task is {options.task!r}, which needs a sample.init_video.',
    )
    frames = options.frames or block
    if frames <= block:
      empty = (False,) * frames
      return extension.Plan(
          frames, (), (extension.Block(tuple(range(frames)), empty, empty),)
      )
    with _fields('frames', 'overlap'):
      return extension.extend(frames, block_frames=block, overlap=overlap)
  if options.upscale > 1:
    with _fields('init_video', 'overlap'):
      return extension.super_resolve(
          len(init), block_frames=block, overlap=overlap
      )
  if options.task == 'interpolate':
    with _fields('init_video', 'factor'):
      return extension.interpolate(
          len(init), factor=options.factor, block_frames=block
      )
  with _fields('init_video', 'frames', 'overlap'):
    return extension.extend(
        options.frames or len(init) + block - overlap,
        block_frames=block,
        overlap=overlap,
        num_given=len(init),
        backwards=options.task == 'extend_backwards',
    )


@contextlib.contextmanager
def _fields(*names):
  """Errors begin with the sample fields that a plan is made of."""
  try:
    yield
  except UserError as error:
    fields = ', '.join(f'sample.{name}' for name in names)
    raise UserError(f'{fields}: {error}') from error
