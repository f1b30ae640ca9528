"""How much a config asks for: parameters, scalars of a batch, memory."""
import os
import pathlib

import jax
import ml_collections

from video_diffusion.config import next_frames
from video_diffusion.errors import UserError

# Eighty times the paper's largest model, which has 1.2e9.
MAX_PARAMETERS = 10**11
# Scalars of a global batch; the paper's largest have 8e7.
MAX_SCALARS = 2**36
_LIMIT = pathlib.Path('/sys/fs/cgroup/memory.max')  # of a container


def check(config: ml_collections.ConfigDict, mode: str) -> None:
  """Checks what the fields, each in its bounds, ask for together.

  Args:
    config: whose fields have passed `fields.check`.
    mode: see `validate.check`.

  Raises:
    UserError: it is more than any machine, or this one's memory, can hold.
  """
  count = parameters(config)
  if count > MAX_PARAMETERS:
    raise UserError(
        f'the fields of model make a network of about {count:.1e} parameters; '
        f'at most {MAX_PARAMETERS:.0e} are allowed: lower '
        'model.base_channels, channel_mults, num_blocks or emb_dim.'
    )
  if mode in ('train', 'sample', 'evaluate'):
    _require_memory(
        4 * count,
        f'the fields of model make a network of about {count:.1e} parameters, '
        'which takes',
        'lower model.base_channels, channel_mults or num_blocks',
    )
  data, sample = config.data, config.sample
  # A next frame comes with the frames before it.
  more = next_frames.trained(config) * (1 + next_frames.context_frames(config))
  frames = data.frames + data.images + more
  batches = {
      'batch_size': frames * (mode == 'train'),
      'eval.batch_size': data.frames * (mode in ('train', 'evaluate')),
      'sample.batch_size': (sample.frames or data.frames)
      * (mode in ('train', 'sample')),
  }
  for name, frames in batches.items():
    group, _, field = name.rpartition('.')
    size = (config[group] if group else config)[field]
    scalars = 3 * size * frames * data.height * data.width
    if config.text.encoder and frames:
      scalars += size * (1 + data.images) * config.text.length * config.text.dim
    if scalars > MAX_SCALARS:
      raise UserError(
          f'{name} is {size}; with the frames, their height and width, and the '
          f'tokens of the config it makes a batch of {scalars:.1e} numbers; at '
          f'most {MAX_SCALARS:.1e} are allowed: lower one of them.'
      )
  measured = (*config.eval.evaluators, *config.log.scores)
  for name in ('alignment', 'coherence', 'digits'):
    if mode in ('train', 'evaluate') and name in measured:
      # Every process reads all clips: uint8 of real ones and of samples, which
      # 'alignment' makes as long as those of training.
      asked = 0 if name == 'alignment' else sample.frames
      scalars = 3 * max(asked, data.frames) * data.height * data.width
      _require_memory(
          2 * scalars * config.eval.num_clips * jax.process_count(),
          f'eval.evaluators holds {name!r} and eval.num_clips is '
          f'{config.eval.num_clips}; the frames of so many clips take',
          'lower eval.num_clips',
      )
  if mode in ('train', 'sample'):
    scalars = 3 * (sample.frames or data.frames) * data.height * data.width
    # uint8 of each clip, float32 of those being drawn.
    _require_memory(
        scalars * (sample.num_videos + 4 * sample.batch_size),
        f'sample.num_videos is {sample.num_videos} and sample.batch_size '
        f'{sample.batch_size}; their frames take',
        'lower them or sample.frames, and draw more clips by other values of '
        'sample.seed',
    )


def parameters(config: ml_collections.ConfigDict) -> int:
  """About how many parameters the network has, to within a quarter.

  Counted without a trace, which would take minutes where it has too many.
  """
  model, text = config.model, config.text
  injected = 2 if model.injection == 'scale_shift' else 1
  kernel = 27 if model.conv == 'full_3d' else 9
  channels = [model.base_channels * mult for mult in model.channel_mults]
  total = (model.emb_layers + 1) * model.emb_dim**2
  total += model.cond_dim * (model.emb_dim + model.cond_dim)
  if text.encoder:
    total += text.dim * (text.max_pieces + 2 * model.cond_dim)

  def block(before, after):
    # Two convolutions, the embedding, and the two attentions of most blocks.
    convolutions = kernel * after * (before + after)
    return convolutions + injected * model.emb_dim * after + 8 * after**2

  before, skips = model.base_channels, [model.base_channels]
  for level, after in enumerate(channels):
    for _ in range(model.num_blocks + (level < len(channels) - 1)):
      total += block(before, after)
      before = after
      skips.append(after)
  total += 2 * block(before, before)
  for level, after in reversed(list(enumerate(channels))):
    for _ in range(model.num_blocks + 1):
      total += block(before + skips.pop(), after)
      before = after
    total += block(before, after) * (level > 0)
  return total


def host_memory() -> int | None:
  """Bytes that this process may hold at most; None where nothing says it."""
  found = []
  try:
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  except (AttributeError, ValueError, OSError):
    pass
  try:
    found.append(int(_LIMIT.read_text()))
  except (OSError, ValueError):  # there is none, or it is 'max'
    pass
  return min(found, default=None)


def _require_memory(needed: int, what: str, advice: str) -> None:
  """Requires that this process can hold its share of so many bytes."""
  needed //= jax.process_count()
  there = host_memory()
  if there is not None and needed > there:
    raise UserError(
        f'{what} {needed / 2**30:,.1f} GiB of memory, and this machine '
        f'has {there / 2**30:,.1f}: {advice}.'
    )
