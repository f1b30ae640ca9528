"""The train loop: one flat function, its sections in execution order."""
from collections.abc import Callable
import contextlib
import enum
import functools
import signal
import time

from absl import logging
from clu import parameter_overview
from etils import epath
import jax
import ml_collections

from video_diffusion import evaluate
from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import checkpoint
from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import saved_config
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import samples
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.inference import outputs
from video_diffusion.parallel import collectives
from video_diffusion.parallel import distributed
from video_diffusion.parallel import memory
from video_diffusion.text import encode
from video_diffusion.text import tokenizer_files
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import preemption
from video_diffusion.training import progress
from video_diffusion.training import writers


class Action(enum.IntEnum):
  """What a process wants of the loop; all do what the largest says."""

  GO_ON = 0
  STOP = 1  # end as at the last step
  QUIT = 2  # Ctrl-C: save, and leave
  RESTART = 3  # SIGTERM: save, and leave to be started again


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
    watch: started; SIGTERM and SIGINT then save, and end the process with their
      exit codes. None leaves signals alone.

  Raises:
    UserError: a bad config, a workdir that another process holds or that is
      another run's, before any compile; or updates that are not finite, after a
      save; or something that could not be written.
  """
  validate.check(config)
  workdir = epath.Path(files.expand(workdir, '--workdir', bucket=True))
  run_dir.require_apart(config, workdir)
  watch = watch or preemption.Preemption()
  lock = locks.Lock(
      workdir, advice='wait until that has ended, or pass another --workdir'
  )
  with contextlib.ExitStack() as stack:
    try:
      check_lock = stack.enter_context(distributed.holding(lock))
    except OSError as error:
      raise UserError(
          f'--workdir {workdir} cannot be written ({error.strerror}); pass a '
          'folder that can.'
      ) from error
    _train(config, workdir, watch, check_lock)


def _train(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    watch: preemption.Preemption,
    check_lock: Callable[[], None],
) -> None:
  """As `train`, in a workdir that is held; check_lock raises where it is not.
  """
  began = time.time()

  # ---- Checks, data, model ---------------------------------------------------
  source = inputs.make_source(config, 'train')
  heldout = inputs.make_source(config, 'test')
  text = inputs.open_text(config, workdir, source)
  label_sizes = inputs.label_sizes(source)
  model = build.make_model(config, label_sizes)
  inputs.require_arrays(config, model, source)
  inputs.require_arrays(config, model, heldout)
  learning_rate, optimizer = build_step.make_optimizer(config)
  mesh = build.make_mesh(config)
  if text:
    encode.check_prompts(
        config.sample.prompts, text.tokenizer, encoder=config.text.encoder
    )
  grids = model_lib.Model(
      config,
      model,
      None,
      inputs.make_conditioner(config, model, heldout, text),
      mesh,
  )
  with naming(lambda name: f'sample.{name}'):
    grids.check(**build.sample_arguments(config))
  lead = jax.process_index() == 0

  def claim():
    """Writes what tells whose the workdir is, where it is not there."""
    run_dir.claim(
        config,
        workdir,
        getattr(source, 'fingerprint', ''),
        text.fingerprint if text else '',
    )
    if text and lead:
      tokenizer_files.keep(text.tokenizer, workdir)

  claim()
  if lead:  # what killed processes have left
    files.remove_parts(workdir)
    files.remove_parts(workdir / 'samples')
  writer = writers.Writer(workdir, enabled=lead)

  # ---- State: abstract first, then initialised or restored, sharded ----------
  shapes = build.batch_shapes(config, model)
  init, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  too_large = functools.partial(build_step.state_too_large, config)
  compile_lib.check_state(abstract, too_large)
  checkpoints = checkpoint.Checkpoints(
      workdir / 'checkpoints',
      keep=config.checkpoint.keep,
      keep_every=config.checkpoint.keep_every,
      clean=True,
  )

  def save(step, state):
    """Starts a save, unless another process has taken the workdir over."""
    check_lock()
    checkpoints.save(step, state, saved_config.to_json(config))
    if not (workdir / 'config.json').exists():
      claim()  # somebody has deleted it all

  watch.before_exit(checkpoints.wait)
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
          config, model, eval_step, state, heldout, mesh, text
      )
      writer.scalars(step, evaluate.as_scalars(losses))
      writers.log_lines(evaluate.as_table(losses))
    if due(step, config.log.sample_every, last_step) and not (
        outputs.grid_path(workdir, step).exists()
    ):
      missing[:] = samples.write_grid(
          grids.with_weights(state.ema_params, step), workdir, writer
      )

  missing = []  # sentences about pictures of the newest report
  try:
    # ---- The train step, compiled; nothing where the run is finished ---------
    if step:
      report(step, state)  # what an interruption left undone
    if step < last_step:
      train_step, flops = build_step.compile_step(
          config, model, optimizer, learning_rate, abstract, shapes, mesh
      )
      batches = inputs.make_batches(
          config, source, start=step, stop=last_step, encode=text
      )
      window = progress.Window(
          batch_size=config.batch_size, flops=flops, step=step,
          workdir=workdir, enabled=lead, spike=config.log.spike,
          max_skips=config.train.max_skips,
          clips=functools.partial(inputs.batch_clips, config, source),
      )
    trace = progress.Trace(workdir, step, config.log.profile_steps)
    pending = []  # (metrics, vote) of steps that are not read yet
    first = True
    too_large = functools.partial(
        build_step.batch_too_large, config, abstract, mesh
    )

    # ---- Steps ---------------------------------------------------------------
    while step < last_step:
      watch.hold()
      batch = collectives.global_batch(
          model.inputs_of(next(batches)), mesh
      )
      with memory.explained(too_large):
        state, metrics = train_step(state, batch)
        if first:  # what does not fit is seen here, not in a later call
          jax.block_until_ready(metrics)
          first = False
      step += 1
      trace.after(step, metrics)
      vote = collectives.largest(wanted(config, watch, began), mesh)
      pending.append((metrics, vote))
      # The newest step is waited for only where a line is due, or the end.
      logs = due(step, config.log.every, last_step)
      try:
        action = read(pending, window, leave=0 if logs else 1)
        if action == Action.STOP:
          logging.info('train.max_minutes is reached at step %d.', step)
          last_step = step
        if logs or action:
          window.write(writer, step, last_step)
      except progress.TooManySkipsError:
        save(step, state)
        raise

      # ---- Checkpoint, then what an interruption may cut off -----------------
      pause = time.time()
      reports = due(step, config.log.eval_every, last_step) or due(
          step, config.log.sample_every, last_step
      )
      leaves = action in (Action.QUIT, Action.RESTART)
      if leaves or reports or due(step, config.checkpoint.every, last_step):
        save(step, state)
        if leaves:
          quits = action == Action.QUIT
          watch.leave(signal.SIGINT if quits else signal.SIGTERM)
        watch.release()
      if reports:
        report(step, state)
      if step < last_step:
        window.paused(time.time() - pause)

    # ---- The end -------------------------------------------------------------
    save(step, state)  # again, where the last save failed or was deleted
    if config.checkpoint.export:
      whole = collectives.whole(mesh)(state.ema_params)
      if lead:
        dtype = build.DTYPES[config.checkpoint.export]
        weights.save(whole, workdir / weights.FOLDER, step=step, dtype=dtype)
  finally:
    # Whatever ended the run, a save in flight is completed.
    checkpoints.close()
    writer.close()
  if missing:
    raise UserError(missing[0])
  peak = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  logging.info(
      'Done: step %d in %s%s; results are in %s.',
      step,
      writers.duration(time.time() - began),
      f', peak memory {peak / 2**30:.1f} GiB a device' if peak else '',
      workdir,
  )


def wanted(config, watch, began) -> Action:
  """What this process wants of the loop behind a step."""
  if watch.requested == signal.SIGTERM:
    return Action.RESTART
  if watch.requested == signal.SIGINT:
    return Action.QUIT
  minutes = config.train.max_minutes
  late = minutes and time.time() - began > 60 * minutes
  return Action.STOP if late else Action.GO_ON


def read(pending, window, *, leave: int) -> Action:
  """Takes steps off `pending` until `leave` are left, all where it is to end.

  Returns:
    What all processes have agreed on.

  Raises:
    progress.TooManySkipsError: see `progress.Window.add`.
  """
  action = Action.GO_ON
  while len(pending) > (0 if action else leave):
    metrics, vote = pending.pop(0)
    window.add(metrics)
    action = max(action, Action(int(vote)))
  return action


def due(step: int, every: int, last_step: int) -> bool:
  """True every so many steps and at the last; 0 is at the last alone."""
  return step == last_step or (every > 0 and step % every == 0)
