"""Plans of sampling, from the sample fields; `drawing` executes them."""
import contextlib

from absl import logging
from etils import epath
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion.config.validate import require
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import video as video_lib
from video_diffusion.diffusion import extension
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files


def read_init(config: ml_collections.ConfigDict) -> np.ndarray | None:
  """The frames of sample.init_video, float32 [f, h, w, 3] in [-1, 1].

  They lie as far apart as those of the run's clips: at data.fps, and the first
  of data.frameskips apart; for 'interpolate' sample.factor times that. They end
  with the last frame of the file where the video goes on behind them, else they
  begin with its first. Where sample.init_every is n, they are every n-th frame
  of the file instead. All frames are taken of a file that this program wrote,
  whose time is not that of the data, unless sample.init_every is set.

  Cropped and resized to the size of the model, or to that divided by
  sample.upscale. None without a file.

  Raises:
    UserError: the file cannot be used, is too short, or the size does not
      divide.
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
  fps, every = _spacing(config, path)
  frames = []
  for frame in video_lib.read_timed(
      path, fps=fps, limits=limits_lib.from_fields(data)
  ):
    frames.append(video_lib.resize_and_crop(
        frame.pixels[None],
        height=data.height // options.upscale,
        width=data.width // options.upscale,
    ))
    seconds = frame.until
  first = 0
  if options.task == 'extend' and options.upscale == 1:
    first = (len(frames) - 1) % every
  taken = frames[first::every]
  apart = f'{every / fps:g} s apart' if fps else f'{every} apart in the file'
  if not options.init_every:
    apart += ', as in the clips of the run,'
  least = _least(config, image=seconds == 0)
  advice = 'give a longer video'
  if options.init_every != 1:
    advice += ', or set sample.init_every=1 to take all its frames'
  require(
      len(taken) >= least,
      f'sample.init_video {path} is too short: it lasts {seconds:.3g} s, in '
      f'which the frames {apart} number {len(taken)}, and {least} are needed; '
      f'{advice}.',
  )
  logging.info(
      'sample.init_video: %d frames are taken, %s.',
      len(taken), apart.rstrip(','),
  )
  return np.concatenate(taken).astype(np.float32) / 127.5 - 1.0


def _spacing(config, path) -> tuple[float, int]:
  """(frames per second, 0 for those of the file; how many of these apart)."""
  options, data = config.sample, config.data
  if options.init_every:
    return 0.0, options.init_every
  if video_lib.description(path) == media.MARK:
    return 0.0, 1
  every = data.frameskips[0]
  if options.task == 'interpolate' and options.upscale == 1:
    every *= options.factor
  return data.get('fps', 0.0), every


def _least(config, *, image: bool) -> int:
  """The fewest frames that will do.

  One can be extended if it is an image, which has no distances, or if the
  distances are those that sample.init_every asks for.
  """
  options, block = config.sample, config.data.frames
  if options.upscale > 1:
    return block
  if options.task == 'interpolate':
    return -(-(block - 1) // options.factor) + 1
  return 1 if image or options.init_every else 2


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
