"""From a config to the objects of a run: data, model, denoiser, weights.

Config objects stop here and in the modes (train, sample, evaluate): what lies
below takes plain keyword arguments.
"""
from collections.abc import Callable
import dataclasses
import functools
import re
from typing import Any

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import ml_collections

from video_diffusion.checkpoints import checkpoint
from video_diffusion.checkpoints import shapes as shapes_lib
from video_diffusion.checkpoints import weights
from video_diffusion.config import next_frames
from video_diffusion.config import validate
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import schedules
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.inference import block_sampler
from video_diffusion.models import conditioning
from video_diffusion.models import hardware
from video_diffusion.models import unet3d
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import state as state_lib

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_mesh(config: ml_collections.ConfigDict) -> jax.sharding.Mesh:
  """All devices, on the axes that the config wants."""
  with naming(lambda name: f'mesh.{name}'):
    return sharding.make_mesh(fsdp=config.mesh.fsdp, model=config.mesh.model)


def make_model(
    config: ml_collections.ConfigDict, label_sizes: tuple[int, ...] = ()
) -> conditioning.ConditionalUNet:
  """The network, with an encoder where model.cond_dim is set.

  It has networks for the frames before the next one where extension.context
  asks for them.
  """
  fields = config.model.to_dict()
  cond_dim = fields.pop('cond_dim')
  del fields['conditioning']  # of the encoder
  fields['dtype'] = DTYPES[fields['dtype']]
  if shortcoming := hardware.shortcoming(fields['dtype']):
    logging.warning(shortcoming)
  encoder = make_encoder(config, label_sizes) if cond_dim else None
  return conditioning.ConditionalUNet(
      unet3d.UNet3D(**fields),
      encoder,
      config.text.injection,
      context=next_frames.make_context(config),
      max_guidance_weight=config.distill.max_guidance_weight,
  )


def make_encoder(
    config: ml_collections.ConfigDict, label_sizes: tuple[int, ...]
) -> conditioning.Encoder:
  """The encoder of what the network is conditioned on.

  Its fields are found by name among those below.
  """
  kind = validate.conditioning_kind(config)
  validate.require(
      bool(label_sizes) or kind != 'labels',
      f'model.cond_dim is {config.model.cond_dim}, but data.name '
      f'{config.data.name!r} has no labels, or a data set mixed with it has '
      'not the same; set it to 0.',
  )
  text = config.text
  known = {
      'dim': config.model.cond_dim,
      'dtype': DTYPES[config.model.dtype],
      'sizes': label_sizes,
      'length': text.length,
      'token_dim': text.dim,
      'max_pieces': text.max_pieces if text.encoder == 'table' else None,
  }
  encoder = conditioning.KINDS[kind]
  names = {field.name for field in dataclasses.fields(encoder)}
  return encoder(**{name: known[name] for name in known if name in names})


def make_logsnr_fn(config: ml_collections.ConfigDict) -> Callable:
  """The cosine schedule on the config's log-SNR range, with its shift."""
  return functools.partial(
      schedules.cosine_logsnr,
      logsnr_min=config.diffusion.logsnr_min,
      logsnr_max=config.diffusion.logsnr_max,
      shift=config.diffusion.logsnr_shift,
  )


def make_weight_fn(config: ml_collections.ConfigDict) -> Callable:
  """The weight of the training loss at a log-SNR."""
  diffusion = config.diffusion
  return functools.partial(
      loss_lib.weight,
      prediction=diffusion.prediction,
      weighting=diffusion.weighting,
      bias=diffusion.sigmoid_bias,
      shift=diffusion.logsnr_shift,
  )


def batch_shapes(
    config: ml_collections.ConfigDict, model: conditioning.ConditionalUNet
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of one global training batch: 'video' and the conditioning."""
  data, b = config.data, config.batch_size
  video = (b, data.frames + data.images, data.height, data.width, 3)
  return {'video': jax.ShapeDtypeStruct(video, jnp.uint8)} | {
      name: jax.ShapeDtypeStruct((b, 1 + data.images, *s.shape), s.dtype)
      for name, s in model.arrays().items()
  }


def sampling_settings(
    config: ml_collections.ConfigDict,
) -> block_sampler.Settings:
  """The settings of the sample fields.

  Raises:
    UserError: names the field.
  """
  options = config.sample
  with naming(lambda name: f'sample.{name}'):
    return block_sampler.Settings(
        sampler=samplers.make(
            options.sampler,
            **{name: options[name] for name in samplers.options()},
        ),
        **{
            field.name: options[field.name]
            for field in dataclasses.fields(block_sampler.Settings)
            if field.name != 'sampler'
        },
    )


def sample_arguments(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The arguments of `Model.sample` that the sample fields give."""
  options = config.sample
  return {
      'num_videos': options.num_videos,
      'prompts': options.prompts or None,
      'labels': options.labels or None,
      'frames': options.frames or None,
      'seed': options.seed,
  }


def saved_label_sizes(
    config: ml_collections.ConfigDict, run_dir: epath.PathLike
) -> tuple[int, ...]:
  """The label sizes of a trained run, as its weights have them.

  They are those of the data, which need not be on this machine.

  Returns:
    The number of values of each label slot; () for a model without labels.

  Raises:
    UserError: the run has no weights.
  """
  if validate.conditioning_kind(config) != 'labels':
    return ()
  shapes = shapes_lib.ema_shapes(run_dir)
  sizes = {
      int(found[1]): shape[0]
      for name, shape in shapes.items()
      if (found := re.fullmatch(r'encoder\.table_(\d+)', name))
  }
  validate.require(
      bool(shapes),
      f'{run_dir} holds no checkpoint yet; train longer than one '
      'checkpoint.every, or to the end.',
  )
  validate.require(
      bool(sizes),
      f'{run_dir} holds weights without a table of labels, which its '
      'config.json asks for; put the config.json of these weights there.',
  )
  return tuple(sizes[slot] for slot in sorted(sizes))


def restore_ema(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    model: conditioning.ConditionalUNet,
    step: int | None = None,
) -> tuple[Any, int]:
  """(EMA parameters, step) of the newest checkpoint, else exported weights.

  A checkpoint that cannot be read is passed over for the one before it.

  Args:
    config: config of the run.
    workdir: folder of the run.
    model: network of the run.
    step: step of the checkpoint; None takes the newest.

  Raises:
    UserError: workdir holds neither, none that can be read, weights that are
      not finite, or more of them than fit into a device.
  """
  mesh = make_mesh(config)
  params = jax.eval_shape(
      lambda: state_lib.init_params(
          model,
          batch_shapes(config, model),
          num_images=config.data.images,
          seed=config.seed,
      )
  )
  target = sharding.abstract(params, mesh, config.mesh.min_sharded)
  return read_ema(config, workdir, target, mesh, step)


def read_ema(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    target: Any,
    mesh: jax.sharding.Mesh,
    step: int | None = None,
) -> tuple[Any, int]:
  """(EMA parameters, step) of a run, laid out on a mesh.

  Args:
    config: its fields of the mesh say how arrays are split.
    workdir: folder of the run.
    target: shapes, dtypes and shardings of all its parameters.
    mesh: all devices.
    step: step of the checkpoint; None takes the newest.

  Raises:
    UserError: as of `restore_ema`.
  """
  need = memory.Need(memory.tree_bytes(target), memory.limit())
  validate.require(
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
          state_lib.TrainState(None, None, target, None), set_aside=False,
          step=step,
      )
    except UserError as error:
      if step is not None:
        raise
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
  validate.require(
      exported.exists(),
      f'{workdir} holds no checkpoint yet; train longer than one '
      'checkpoint.every, or to the end.',
  )
  ema, found = weights.load(exported, target)
  validate.require(
      step in (None, found),
      f'{exported} holds the weights of step {found}, not of step {step}.',
  )
  layout = sharding.shardings(ema, mesh, config.mesh.min_sharded)
  ema = jax.device_put(ema, layout)
  weights.require_finite(ema, exported)
  return ema, found
