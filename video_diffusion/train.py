"""The train loop: one flat function, its sections in execution order."""
import functools
import time

from absl import logging
from clu import parameter_overview
from etils import epath
import jax
import ml_collections

from video_diffusion import checkpoint
from video_diffusion import clips
from video_diffusion import conditions
from video_diffusion import evaluate
from video_diffusion import experiment
from video_diffusion import files
from video_diffusion import memory
from video_diffusion import partitioning
from video_diffusion import preemption
from video_diffusion import progress
from video_diffusion import sample
from video_diffusion import text_input
from video_diffusion import updates
from video_diffusion import validation
from video_diffusion import weights
from video_diffusion import workdirs
from video_diffusion import writers

# What a process wants of the loop; all do what the largest says.
GO_ON, STOP, LEAVE = 0, 1, 2


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    watch: preemption.Preemption | None = None,
) -> None:
  """Trains, or continues, the run in workdir up to config.train.steps.

  Leaves checkpoints/, TensorBoard logs, metrics.jsonl, sample grids and
  config.json there. Interrupted at any point, the same call continues with the
  losses that the uninterrupted run would have had.

  Args:
    config: of the run.
    workdir: local or gs://; the same for every process.
    watch: started, where SIGTERM shall save and end with its exit code.

  Raises:
    UserError: a bad config, or a workdir of another run, before any compile;
      or updates that are not finite, after a save.
  """
  began = time.time()
  workdir = epath.Path(files.expand(workdir, '--workdir', bucket=True))
  watch = watch or preemption.Preemption()

  # ---- Checks, data, model ---------------------------------------------------
  validation.check(config)
  workdirs.require_apart(config, workdir)
  source = experiment.make_source(config, 'train')
  heldout = experiment.make_source(config, 'test')
  text = text_input.open_text(config, workdir, source)
  label_sizes = experiment.label_sizes(source)
  model = experiment.make_model(config, label_sizes)
  rate, optimizer = updates.make_optimizer(config)
  mesh = experiment.make_mesh(config)
  if text:
    text_input.check_prompts(config, text.tokenizer)
  drawn = conditions.sample_condition(config, heldout, text)
  plan, sampler = sample.make_grid_sampler(config, model, mesh)
  workdirs.claim(
      config,
      workdir,
      getattr(source, 'fingerprint', ''),
      text.fingerprint if text else '',
  )
  lead = jax.process_index() == 0
  if text and lead:
    text_input.keep_tokenizer(text, workdir)
  writer = writers.Writer(workdir, enabled=lead)

  # ---- State: abstract first, then drawn or restored, sharded ----------------
  shapes = experiment.batch_shapes(config, label_sizes)
  init, abstract = updates.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  updates.check_state(config, abstract)
  checkpoints = checkpoint.Checkpoints(
      workdir / 'checkpoints',
      keep=config.checkpoint.keep,
      keep_every=config.checkpoint.keep_every,
      clean=True,
  )
  watch.before_exit(checkpoints.wait)
  too_large = functools.partial(updates.state_too_large, config)
  with memory.explained(too_large):
    restored = checkpoints.restore_latest(abstract)
  if restored is None:
    step = 0
    layout = jax.tree.map(lambda x: x.sharding, abstract)
    with memory.explained(too_large):
      state = jax.block_until_ready(jax.jit(init, out_shardings=layout)())
  else:
    state, step = restored
    logging.info('Continuing %s from step %d.', workdir, step)
  overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
  )
  writers.log_lines(overview)

  # ---- What is reported beside the steps -------------------------------------
  eval_step = evaluate.make_eval_step(config, model, mesh)
  last_step = config.train.steps

  def report(step, state):
    """Held-out loss and samples, where due and not there from before."""
    if due(step, config.log.eval_every, last_step) and not (
        writers.has(workdir, step, 'heldout_loss/ema')
    ):
      losses = evaluate.heldout_losses(
          config, eval_step, state, heldout, mesh, text
      )
      writer.scalars(step, evaluate.as_scalars(losses))
      writers.log_lines(evaluate.as_table(losses))
    if due(step, config.log.sample_every, last_step) and not (
        clips.grid_path(workdir, step).exists()
    ):
      clips.write_grid(
          config, plan, sampler, state.ema_params, step, drawn=drawn,
          source=heldout, workdir=workdir, writer=writer, mesh=mesh,
      )

  try:
    # ---- The train step, compiled; nothing where the run is finished ---------
    if step:
      report(step, state)  # what an interruption left undone
    if step < last_step:
      train_step, flops = updates.compile_step(
          config, model, optimizer, rate, abstract, shapes, mesh
      )
      batches = experiment.make_batches(
          config, source, start=step, stop=last_step, encode=text
      )
      window = progress.Window(
          batch_size=config.batch_size, flops=flops, step=step,
          workdir=workdir, enabled=lead, spike=config.log.spike,
          max_skips=config.train.max_skips,
          clips=functools.partial(experiment.batch_clips, config, source),
      )
    trace = progress.Trace(workdir, step, config.log.profile_steps)
    pending = []  # of the previous step: read after the next dispatch
    first = True
    too_large = functools.partial(
        updates.batch_too_large, config, abstract, mesh
    )

    # ---- Steps ---------------------------------------------------------------
    while step < last_step:
      watch.hold()
      batch = partitioning.global_batch(next(batches), mesh)
      with memory.explained(too_large):
        state, metrics = train_step(state, batch)
        if first:  # what does not fit is seen here, not in a later call
          jax.block_until_ready(metrics)
          first = False
      step += 1
      trace.after(step, metrics)
      minutes = config.train.max_minutes
      late = minutes and time.time() - began > 60 * minutes
      order = LEAVE if watch.requested else STOP if late else GO_ON
      pending.append((metrics, partitioning.largest(order, mesh)))
      order = GO_ON
      try:
        # The newest step is waited for only where a line is due, or the end.
        logs = due(step, config.log.every, last_step)
        while len(pending) > (0 if logs or order else 1):
          metrics, vote = pending.pop(0)
          window.add(metrics)
          order = max(order, int(vote))
        if order == STOP:
          logging.info('train.max_minutes is reached at step %d.', step)
          last_step = step
        if logs or order:
          window.write(writer, step, last_step)
      except progress.TooManySkipsError:
        checkpoints.save(step, state, workdirs.to_json(config))
        raise

      # ---- Checkpoint, then what an interruption may cut off -----------------
      pause = time.time()
      reports = due(step, config.log.eval_every, last_step) or due(
          step, config.log.sample_every, last_step
      )
      saves = due(step, config.checkpoint.every, last_step)
      if saves or reports or order == LEAVE:
        checkpoints.save(step, state, workdirs.to_json(config))
        if order == LEAVE:
          watch.leave()
        watch.release()
      if reports:
        report(step, state)
      if step < last_step:
        window.paused(time.time() - pause)

    # ---- The end -------------------------------------------------------------
    if config.checkpoint.export:
      whole = partitioning.whole(mesh)(state.ema_params)
      if lead:
        dtype = experiment.DTYPES[config.checkpoint.export]
        weights.save(whole, workdir / weights.FOLDER, step=step, dtype=dtype)
  finally:
    # Whatever ended the run, a save in flight is completed.
    checkpoints.close()
    writer.close()
  peak = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  logging.info(
      'Done: step %d in %s%s; results are in %s.',
      step,
      writers.duration(time.time() - began),
      f', peak memory {peak / 2**30:.1f} GiB a device' if peak else '',
      workdir,
  )


def due(step: int, every: int, last_step: int) -> bool:
  """True every so many steps and at the last; 0 is at the last alone."""
  return step == last_step or (every > 0 and step % every == 0)
