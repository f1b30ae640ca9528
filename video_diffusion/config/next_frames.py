"""Models that extend a video frame by frame: the fields of extension."""
import ml_collections

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.diffusion import extension
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.models import context


def context_frames(config: ml_collections.ConfigDict) -> int:
  """How many frames before a next frame are its context.

  It is 0 for a model that extends a video by blocks with known frames.
  """
  options = config.extension
  return options.context_frames if options.context == 'aligned' else 0


def trained(config: ml_collections.ConfigDict) -> int:
  """How many next frames an example of a training has."""
  return config.extension.next_frames if context_frames(config) else 0


def make_context(
    config: ml_collections.ConfigDict,
) -> context.AlignedContext | None:
  """The networks of this context; None for a model without.

  They are half as wide as the first level of the U-Net, which makes less than a
  fiftieth of all parameters in the networks of configs/, the smoke variants
  aside.
  """
  frames = context_frames(config)
  if not frames:
    return None
  return context.AlignedContext(frames, config.model.base_channels // 2)


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the fields of extension.

  Raises:
    UserError: one sentence that names the field.
  """
  frames, options = config.data.frames, config.extension
  if options.context not in extension.CONTEXTS:
    raise UserError(
        f'extension.context is {options.context!r}; it must be one of '
        f'{extension.CONTEXTS}.'
    )
  if options.context == 'known':
    default = defaults_lib.get_config().extension
    for name in ('context_frames', 'next_frames'):
      if options[name] != default[name]:
        raise UserError(
            f"extension.{name} is set, but extension.context is 'known', which "
            "has no next frames; set that to 'aligned'."
        )
    return
  if frames == 1:
    raise UserError(
        f'extension.context is {options.context!r}, but data.frames is 1, so '
        "that no frame has one before it; set it to 'known'."
    )
  if options.context_frames >= frames:
    raise UserError(
        f'extension.context_frames is {options.context_frames}; it must be '
        f'below data.frames, {frames}.'
    )


def require_forwards(
    config: ml_collections.ConfigDict, overlap: int | None, backwards: bool
) -> None:
  """Requires that a model which extends frame by frame is asked for that.

  Args:
    config: of a trained run.
    overlap: known frames of a block that a call itself asks for. The run's own
      sample.overlap is for enlargement, and for models without a context.
    backwards: whether frames before the given ones are asked for.

  Raises:
    ArgumentError: the model has no such blocks, or makes no frames backwards.
  """
  if not context_frames(config):
    return
  if overlap:
    raise ArgumentError(
        Argument('overlap'), f' is {overlap}, but this model was trained with '
        'extension.context=aligned, and extends a video one frame at a time, '
        'without blocks that overlap; leave it out.',
    )
  if backwards:
    raise ArgumentError(
        Argument('backwards'), ' asks for frames before the given ones, but '
        'this model was trained with extension.context=aligned, and makes each '
        'frame from those before it.',
    )
