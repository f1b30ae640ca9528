"""From a config to the objects of a run, with every check before any compile.

Config objects stop here and in the modes (train, sample, evaluate): what lies
below takes plain keyword arguments.
"""
from collections.abc import Callable
import functools
import json
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from video_diffusion import checkpoint
from video_diffusion import partitioning
from video_diffusion import train_state
from video_diffusion import weights
from video_diffusion.data import datasets
from video_diffusion.data import pipeline
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import sampling
from video_diffusion.diffusion import schedules
from video_diffusion.models import blocks
from video_diffusion.models import conditional
from video_diffusion.models import unet3d

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
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
  require(
      model.base_channels % 2 == 0 and model.base_channels >= 4,
      f'model.base_channels is {model.base_channels}; it must be even and at '
      'least 4.',
  )
  for name, value, allowed in (
      ('model.injection', model.injection, blocks.INJECTIONS),
      ('model.dtype', model.dtype, tuple(DTYPES)),
      ('diffusion.prediction', config.diffusion.prediction,
       loss_lib.PREDICTIONS),
      ('sample.sampler', config.sample.sampler, sampling.SAMPLERS),
      ('data.loader', data.loader, pipeline.LOADERS),
      ('checkpoint.export', config.checkpoint.export, ('', *DTYPES)),
  ):
    require(value in allowed, f'{name} is {value!r}; one of {allowed} is meant.')
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


def make_source(
    config: ml_collections.ConfigDict, split: str
) -> pipeline.Source:
  """The data set's source of clips; prepares records on first use."""
  options = {
      name: value
      for name, value in config.data.items()
      if name not in ('images', 'loader', 'flip')
  }
  return datasets.make_source(
      options.pop('name'), split=split, seed=config.seed, **options
  )


def make_batches(
    config: ml_collections.ConfigDict,
    source: pipeline.Source,
    *,
    start: int,
    stop: int,
):
  """This host's training batches of steps start .. stop - 1."""
  return pipeline.batches(
      source,
      batch_size=config.batch_size,
      num_frames=config.data.frames,
      num_images=config.data.images,
      seed=config.seed,
      start=start,
      stop=stop,
      flip=config.data.flip,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      loader=config.data.loader,
  )


def make_model(
    config: ml_collections.ConfigDict, label_sizes: tuple[int, ...]
) -> conditional.ConditionalUNet:
  """The network; its label encoder only where cond_dim and labels are."""
  fields = config.model.to_dict()
  cond_dim = fields.pop('cond_dim')
  fields['dtype'] = DTYPES[fields['dtype']]
  encoder = None
  if cond_dim:
    require(
        bool(label_sizes),
        f'model.cond_dim is {cond_dim}, but data.name {config.data.name!r} has '
        'no labels; set it to 0.',
    )
    encoder = conditional.LabelEncoder(label_sizes, cond_dim)
  return conditional.ConditionalUNet(unet3d.UNet3D(**fields), encoder)


def label_sizes(source: pipeline.Source) -> tuple[int, ...]:
  """The number of values of each label slot of a source, () without labels."""
  return getattr(source, 'label_sizes', ())


def make_logsnr_fn(config: ml_collections.ConfigDict) -> Callable:
  """The cosine schedule on the config's log-SNR range."""
  return functools.partial(
      schedules.cosine_logsnr,
      logsnr_min=config.diffusion.logsnr_min,
      logsnr_max=config.diffusion.logsnr_max,
  )


def batch_shapes(
    config: ml_collections.ConfigDict, sizes: tuple[int, ...]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of one global training batch."""
  data, b = config.data, config.batch_size
  shapes = {
      'video': jax.ShapeDtypeStruct(
          (b, data.frames + data.images, data.height, data.width, 3), jnp.uint8
      )
  }
  if sizes:
    shapes['labels'] = jax.ShapeDtypeStruct(
        (b, 1 + data.images, len(sizes)), jnp.int32
    )
  return shapes


def make_denoise_fn(
    config: ml_collections.ConfigDict,
    model: conditional.ConditionalUNet,
    params: Any,
    labels: jax.Array | None,
) -> Callable:
  """(z, logsnr) -> x_hat of a network, for one batch of labels."""

  def denoise_fn(z, logsnr):
    output = model.apply({'params': params}, z, logsnr, labels=labels)
    return loss_lib.x_hat(
        z=z,
        output=output,
        logsnr=logsnr,
        prediction=config.diffusion.prediction,
    )

  return denoise_fn


def heldout_batches(config: ml_collections.ConfigDict, source):
  """Global batches of held-out clips, the same at every call."""
  size = config.eval.batch_size
  steps = max(1, min(config.eval.num_clips, source.num_examples) // size)
  return pipeline.batches(
      source,
      batch_size=size,
      num_frames=config.data.frames,
      num_images=0,
      seed=0,
      stop=steps,
      shuffle=False,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      loader=config.data.loader,
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


def restore_ema(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    model: conditional.ConditionalUNet,
    sizes: tuple[int, ...],
) -> tuple[Any, int]:
  """(EMA parameters, step) of the newest checkpoint, else exported weights.

  Raises:
    ValueError: workdir holds neither.
  """
  mesh = partitioning.make_mesh()
  params = jax.eval_shape(
      lambda: train_state.init_params(
          model, batch_shapes(config, sizes), seed=config.seed
      )
  )
  target = checkpoint.abstract(params, partitioning.replicated(mesh))
  folder = workdir / 'checkpoints'
  if folder.exists():
    checkpoints = checkpoint.Checkpoints(folder)
    step = checkpoints.latest_step()
    if step is not None:
      ema = checkpoints.restore(
          step, train_state.TrainState(None, None, target, None)
      ).ema_params
      checkpoints.close()
      return ema, step
    checkpoints.close()
  exported = workdir / weights.FOLDER
  require(
      exported.exists(),
      f'{workdir} holds no checkpoint yet; train longer than one '
      'checkpoint.every, or to the end.',
  )
  ema, step = weights.load(exported, target)
  return jax.device_put(ema, partitioning.replicated(mesh)), step


def tree_size(tree: Any) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
