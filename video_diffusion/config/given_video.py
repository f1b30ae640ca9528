"""The frames of sample.video, as the run's clips have them."""
from absl import logging
from etils import epath
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion.config.validate import require
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import video as video_lib
from video_diffusion.filesystem import files


def read(
    config: ml_collections.ConfigDict, name: str = ''
) -> np.ndarray | None:
  """The frames of sample.video, uint8 [f, h, w, 3].

  They lie as far apart as those of the run's clips: at data.fps, and the first
  of data.frameskips apart; for 'interpolate' sample.factor times that. They end
  with the last frame of the file where the video goes on behind them, else they
  begin with its first. Where sample.init_every is n, they are every n-th frame
  of the file instead. All frames are taken of a file that this program wrote,
  whose time is not that of the data, unless sample.init_every is set.

  Cropped and resized to the size of the model, or to that divided by
  sample.upscale. None without a file.

  Args:
    config: of the run, with the sample fields of the call.
    name: what sentences call the file; they then name no field. Defaults to
      the field and its path.

  Raises:
    UserError: the file cannot be used, is too short, or the size does not
      divide.
  """
  options, data = config.sample, config.data
  if not options.video:
    require(
        options.upscale == 1,
        f'sample.upscale is {options.upscale}, but there is no '
        'sample.video to enlarge.',
    )
    return None
  for side in ('height', 'width'):
    require(
        data[side] % options.upscale == 0,
        f'sample.upscale is {options.upscale}; it must divide data.{side}, '
        f'{data[side]}.',
    )
  path = epath.Path(files.expand(options.video, 'sample.video'))
  require(path.is_file(), f'sample.video {path} is not a file.')
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
  if options.init_every != 1 and not name:
    advice += ', or set sample.init_every=1 to take all its frames'
  require(
      len(taken) >= least,
      f'{name or f"sample.video {path}"} is too short: it lasts '
      f'{seconds:.3g} s, in which the frames {apart} number {len(taken)}, and '
      f'{least} are needed; {advice}.',
  )
  logging.info(
      'sample.video: %d frames are taken, %s.',
      len(taken), apart.rstrip(','),
  )
  return np.concatenate(taken)


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
