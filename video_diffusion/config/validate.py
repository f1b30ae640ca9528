"""Checks of a config, all before any compile.

Each failure is a UserError of one sentence that names the field.
"""
import functools

import jax
import ml_collections

from video_diffusion.config import fields
from video_diffusion.config import sizes as sizes_lib
from video_diffusion.data import pipeline
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.errors import UserError
from video_diffusion.models import attention
from video_diffusion.models import blocks
from video_diffusion.models import conditioning
from video_diffusion.models import text_pooling
from video_diffusion.models import unet3d
from video_diffusion.parallel import sharding

DTYPES = ('float32', 'bfloat16')
TEXT_ENCODERS = ('', 'table', 't5')
TASKS = ('extend', 'extend_backwards', 'interpolate')


def require(condition: bool, sentence: str) -> None:
  """Raises UserError(sentence) unless the condition holds."""
  if not condition:
    raise UserError(sentence)


def field(config: ml_collections.ConfigDict, name: str):
  """config.group.field for 'group.field'."""
  return functools.reduce(getattr, name.split('.'), config)


def mixed(
    config: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """'data.mixture.NAME', 'data.image_mixture.NAME' -> fields, by name."""
  return {
      f'data.{group}.{name}': own
      for group in ('mixture', 'image_mixture')
      for name, own in sorted(config.data[group].items())
  }


def _check_mixture(config):
  data = config.data
  for prefix, own in {'data': data, **mixed(config)}.items():
    weight = own.get('weight', 1.0)
    require(
        weight > 0, f'{prefix}.weight is {weight!r}; it must be above 0.'
    )
    require(
        not (data.flip and own.name == 'moving_shapes'),
        f'data.flip is set, but {prefix}.name is moving_shapes, and a mirrored '
        'clip would contradict its direction labels; leave it off.',
    )


def _check_text(config, mode):
  heads = text_pooling.NUM_HEADS
  require(
      config.text.path or config.text.encoder != 't5' or mode == 'inspect',
      "text.encoder is 't5', but text.path is empty; give the checkpoint of a "
      'T5, as docs/text.md describes.',
  )
  require(
      not config.text.encoder
      or (config.model.cond_dim > 0 and config.model.cond_dim % heads == 0),
      f'model.cond_dim is {config.model.cond_dim}; with text.encoder '
      f'{config.text.encoder!r} it must be a multiple of the {heads} heads '
      'that pool a caption.',
  )


def conditioning_kind(config: ml_collections.ConfigDict) -> str:
  """The entry of `conditioning.KINDS` of a run; '' if it is unconditional."""
  if not config.model.cond_dim:
    return ''
  return 'text' if config.text.encoder else config.model.conditioning


def check(config: ml_collections.ConfigDict, mode: str = 'train') -> None:
  """Checks a config for a mode on this machine.

  Args:
    config: the whole config.
    mode: 'train', 'sample' or 'evaluate', whose own batch sizes must divide
      by the devices; 'prepare' or 'inspect'.

  Raises:
    UserError: one sentence that names the field.
  """
  data, model, optim = config.data, config.model, config.optim
  fields.check(config)
  for name in ('optim.clip_norm', 'optim.lr'):
    require(field(config, name) > 0, f'{name} must be above 0.')
  sizes_lib.check(config, mode)
  _check_mixture(config)
  _check_text(config, mode)
  mesh = sharding.make_mesh(fsdp=config.mesh.fsdp, model=config.mesh.model)
  devices = sharding.batch_devices(mesh)
  for name in {
      'train': ('batch_size', 'eval.batch_size', 'sample.batch_size'),
      'sample': ('sample.batch_size',),
      'evaluate': ('eval.batch_size',),
      'prepare': (),
      'inspect': (),
  }[mode]:
    size = field(config, name)
    require(
        size % devices == 0,
        f'{name} is {size}; it must divide by the {devices} devices that '
        'share a batch.',
    )
  clips, size = config.sample.num_videos, config.sample.batch_size
  require(
      jax.process_count() == 1 or clips % size == 0
      or mode not in ('train', 'sample'),
      f'sample.num_videos is {clips}; where several processes draw, it must '
      f'divide by sample.batch_size, {size}.',
  )
  require(
      config.eval.num_clips % config.eval.batch_size == 0,
      f'eval.num_clips is {config.eval.num_clips}; it must divide by '
      f'eval.batch_size, {config.eval.batch_size}.',
  )
  if mode == 'train':
    for name in ('video', 'refine_workdir'):
      require(
          not config.sample[name],
          f'sample.{name} is set, which training does not use; pass it with '
          '--mode=sample.',
      )
    require(
        optim.schedule != 'cosine' or optim.decay_steps >= config.train.steps,
        f'train.steps is {config.train.steps}, but the cosine rate is zero '
        f'from optim.decay_steps, {optim.decay_steps}, on; set both, in a '
        'workdir of its own.',
    )
    parts = config.train.accumulate
    require(
        config.batch_size % (parts * devices) == 0,
        f'train.accumulate is {parts}; batch_size, {config.batch_size}, must '
        f'divide by {parts} parts times the {devices} devices.',
    )
  levels = len(model.channel_mults)
  factor = 2 ** (levels - 1)
  for side in ('height', 'width'):
    require(
        data[side] >= factor and data[side] % factor == 0,
        f'data.{side} is {data[side]}; with {levels} levels it must divide by '
        f'{factor}.',
    )
  sizes = unet3d.level_sizes(data.height, data.width, levels)
  for resolution in model.attention_resolutions:
    require(
        resolution in sizes,
        f'model.attention_resolutions holds {resolution}, which never occurs; '
        f'the levels have {tuple(sizes)}.',
    )
  for resolution in model.remat:
    require(
        resolution in sizes,
        f'model.remat holds {resolution}, which never occurs; the levels have '
        f'{tuple(sizes)}.',
    )
  require(
      model.base_channels % 2 == 0,
      f'model.base_channels is {model.base_channels}; it must be even.',
  )
  attending = [
      mult for mult, size in zip(model.channel_mults, sizes, strict=True)
      if size in model.attention_resolutions
  ] + [model.channel_mults[-1]]
  for mult in attending:
    require(
        mult * model.base_channels % model.head_dim == 0,
        f'model.head_dim is {model.head_dim}; it must divide the '
        f'{mult * model.base_channels} channels of an attention level.',
    )
  for name, value, allowed in (
      ('text.encoder', config.text.encoder, TEXT_ENCODERS),
      ('text.dtype', config.text.dtype, DTYPES),
      ('model.conditioning', model.conditioning,
       tuple(kind for kind in conditioning.KINDS if kind != 'text')),
      ('model.injection', model.injection, blocks.INJECTIONS),
      ('model.position', model.position, attention.POSITIONS),
      ('model.dtype', model.dtype, DTYPES),
      ('diffusion.prediction', config.diffusion.prediction,
       loss_lib.PREDICTIONS),
      ('sample.sampler', config.sample.sampler, tuple(samplers.SAMPLERS)),
      ('data.loader', data.loader, pipeline.LOADERS),
      ('sample.replacement', config.sample.replacement,
       sampling.REPLACEMENTS),
      ('sample.task', config.sample.task, TASKS),
      ('sample.clip', config.sample.clip, guidance.CLIPPINGS),
      ('checkpoint.export', config.checkpoint.export, ('', *DTYPES)),
  ):
    require(
        value in allowed, f'{name} is {value!r}; it must be one of {allowed}.'
    )
  require(
      -20 <= config.diffusion.logsnr_min < config.diffusion.logsnr_max <= 20,
      'diffusion.logsnr_min must be below diffusion.logsnr_max, both within '
      '[-20, 20], the range that the network embeds.',
  )
