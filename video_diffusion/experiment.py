"""From a config to the objects of a run: data, model, denoiser, weights.

Config objects stop here and in the modes (train, sample, evaluate): what lies
below takes plain keyword arguments.
"""
from collections.abc import Callable
import functools
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from video_diffusion import checkpoint
from video_diffusion import partitioning
from video_diffusion import train_state
from video_diffusion import validation
from video_diffusion import weights
from video_diffusion.data import datasets
from video_diffusion.data import pipeline
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import schedules
from video_diffusion.models import conditional
from video_diffusion.models import unet3d

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


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
    validation.require(
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
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      loader=config.data.loader,
  )


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
  validation.require(
      exported.exists(),
      f'{workdir} holds no checkpoint yet; train longer than one '
      'checkpoint.every, or to the end.',
  )
  ema, step = weights.load(exported, target)
  return jax.device_put(ema, partitioning.replicated(mesh)), step


def tree_size(tree: Any) -> int:
  """Number of scalars in a tree of arrays or shapes."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
