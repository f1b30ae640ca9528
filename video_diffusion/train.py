"""The train loop: one flat function, its sections in execution order."""
import time

from absl import logging
from clu import parameter_overview
from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion import checkpoint
from video_diffusion import evaluate
from video_diffusion import experiment
from video_diffusion import optimizer as optimizer_lib
from video_diffusion import partitioning
from video_diffusion import sample
from video_diffusion import train_state
from video_diffusion import validation
from video_diffusion import weights
from video_diffusion import writers


def train(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Trains, or continues, the run in workdir up to config.train.steps.

  Leaves checkpoints/, TensorBoard logs, metrics.jsonl, sample grids and
  config.json there. Interrupted at any point, the same call continues with the
  losses that the uninterrupted run would have had.

  Raises:
    ValueError: a bad config, or a workdir of another run; before any compile.
  """
  began = time.time()
  workdir = epath.Path(workdir)

  # ---- Checks, data, model ---------------------------------------------------
  validation.check(config)
  source = experiment.make_source(config, 'train')
  heldout = experiment.make_source(config, 'test')
  label_sizes = experiment.label_sizes(source)
  model = experiment.make_model(config, label_sizes)
  rate, optimizer = make_optimizer(config)
  sample.sample_labels(config, heldout)
  validation.claim_workdir(config, workdir)
  lead = jax.process_index() == 0
  writer = writers.Writer(workdir, enabled=lead)

  # ---- State: abstract first, then drawn or restored, sharded ----------------
  mesh = partitioning.make_mesh()
  shapes = experiment.batch_shapes(config, label_sizes)
  sharding = partitioning.replicated(mesh)

  def init():
    params = train_state.init_params(model, shapes, seed=config.seed)
    return train_state.init_state(params, optimizer)

  abstract = checkpoint.abstract(jax.eval_shape(init), sharding)
  checkpoints = checkpoint.Checkpoints(
      workdir / 'checkpoints', keep=config.checkpoint.keep
  )
  step = checkpoints.latest_step()
  if step is None:
    step = 0
    state = jax.jit(init, out_shardings=sharding)()
  else:
    logging.info('Continuing %s from step %d.', workdir, step)
    state = checkpoints.restore(step, abstract)
  overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
  )
  writers.log_lines(overview)

  # ---- The train step, compiled; its FLOPs counted ---------------------------
  train_step = make_step(config, model, optimizer, rate)
  batch_sharding = partitioning.batch_sharding(mesh)
  abstract_batch = {
      name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=batch_sharding)
      for name, s in shapes.items()
  }
  with jax.set_mesh(mesh):
    lowered = jax.jit(
        train_step, donate_argnums=0, out_shardings=(sharding, sharding)
    ).lower(abstract, abstract_batch)
    compile_began = time.time()
    train_step = lowered.compile()
  flops = step_flops(config, abstract, shapes, label_sizes)
  logging.info(
      'Compiled the train step in %.0f s: %.3g FLOP, %s parameters, %d %s.',
      time.time() - compile_began,
      flops,
      f'{experiment.tree_size(abstract.params):,}',
      jax.device_count(),
      jax.devices()[0].device_kind,
  )
  eval_step = evaluate.make_eval_step(config, model, mesh)
  sampler = sample.make_sampler(config, model, mesh)

  # ---- Steps -----------------------------------------------------------------
  last_step = config.train.steps
  batches = experiment.make_batches(config, source, start=step, stop=last_step)
  pending = None  # the previous step's metrics: read after the next dispatch
  window = Window(batch_size=config.batch_size, flops=flops, step=step)
  compiled_at = time.time()
  minutes = config.train.max_minutes
  while step < last_step:
    batch = partitioning.global_batch(next(batches), mesh)
    state, metrics = train_step(state, batch)
    step += 1
    if pending is not None:
      window.add(pending)
    pending = metrics
    if minutes and time.time() - began > 60 * minutes:
      logging.info('train.max_minutes is reached at step %d.', step)
      last_step = step
    if step % config.log.every == 0 or step == last_step:
      window.add(pending)
      pending = None
      window.write(writer, step, last_step)

    # ---- Held-out loss, samples, checkpoint ----------------------------------
    pause = time.time()
    if due(step, config.log.eval_every, last_step):
      losses = evaluate.heldout_losses(config, eval_step, state, heldout, mesh)
      writer.scalars(step, evaluate.as_scalars(losses))
      writers.log_lines(evaluate.as_table(losses))
    if due(step, config.checkpoint.every, last_step):
      checkpoints.save(step, state, validation.to_json(config))
    if due(step, config.log.sample_every, last_step):
      sample.write_grid(
          config, sampler, state.ema_params, heldout, workdir, step, writer,
          mesh,
      )
    window.paused(time.time() - pause)

  # ---- The end ---------------------------------------------------------------
  checkpoints.close()
  if config.checkpoint.export and lead:
    dtype = experiment.DTYPES[config.checkpoint.export]
    weights.save(
        state.ema_params, workdir / weights.FOLDER, step=step, dtype=dtype
    )
  writer.close()
  peak = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  logging.info(
      'Done: step %d in %s (%s of it in the loop)%s; results are in %s.',
      step,
      writers.duration(time.time() - began),
      writers.duration(time.time() - compiled_at),
      f', peak memory {peak / 2**30:.1f} GiB a device' if peak else '',
      workdir,
  )


def due(step: int, every: int, last_step: int) -> bool:
  """True every so many steps and at the last; 0 is at the last alone."""
  return step == last_step or (every > 0 and step % every == 0)


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


def make_step(config: ml_collections.ConfigDict, model, optimizer, rate):
  """The pure train step of a config."""
  loss_fn = train_state.make_loss_fn(
      model,
      num_images=config.data.images,
      prediction=config.diffusion.prediction,
      logsnr_fn=experiment.make_logsnr_fn(config),
      cond_drop=config.diffusion.cond_drop if model.encoder else 0.0,
      train=True,
  )
  ema_decay = optimizer_lib.ema_decay(
      decay=config.optim.ema_decay, rule=config.optim.ema_rule
  )
  return train_state.make_train_step(
      loss_fn, optimizer, rate=rate, ema_decay=ema_decay, seed=config.seed
  )


def step_flops(config, abstract, batch_shapes, label_sizes) -> float:
  """FLOPs of one global step, of the module as written, not recomputation.

  Of the lowered module: a compiled one counts cuDNN calls as zero, and remat
  would count what it recomputes as work. Lowered for the CPU, since plugins of
  accelerators do not analyse; the operations are the same.
  """
  plain = ml_collections.ConfigDict(config.to_dict())
  plain.model.remat = False
  model = experiment.make_model(plain, label_sizes)
  rate, optimizer = make_optimizer(plain)
  step = jax.jit(make_step(plain, model, optimizer, rate))
  state = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), abstract
  )
  with jax.default_device(jax.devices('cpu')[0]):
    return float(step.lower(state, batch_shapes).cost_analysis()['flops'])


class Window:
  """Means of the metrics since the last progress line, and the rates."""

  def __init__(self, *, batch_size: int, flops: float, step: int):
    self._batch_size = batch_size
    self._flops = flops
    self._reset(step)

  def _reset(self, step):
    self._step, self._since, self._pauses = step, time.time(), 0.0
    self._metrics = []

  def add(self, metrics) -> None:
    """Takes one step's metrics; waits for that step, not for later ones."""
    self._metrics.append(jax.device_get(metrics))

  def paused(self, seconds: float) -> None:
    """Leaves time spent on evaluation and samples out of the rates."""
    self._pauses += seconds

  def write(self, writer: writers.Writer, step: int, last_step: int) -> None:
    """Writes the curves and the progress line, and starts anew."""
    seconds = max(time.time() - self._since - self._pauses, 1e-9)
    rate = (step - self._step) / seconds
    mean = lambda name: float(np.mean([m[name] for m in self._metrics]))
    scalars = {
        name: mean(name) for name in ('loss', 'grad_norm', 'learning_rate')
    }
    sums, counts = (
        np.sum([m[name] for m in self._metrics], axis=0)
        for name in ('quarter_sum', 'quarter_count')
    )
    for i in range(train_state.NUM_QUARTERS):
      if counts[i]:
        scalars[f'loss_quarter_{i}'] = sums[i] / counts[i]
    scalars['clips_per_second'] = rate * self._batch_size
    scalars['tflops_per_second'] = rate * self._flops / 1e12
    writer.scalars(step, scalars)
    writer.flush()
    logging.info(
        'step %d/%d  loss %.4f  gradient norm %.3f  %.1f clips/s  '
        '%.3g TFLOP/s  %s left',
        step,
        last_step,
        scalars['loss'],
        scalars['grad_norm'],
        scalars['clips_per_second'],
        scalars['tflops_per_second'],
        writers.duration((last_step - step) / rate),
    )
    self._reset(step)
