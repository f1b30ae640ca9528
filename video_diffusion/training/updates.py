"""One update of a run: its optimizer, its state, its step, and what compiles.
"""
import functools
import time

from absl import logging
import jax
import ml_collections

from video_diffusion.config import build
from video_diffusion.errors import UserError
from video_diffusion.models import unet3d
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import optimizer as optimizer_lib
from video_diffusion.training import state as state_lib


def make_optimizer(config: ml_collections.ConfigDict):
  """(learning rate, optax chain) of a config."""
  optim = config.optim
  rate = optimizer_lib.learning_rate(
      lr=optim.lr,
      warmup_steps=optim.warmup_steps,
      schedule=optim.schedule,
      decay_steps=optim.decay_steps,
  )
  optimizer = optimizer_lib.make_optimizer(
      rate,
      beta1=optim.beta1,
      beta2=optim.beta2,
      eps=optim.eps,
      weight_decay=optim.weight_decay,
      clip_norm=optim.clip_norm,
  )
  return rate, optimizer


def abstract_state(config, model, optimizer, shapes, mesh):
  """(what draws the first state, its shapes and shardings)."""

  def init():
    params = state_lib.init_params(model, shapes, seed=config.seed)
    return state_lib.init_state(params, optimizer)

  return init, sharding.abstract(
      jax.eval_shape(init), mesh, config.mesh.min_sharded
  )


def make_step(config: ml_collections.ConfigDict, model, optimizer, rate):
  """The pure train step of a config."""
  draw, loss_fn = state_lib.make_loss(
      model,
      num_images=config.data.images,
      prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config),
      share_noise=config.diffusion.images_share_noise,
      pure_noise=config.diffusion.pure_noise,
      cond_drop=config.diffusion.cond_drop if model.encoder else 0.0,
      train=True,
  )
  ema_decay = optimizer_lib.ema_decay(
      decay=config.optim.ema_decay, rule=config.optim.ema_rule
  )
  return state_lib.make_train_step(
      draw,
      loss_fn,
      optimizer,
      rate=rate,
      ema_decay=ema_decay,
      seed=config.seed,
      accumulate=config.train.accumulate,
  )


def lower_step(config, model, optimizer, rate, abstract, shapes, mesh):
  """The train step of a config, lowered for the devices of a mesh."""
  batch_sharding = sharding.batch_sharding(mesh)
  batch = {
      name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=batch_sharding)
      for name, s in shapes.items()
  }
  layout = jax.tree.map(lambda x: x.sharding, abstract)
  step = jax.jit(
      make_step(config, model, optimizer, rate),
      donate_argnums=0,
      out_shardings=(layout, sharding.replicated(mesh)),
  )
  with jax.set_mesh(mesh):
    return step.lower(abstract, batch)


def check_state(config, abstract) -> None:
  """Requires that a train state fits into the memory of each device.

  Raises:
    UserError: it does not, and nothing was allocated yet.
  """
  need = memory.Need(memory.tree_bytes(abstract), memory.limit())
  if need.there and need.asked > need.there:
    raise state_too_large(config, need)


def state_too_large(config, need: memory.Need) -> UserError:
  """The error about a train state that does not fit."""
  return UserError(
      f'{memory.misfit("the train state", need)}: that is the parameters, '
      'their EMA and two moments of each, in float32; share it among more '
      'devices (mesh.fsdp), or train a smaller network (model.base_channels is '
      f'{config.model.base_channels}).'
  )


def check_batch(config, abstract, mesh, compiled) -> None:
  """Requires that a compiled train step fits into the memory of each device.

  Raises:
    UserError: it does not; names the largest batch that would.
  """
  need = memory.Need(memory.program_bytes(compiled), memory.limit())
  if need.asked and need.there and need.asked > need.there:
    raise batch_too_large(config, abstract, mesh, need)


def batch_too_large(config, abstract, mesh, need: memory.Need) -> UserError:
  """The error about a batch that cannot be trained on, and what helps."""
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
      data.height, data.width, len(model.channel_mults)
  )
  if set(sizes) - set(model.remat):
    remedies.append([
        f'model.remat={tuple(sizes)} to recompute activations instead of '
        'keeping them'
    ])
  return memory.batch_too_large(
      'batch_size', batch, need, allowed=allowed, remedies=remedies
  )


def compile_step(config, model, optimizer, rate, abstract, shapes, mesh):
  """(the compiled train step, FLOPs of one global step).

  Raises:
    UserError: it needs more memory than a device has.
  """
  began = time.time()
  lowered = lower_step(config, model, optimizer, rate, abstract, shapes, mesh)
  with memory.explained(
      functools.partial(batch_too_large, config, abstract, mesh)
  ):
    compiled = lowered.compile()
  check_batch(config, abstract, mesh, compiled)
  flops = step_flops(config, model, optimizer, rate, abstract, shapes)
  logging.info(
      'Compiled the train step in %.0f s: %.3g FLOP, %s parameters, %d %s, '
      'mesh %s.',
      time.time() - began,
      flops,
      f'{build.tree_size(abstract.params):,}',
      jax.device_count(),
      jax.devices()[0].device_kind,
      ' x '.join(f'{n} {name}' for name, n in mesh.shape.items()),
  )
  return compiled, flops


def step_flops(config, model, optimizer, rate, abstract, shapes) -> float:
  """FLOPs of one global step as written: remat's recomputation is no work."""
  plain = model.clone(unet=model.unet.clone(remat=()))
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.train.accumulate = 1  # a scanned body would count once
  step = make_step(config, plain, optimizer, rate)
  return lowered_flops(step, abstract, shapes)


def lowered_flops(fn, *args) -> float:
  """FLOPs of one call with such arrays, wherever these are.

  The lowered module is counted, since a compiled one counts cuDNN calls as
  zero. It is lowered for the CPU, since plugins of accelerators do not analyse;
  the operations are the same. Without a CPU the result is NaN.
  """
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
  try:
    cpu = jax.local_devices(backend='cpu')[0]
  except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
    return float('nan')
  with jax.default_device(cpu):
    return float(jax.jit(fn).lower(*shapes).cost_analysis()['flops'])
