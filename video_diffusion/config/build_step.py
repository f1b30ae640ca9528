"""From a config to its train step: optimizer, state, update, what fits."""
from collections.abc import Callable
import functools
from typing import Any

import jax
import ml_collections

from video_diffusion.config import build
from video_diffusion.config import next_frames
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.models import unet3d
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import distill
from video_diffusion.training import optimizer as optimizer_lib
from video_diffusion.training import state as state_lib
from video_diffusion.training import step as step_lib


def make_optimizer(config: ml_collections.ConfigDict):
  """(learning rate schedule, optax chain) of the optim fields.

  Raises:
    UserError: names the field.
  """
  optim = config.optim
  with naming(lambda name: f'optim.{name}'):
    learning_rate = optimizer_lib.make_learning_rate(
        lr=optim.lr,
        warmup_steps=optim.warmup_steps,
        schedule=optim.schedule,
        decay_steps=optim.decay_steps,
    )
  optimizer = optimizer_lib.make_optimizer(
      learning_rate,
      name=optim.name,
      beta1=optim.beta1,
      beta2=optim.beta2,
      eps=optim.eps,
      weight_decay=optim.weight_decay,
      clip_norm=optim.clip_norm,
  )
  return learning_rate, optimizer


def abstract_state(
    config: ml_collections.ConfigDict, model, optimizer, shapes, mesh
) -> tuple[Callable[..., state_lib.TrainState], Any]:
  """(function that makes the first state, its shapes and shardings).

  The function takes the arrays of `init_from.take`, or nothing.
  """

  def init(taken=None):
    params = state_lib.init_params(
        model, shapes, num_images=config.data.images, seed=config.seed
    )
    return state_lib.init_state(
        state_lib.replaced(params, taken or {}),
        optimizer,
        distilled=bool(
            config.distill.num_steps or config.distill.teacher_prediction
        ),
    )

  return init, sharding.abstract(
      jax.eval_shape(init), mesh, config.mesh.min_sharded
  )


def make_step(
    config: ml_collections.ConfigDict,
    model,
    optimizer,
    learning_rate,
    *,
    accumulate: int | None = None,
) -> Callable:
  """The pure train step of a config.

  Args:
    config: of the run.
    model: from `build.make_model`.
    optimizer: from `make_optimizer`.
    learning_rate: from `make_optimizer`.
    accumulate: parts of a batch; None takes train.accumulate.
  """
  common = dict(
      num_images=config.data.images,
      prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config),
      share_noise=config.diffusion.images_share_noise,
      cond_drop=config.diffusion.cond_drop if model.encoder else 0.0,
      next_frames=next_frames.trained(config),
      train=True,
  )
  learns = dict(
      reconstruction_weight=config.distill.reconstruction_weight, **common
  )
  if config.distill.num_steps:
    draw_noise, loss_fn = distill.make_loss(
        model, num_steps=config.distill.num_steps, **learns
    )
  elif config.distill.teacher_prediction:
    draw_noise, loss_fn = distill.make_guided_loss(
        model, teacher_prediction=config.distill.teacher_prediction, **learns
    )
  else:
    draw_noise, loss_fn = step_lib.make_loss(
        model,
        pure_noise=config.diffusion.pure_noise,
        weight_fn=build.make_weight_fn(config),
        **common,
    )
  with naming(lambda name: f'optim.ema_{name}'):
    ema_decay = optimizer_lib.make_ema_decay(
        decay=config.optim.ema_decay, rule=config.optim.ema_rule
    )
  return step_lib.make_train_step(
      draw_noise,
      loss_fn,
      optimizer,
      learning_rate=learning_rate,
      ema_decay=ema_decay,
      seed=config.seed,
      accumulate=accumulate or config.train.accumulate,
  )


def compile_step(
    config: ml_collections.ConfigDict,
    model,
    optimizer,
    learning_rate,
    abstract,
    shapes,
    mesh,
    *,
    check_flops: Callable[[float], None] | None = None,
) -> tuple[jax.stages.Compiled, float]:
  """(the compiled train step of a config, FLOPs of one global step).

  Args:
    config: of the run.
    model: from `build.make_model`.
    optimizer: from `make_optimizer`.
    learning_rate: from `make_optimizer`.
    abstract: from `abstract_state`.
    shapes: shapes of one global batch.
    mesh: all devices.
    check_flops: see `training.compile.compile_step`.

  Raises:
    UserError: the step needs more memory than a device has.
  """
  counted = None
  if model.unet.remat or config.train.accumulate > 1:
    plain = model.clone(unet=model.unet.clone(remat=()))
    counted = make_step(config, plain, optimizer, learning_rate, accumulate=1)
  return compile_lib.compile_step(
      make_step(config, model, optimizer, learning_rate),
      abstract,
      shapes,
      mesh,
      counted=counted,
      too_large=functools.partial(batch_too_large, config, abstract, mesh),
      check_flops=check_flops,
  )


def state_too_large(
    config: ml_collections.ConfigDict, need: memory.Need
) -> UserError:
  """The error about a train state that does not fit."""
  return UserError(
      f'{memory.misfit("the train state", need)}: that is the parameters, '
      'their EMA and two moments of each, in float32; share it among more '
      'devices (mesh.fsdp), or train a smaller network (model.base_channels is '
      f'{config.model.base_channels}).'
  )


def batch_too_large(
    config: ml_collections.ConfigDict, abstract, mesh, need: memory.Need
) -> UserError:
  """The error about a batch that cannot be trained on; it says what helps."""
  batch, parts = config.batch_size, config.train.accumulate
  devices = sharding.batch_devices(mesh)
  # Gradients are of the size of the parameters, whatever the batch.
  fixed = memory.tree_bytes(abstract) + memory.tree_bytes(abstract.params)
  need = need._replace(fixed=min(fixed, need.asked or fixed))
  remedies = []
  allowed = range(devices * parts, batch, devices * parts)
  fits = memory.largest(batch, need, allowed)
  more = [
      n for n in range(parts + 1, batch // devices + 1)
      if batch % (n * devices) == 0 and fits and batch * parts <= fits * n
  ]
  if more:
    remedies.append([f'train.accumulate={more[0]} to take it in parts'])
  elif fits is None and batch % (2 * parts * devices) == 0:
    remedies.append([f'train.accumulate={2 * parts} to take it in parts'])
  data, model = config.data, config.model
  sizes = unet3d.level_sizes(
      data.height, data.width, len(model.channel_mults), model.patch_size
  )
  if set(sizes) - set(model.remat):
    remedies.append([
        f'model.remat={tuple(sizes)} to recompute activations instead of '
        'keeping them'
    ])
  return memory.batch_too_large(
      'batch_size', batch, need, allowed=allowed, remedies=remedies
  )
