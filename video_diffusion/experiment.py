"""From a config to the objects of a run: data, model, denoiser, weights.

Config objects stop here and in the modes (train, sample, evaluate): what lies
below takes plain keyword arguments.
"""
from collections.abc import Callable
import contextlib
import functools
import re
from typing import Any

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from video_diffusion import checkpoint
from video_diffusion import default_config
from video_diffusion import partitioning
from video_diffusion import train_state
from video_diffusion import validation
from video_diffusion import weights
from video_diffusion.config import source_checks
from video_diffusion.data import datasets
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import mixing
from video_diffusion.data import pipeline
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import schedules
from video_diffusion.errors import UserError
from video_diffusion.models import conditional
from video_diffusion.models import hardware
from video_diffusion.models import text as text_lib
from video_diffusion.models import unet3d
from video_diffusion.parallel import memory

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def data_sets(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Where in the config a data set stands -> its name, weight and own fields.

  'data' first, then 'data.mixture.NAME' and 'data.image_mixture.NAME', each in
  the order of their names.
  """
  shared = {*default_config.get_config().data} - {'name', 'weight'}
  own = {k: v for k, v in config.data.items() if k not in shared}
  mixed = validation.mixed(config)
  return {'data': own} | {
      prefix: {'weight': 1.0, **fields} for prefix, fields in mixed.items()
  }


def drawn(config: ml_collections.ConfigDict) -> bool:
  """Whether all clips are moving_shapes: no data are needed to have labels."""
  return all(
      fields['name'] == 'moving_shapes' for fields in data_sets(config).values()
  )


@contextlib.contextmanager
def _fields_of(prefix):
  """Errors name the fields of a data set where they stand in the config."""
  try:
    yield
  except UserError as error:
    if prefix == 'data':
      raise
    names = '|'.join({'name'}.union(*datasets.OPTIONS.values()))
    sentence = re.sub(rf'\bdata\.({names})\b', rf'{prefix}.\1', str(error))
    raise UserError(sentence) from error


def make_source(
    config: ml_collections.ConfigDict, split: str
) -> mixing.Source | mixing.Mixture:
  """The source of clips; prepares records on first use.

  A mixture where the config has further data sets. Data sets with the same
  fields are one source: images then avoid the video of their clip.

  Raises:
    UserError: names the field, of all data sets before any is prepared; or
      `source_checks.check` refuses what was prepared.
  """
  data, sets = config.data, data_sets(config)
  weights = {prefix: fields.pop('weight') for prefix, fields in sets.items()}
  for prefix, fields in sets.items():
    with _fields_of(prefix):
      datasets.check(fields['name'], fields.keys() - {'name'})
  image_sets = [p for p in sets if p.startswith('data.image_mixture.')]
  made, sources = {}, {}
  for prefix, fields in sets.items():
    key = repr(sorted(fields.items()))
    if key not in made:
      image = prefix in image_sets
      with _fields_of(prefix):
        made[key] = datasets.make_source(
            split=split,
            seed=config.seed,
            frames=1 if image else data.frames,
            frameskips=(1,) if image else tuple(data.frameskips),
            height=data.height,
            width=data.width,
            limits=limits_lib.from_fields(data),
            **fields,
        )
    sources[prefix] = made[key]
  source_checks.check(config, sources, split=split)
  if len(sources) == 1:
    return sources['data']

  def mixture(prefixes, images=None):
    return mixing.Mixture(
        [sources[p] for p in prefixes], [weights[p] for p in prefixes], images
    )

  images = mixture(image_sets) if image_sets else None
  return mixture([p for p in sets if p not in image_sets], images)


def make_batches(
    config: ml_collections.ConfigDict,
    source: mixing.Source,
    *,
    start: int,
    stop: int,
    encode: pipeline.Encode | None = None,
):
  """This host's training batches of steps start .. stop - 1.

  Args:
    config: of the run.
    source: of clips.
    start: first step.
    stop: one past the last.
    encode: of the captions of a run with text, from `text_input.open_text`.
  """
  return pipeline.batches(
      source,
      batch_size=config.batch_size,
      num_frames=config.data.frames,
      num_images=config.data.images,
      seed=config.seed,
      start=start,
      stop=stop,
      flip=config.data.flip,
      frameskips=config.data.frameskips,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      loader=config.data.loader,
      encode=encode,
  )


def batch_clips(
    config: ml_collections.ConfigDict, source, step: int
) -> list[tuple[int, int]]:
  """(source, clip) of every row of the global batch that makes step `step`."""
  mixture = mixing.as_mixture(source)
  first = (step - 1) * config.batch_size
  return [
      pipeline.clip_at(mixture, first + row, seed=config.seed)
      for row in range(config.batch_size)
  ]


def make_mesh(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
  """All devices, on the axes that the config wants."""
  return partitioning.make_mesh(fsdp=config.mesh.fsdp, model=config.mesh.model)


def make_model(
    config: ml_collections.ConfigDict, label_sizes: tuple[int, ...] = ()
) -> conditional.ConditionalUNet:
  """The network, with an encoder of text or of labels where cond_dim is set."""
  fields = config.model.to_dict()
  cond_dim = fields.pop('cond_dim')
  fields['dtype'] = DTYPES[fields['dtype']]
  if shortcoming := hardware.shortcoming(fields['dtype']):
    logging.warning(shortcoming)
  encoder, text = None, config.text
  if text.encoder:
    table = None
    if text.encoder == 'table':
      table = text_lib.TokenTable(text.max_pieces, text.length, text.dim)
    encoder = text_lib.TextEncoder(cond_dim, table, fields['dtype'])
  elif cond_dim:
    validation.require(
        bool(label_sizes),
        f'model.cond_dim is {cond_dim}, but data.name {config.data.name!r} has '
        'no labels, or a data set mixed with it has not the same; set it to 0.',
    )
    encoder = conditional.LabelEncoder(label_sizes, cond_dim)
  return conditional.ConditionalUNet(unet3d.UNet3D(**fields), encoder)


def label_sizes(source: mixing.Source) -> tuple[int, ...]:
  """The number of values of each label slot of a source, () without labels."""
  return tuple(getattr(source, 'label_sizes', ()))


def make_logsnr_fn(config: ml_collections.ConfigDict) -> Callable:
  """The cosine schedule on the config's log-SNR range, with its shift."""
  return functools.partial(
      schedules.cosine_logsnr,
      logsnr_min=config.diffusion.logsnr_min,
      logsnr_max=config.diffusion.logsnr_max,
      shift=config.diffusion.logsnr_shift,
  )


def batch_shapes(
    config: ml_collections.ConfigDict, sizes: tuple[int, ...] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of one global training batch."""
  data, b = config.data, config.batch_size
  shapes = {
      'video': jax.ShapeDtypeStruct(
          (b, data.frames + data.images, data.height, data.width, 3), jnp.uint8
      )
  }
  if config.text.encoder:
    shape = (b, 1 + data.images, config.text.length)
    shapes['mask'] = jax.ShapeDtypeStruct(shape, jnp.bool_)
    shapes['tokens'] = (
        jax.ShapeDtypeStruct(shape, jnp.int32)
        if config.text.encoder == 'table'
        else jax.ShapeDtypeStruct((*shape, config.text.dim), jnp.bfloat16)
    )
  elif sizes:
    shapes['labels'] = jax.ShapeDtypeStruct(
        (b, 1 + data.images, len(sizes)), jnp.int32
    )
  return shapes


def make_denoise_fn(
    config: ml_collections.ConfigDict,
    model: conditional.ConditionalUNet,
    params: Any,
    condition: dict[str, jax.Array] | None,
) -> Callable:
  """(z, logsnr) -> x_hat of a network, for one batch of conditions."""

  def denoise_fn(z, logsnr):
    output = model.apply({'params': params}, z, logsnr, condition=condition)
    return loss_lib.x_hat(
        z=z,
        output=output,
        logsnr=logsnr,
        prediction=config.diffusion.prediction,
    )

  return denoise_fn


def heldout_batches(
    config: ml_collections.ConfigDict,
    source,
    encode: pipeline.Encode | None = None,
):
  """Global batches of eval.num_clips windows, the same at every call.

  A window of each held-out clip in turn; further windows of them where there
  are fewer clips.
  """
  return pipeline.batches(
      source,
      batch_size=config.eval.batch_size,
      num_frames=config.data.frames,
      num_images=0,
      seed=0,
      stop=config.eval.num_clips // config.eval.batch_size,
      shuffle=False,
      frameskips=config.data.frameskips,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      loader=config.data.loader,
      encode=encode,
  )


def restore_ema(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    model: conditional.ConditionalUNet,
    sizes: tuple[int, ...],
) -> tuple[Any, int]:
  """(EMA parameters, step) of the newest checkpoint, else exported weights.

  A checkpoint that cannot be read is passed over for the one before it.

  Raises:
    UserError: workdir holds neither, none that can be read, weights that are
      not finite, or more of them than fit into a device.
  """
  mesh = make_mesh(config)
  params = jax.eval_shape(
      lambda: train_state.init_params(
          model, batch_shapes(config, sizes), seed=config.seed
      )
  )
  target = partitioning.abstract(params, mesh, config.mesh.min_sharded)
  need = memory.Need(memory.tree_bytes(target), memory.limit())
  validation.require(
      not need.there or need.asked <= need.there,
      f'{memory.misfit(f"the model of {workdir}", need)}; share it among more '
      'devices (mesh.fsdp).',
  )
  folder = workdir / 'checkpoints'
  if folder.exists():
    checkpoints = checkpoint.Checkpoints(folder)
    try:
      # A training may be at work there: nothing is renamed under its hands.
      found = checkpoints.restore_latest(
          train_state.TrainState(None, None, target, None), set_aside=False
      )
    except UserError as error:
      raise UserError(
          f'{error} If they are sound, they do not hold the model of '
          f'{workdir / "config.json"}.'
      ) from error
    finally:
      checkpoints.close()
    if found is not None:
      state, step = found
      weights.require_finite(state.ema_params, folder / str(step))
      return state.ema_params, step
  exported = workdir / weights.FOLDER
  validation.require(
      exported.exists(),
      f'{workdir} holds no checkpoint yet; train longer than one '
      'checkpoint.every, or to the end.',
  )
  ema, step = weights.load(exported, target)
  layout = partitioning.shardings(ema, mesh, config.mesh.min_sharded)
  ema = jax.device_put(ema, layout)
  weights.require_finite(ema, exported)
  return ema, step


def tree_size(tree: Any) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
