"""Checks of a config and of a workdir, all before any compile.

Each failure is a ValueError of one sentence that names the field.
"""
import functools
import json
from typing import Any

from etils import epath
import jax
import ml_collections

from video_diffusion.data import pipeline
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import sampling
from video_diffusion.models import blocks
from video_diffusion.models import unet3d

DTYPES = ('float32', 'bfloat16')
# A run may be continued only with these as they were.
FIXED = ('seed', 'batch_size', 'data', 'model', 'diffusion', 'optim')
# Where data lie, and how they are read, may change between machines.
MOVABLE = ('data.dir', 'data.path', 'data.loader', 'model.remat')


def require(condition: bool, sentence: str) -> None:
  """Raises ValueError(sentence) unless the condition holds."""
  if not condition:
    raise ValueError(sentence)


def check(config: ml_collections.ConfigDict) -> None:
  """Checks a config for this machine; raises ValueError with one sentence."""
  data, model = config.data, config.model
  for name in ('batch_size', 'train.steps', 'log.every', 'checkpoint.every',
               'checkpoint.keep', 'eval.num_clips', 'eval.batch_size',
               'sample.num_clips', 'sample.batch_size', 'sample.num_steps',
               'data.frames', 'model.base_channels', 'model.num_blocks',
               'model.emb_layers', 'model.head_dim'):
    value = functools.reduce(getattr, name.split('.'), config)
    require(value >= 1, f'{name} is {value}; it must be at least 1.')
  require(data.images >= 0, f'data.images is {data.images}; it must be >= 0.')
  devices = jax.device_count()
  for name, size in (
      ('batch_size', config.batch_size),
      ('eval.batch_size', config.eval.batch_size),
      ('sample.batch_size', config.sample.batch_size),
  ):
    require(
        size % devices == 0,
        f'{name} is {size}; it must divide by the {devices} devices.',
    )
  levels = len(model.channel_mults)
  require(levels >= 1, 'model.channel_mults is empty; it needs a level.')
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
  require(
      model.base_channels % 2 == 0 and model.base_channels >= 4,
      f'model.base_channels is {model.base_channels}; it must be even and at '
      'least 4.',
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
      ('model.injection', model.injection, blocks.INJECTIONS),
      ('model.dtype', model.dtype, DTYPES),
      ('diffusion.prediction', config.diffusion.prediction,
       loss_lib.PREDICTIONS),
      ('sample.sampler', config.sample.sampler, sampling.SAMPLERS),
      ('data.loader', data.loader, pipeline.LOADERS),
      ('checkpoint.export', config.checkpoint.export, ('', *DTYPES)),
  ):
    require(
        value in allowed, f'{name} is {value!r}; it must be one of {allowed}.'
    )
  for name, value in (
      ('model.dropout', model.dropout),
      ('diffusion.cond_drop', config.diffusion.cond_drop),
      ('sample.gamma', config.sample.gamma),
      ('sample.eta', config.sample.eta),
  ):
    require(0 <= value <= 1, f'{name} is {value}; it must lie in [0, 1].')
  require(
      config.diffusion.logsnr_min < config.diffusion.logsnr_max,
      'diffusion.logsnr_min must be below diffusion.logsnr_max.',
  )
  require(
      not (data.flip and data.name == 'moving_shapes'),
      'data.flip is set, but a mirrored moving_shapes clip would contradict '
      'its direction labels; leave it off.',
  )


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as plain JSON values."""
  return json.loads(config.to_json_best_effort())


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def claim_workdir(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> None:
  """Writes workdir/config.json, or refuses a directory of another run.

  Raises:
    ValueError: the directory holds a run whose data, model, diffusion,
      optimizer, seed or batch fields differ; names the fields.
  """
  path = workdir / 'config.json'
  mine = to_json(config)
  if path.exists():
    saved, wanted = flatten(json.loads(path.read_text())), flatten(mine)
    different = [
        f'{name} ({saved.get(name)!r} there, {wanted.get(name)!r} now)'
        for name in sorted(saved.keys() | wanted.keys())
        if name.split('.')[0] in FIXED
        and name not in MOVABLE
        and saved.get(name) != wanted.get(name)
    ]
    require(
        not different,
        f'{workdir} holds a run with another {", ".join(different)}; pass '
        'another --workdir, or the fields of that run.',
    )
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=1))


def saved_config(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> ml_collections.ConfigDict:
  """The config of the run in workdir, with this call's eval and sample fields.

  Raises:
    ValueError: there is no run in workdir.
  """
  path = workdir / 'config.json'
  require(
      path.exists(),
      f'{workdir} holds no run (no config.json); train first, or pass its '
      '--workdir.',
  )
  saved = ml_collections.ConfigDict(json.loads(path.read_text()))
  with saved.unlocked():
    saved.eval = config.eval
    saved.sample = config.sample
  return saved
