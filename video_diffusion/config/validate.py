"""Checks of a config, all before any compile.

Each failure is a UserError of one sentence that names the field.
"""
import functools

import jax
import ml_collections

from video_diffusion.config import fields
from video_diffusion.config import next_frames
from video_diffusion.config import sizes as sizes_lib
from video_diffusion.data import pipeline
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.models import attention
from video_diffusion.models import blocks
from video_diffusion.models import conditioning
from video_diffusion.models import text_pooling
from video_diffusion.models import unet3d
from video_diffusion.parallel import sharding
from video_diffusion.training import best
from video_diffusion.training import optimizer as optimizer_lib

DTYPES = ('float32', 'bfloat16')
RUNNERS = ('local', 'beam')
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
  fields.check(config)
  sizes_lib.check(config, mode)
  with naming(lambda name: f'mesh.{name}'):
    mesh = sharding.make_mesh(fsdp=config.mesh.fsdp, model=config.mesh.model)
  devices = sharding.batch_devices(mesh)
  _check_batch_sizes(config, mode, devices)
  _check_data(config)
  _check_text(config, mode)
  _check_prepare(config)
  _check_model(config)
  _check_attention(config)
  _check_diffusion(config)
  next_frames.check(config)
  _check_optim(config)
  if mode == 'train':
    _check_train(config, devices)
  _require_one_of(config, 'checkpoint.export', ('', *DTYPES))
  _require_one_of(config, 'checkpoint.best_is', best.DIRECTIONS)
  _check_eval(config)
  _check_sample(config, mode)


def _require_one_of(config, name, allowed):
  value = field(config, name)
  require(
      value in allowed,
      f'{name} is {value!r}; it must be one of {tuple(allowed)}.',
  )


def _check_batch_sizes(config, mode, devices):
  """Requires that the batches of a mode divide by the devices."""
  names = {
      'train': ('batch_size', 'eval.batch_size', 'sample.batch_size'),
      'sample': ('sample.batch_size',),
      'evaluate': ('eval.batch_size',),
  }.get(mode, ())
  for name in names:
    size = field(config, name)
    require(
        size % devices == 0,
        f'{name} is {size}; it must divide by the {devices} devices that '
        'share a batch.',
    )


def _check_data(config):
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
  levels, patch = len(config.model.channel_mults), config.model.patch_size
  factor = patch * 2 ** (levels - 1)
  patches = f' and model.patch_size {patch}' if patch > 1 else ''
  for side in ('height', 'width'):
    require(
        data[side] >= factor and data[side] % factor == 0,
        f'data.{side} is {data[side]}; with {levels} levels{patches} it must '
        f'divide by {factor}.',
    )
  _require_one_of(config, 'data.loader', pipeline.LOADERS)


def _check_text(config, mode):
  text, cond_dim = config.text, config.model.cond_dim
  heads = text_pooling.NUM_HEADS
  _require_one_of(config, 'text.encoder', TEXT_ENCODERS)
  require(
      text.path or text.encoder != 't5' or mode == 'inspect',
      "text.encoder is 't5', but text.path is empty; give the checkpoint of a "
      'T5, as docs/text.md describes.',
  )
  require(
      not text.encoder or (cond_dim > 0 and cond_dim % heads == 0),
      f'model.cond_dim is {cond_dim}; with text.encoder {text.encoder!r} it '
      f'must be a multiple of the {heads} heads that pool a caption.',
  )
  _require_one_of(config, 'text.dtype', DTYPES)
  _require_one_of(config, 'text.injection', conditioning.INJECTIONS)
  require(
      text.injection == 'embedding' or bool(text.encoder),
      f"text.injection is {text.injection!r}, but text.encoder is '', so that "
      "there is no text to add; set it to 'embedding'.",
  )


def _check_prepare(config):
  prepare = config.prepare
  _require_one_of(config, 'prepare.runner', RUNNERS)
  require(
      prepare.task < max(1, prepare.tasks),
      f'prepare.task is {prepare.task}; it must be below the '
      f'{prepare.tasks} of prepare.tasks, for they are counted from 0.',
  )
  require(
      not prepare.tasks or prepare.runner == 'local',
      f'prepare.tasks is {prepare.tasks}, but prepare.runner is '
      f"{prepare.runner!r}, which divides the files itself; set one of them.",
  )
  for name in ('beam_options', 'bucket'):
    require(
        not prepare[name] or prepare.runner == 'beam',
        f'prepare.{name} is set, but prepare.runner is {prepare.runner!r}; set '
        "it to 'beam'.",
    )


def _check_model(config):
  base_channels = config.model.base_channels
  require(
      base_channels % 2 == 0,
      f'model.base_channels is {base_channels}; it must be even.',
  )
  kinds = tuple(kind for kind in conditioning.KINDS if kind != 'text')
  _require_one_of(config, 'model.conditioning', kinds)
  _require_one_of(config, 'model.injection', blocks.INJECTIONS)
  _require_one_of(config, 'model.position', attention.POSITIONS)
  _require_one_of(config, 'model.conv', blocks.CONVS)
  require(
      config.model.conv == 'space' or config.data.frames > 1,
      f'model.conv is {config.model.conv!r}, but data.frames is 1, so that '
      "there are no frames before or after; set it to 'space'.",
  )
  _require_one_of(config, 'model.heads', unet3d.HEADS)
  require(
      config.model.heads == 'shared' or config.data.images > 0,
      "model.heads is 'separate', but data.images is 0, so that there are no "
      "images for a head of their own; set it to 'shared'.",
  )
  _require_one_of(config, 'model.dtype', DTYPES)
  require(
      config.model.cond_dim > 0 or not config.distill.max_guidance_weight,
      'distill.max_guidance_weight is set, but model.cond_dim is 0, and '
      'without a condition there is no guidance; set it to 0.',
  )


def _check_attention(config):
  """Requires that attention and remat name levels that the network has."""
  data, model = config.data, config.model
  sizes = unet3d.level_sizes(
      data.height, data.width, len(model.channel_mults), model.patch_size
  )
  for name in (
      'attention_resolutions', 'temporal_resolutions', 'spacetime_resolutions',
      'remat',
  ):
    for resolution in model[name]:
      require(
          resolution in sizes,
          f'model.{name} holds {resolution}, which never occurs; the levels '
          f'have {tuple(sizes)}.',
      )
  # The middle of the network attends, whatever the resolutions.
  spatial = {*model.attention_resolutions, sizes[-1]}
  for resolution in model.spacetime_resolutions:
    require(
        resolution in spatial,
        f'model.spacetime_resolutions holds {resolution}, a level without '
        'attention over space; add it to model.attention_resolutions too.',
    )
  attending = [
      mult for mult, size in zip(model.channel_mults, sizes, strict=True)
      if size in (*model.attention_resolutions, *model.temporal_resolutions)
  ] + [model.channel_mults[-1]]
  for mult in attending:
    require(
        mult * model.base_channels % model.head_dim == 0,
        f'model.head_dim is {model.head_dim}; it must divide the '
        f'{mult * model.base_channels} channels of an attention level.',
    )


def _check_diffusion(config):
  diffusion = config.diffusion
  _require_one_of(config, 'diffusion.prediction', loss_lib.PREDICTIONS)
  _require_one_of(config, 'diffusion.weighting', loss_lib.WEIGHTINGS)
  predictions = ('', *loss_lib.PREDICTIONS)
  _require_one_of(config, 'distill.teacher_prediction', predictions)
  require(
      -20 <= diffusion.logsnr_min < diffusion.logsnr_max <= 20,
      'diffusion.logsnr_min must be below diffusion.logsnr_max, both within '
      '[-20, 20], the range that the network embeds.',
  )


def _check_optim(config):
  _require_one_of(config, 'optim.name', optimizer_lib.OPTIMIZERS)
  for name in ('optim.lr', 'optim.clip_norm'):
    require(field(config, name) > 0, f'{name} must be above 0.')


def _check_train(config, devices):
  """Checks what only a training needs."""
  optim, distill, parts = config.optim, config.distill, config.train.accumulate
  require(
      optim.schedule != 'cosine' or optim.decay_steps >= config.train.steps,
      f'train.steps is {config.train.steps}, but the cosine schedule is zero '
      f'from optim.decay_steps, {optim.decay_steps}, on; set both, in a '
      'workdir of its own.',
  )
  require(
      config.batch_size % (parts * devices) == 0,
      f'train.accumulate is {parts}; batch_size, {config.batch_size}, must '
      f'divide by {parts} parts times the {devices} devices.',
  )
  # What --mode=distill sets beside, without which these would be ignored.
  distilled = distill.num_steps > 0 or distill.teacher_prediction != ''
  require(
      bool(distill.teacher) or not distilled,
      'distill.num_steps or distill.teacher_prediction is set without '
      'distill.teacher; --mode=distill sets them.',
  )
  for name in ('teacher', 'max_guidance_weight', 'reconstruction_weight'):
    require(
        not distill[name] or distilled,
        f'distill.{name} is set, which goes with --mode=distill.',
    )
  for name in ('video', 'refine_workdir'):
    require(
        not config.sample[name],
        f'sample.{name} is set, which training does not use; pass it with '
        '--mode=sample.',
    )


def _check_eval(config):
  num_clips, batch_size = config.eval.num_clips, config.eval.batch_size
  require(
      num_clips % batch_size == 0,
      f'eval.num_clips is {num_clips}; it must divide by eval.batch_size, '
      f'{batch_size}.',
  )


def _check_sample(config, mode):
  num_videos, batch_size = config.sample.num_videos, config.sample.batch_size
  require(
      jax.process_count() == 1 or num_videos % batch_size == 0
      or mode not in ('train', 'sample'),
      f'sample.num_videos is {num_videos}; where several processes sample, it '
      f'must divide by sample.batch_size, {batch_size}.',
  )
  _require_one_of(config, 'sample.sampler', samplers.SAMPLERS)
  _require_one_of(config, 'sample.clip', guidance.CLIPPINGS)
  _require_one_of(config, 'sample.replacement', sampling.REPLACEMENTS)
  _require_one_of(config, 'sample.task', TASKS)
