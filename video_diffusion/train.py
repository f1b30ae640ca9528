"""The train loop: one flat function, its sections in execution order."""
from collections.abc import Callable
import contextlib
import functools
import signal
import time

from absl import logging
from clu import parameter_overview
from etils import epath
import jax
import ml_collections

from video_diffusion import callable_module
from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import checkpoint
from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import data_options
from video_diffusion.config import init_from
from video_diffusion.config import inputs
from video_diffusion.config import run_dir as run_dir_lib
from video_diffusion.config import saved_config
from video_diffusion.config import text_inputs
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.evaluation import samples
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.inference import outputs
from video_diffusion.parallel import collectives
from video_diffusion.parallel import distributed
from video_diffusion.parallel import memory
from video_diffusion.text import encode
from video_diffusion.text import tokenizer_files
from video_diffusion.training import actions
from video_diffusion.training import best as best_lib
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import preemption
from video_diffusion.training import progress
from video_diffusion.training import writers


def train(
    config: ml_collections.ConfigDict,
    run_dir: epath.PathLike,
    watch: preemption.Preemption | None = None,
) -> int:
  """Trains, or continues, the run in run_dir up to config.train.steps.

  Leaves checkpoints/, TensorBoard logs, metrics.jsonl, sample grids and
  config.json there. Interrupted at any point, the same call continues with the
  losses that the uninterrupted run would have had. The module can be called in
  place of this function: `video_diffusion.train(config, run_dir)`.

  Args:
    config: config of the run, as from `video_diffusion.get_config`.
    run_dir: local or gs://; the same for every process.
    watch: started; SIGTERM and SIGINT then save, and end the process with their
      exit codes. None leaves signals alone.

  Returns:
    The step at which it ended: train.steps, or less where train.max_minutes was
    over before.

  Raises:
    UserError: a bad config, a folder that another process holds or that is
      another run's, before any compile; or updates that are not finite, after a
      save; or something that could not be written.
  """
  data_options.complete(config)
  validate.check(config)
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  run_dir_lib.require_apart(config, run_dir)
  watch = watch or preemption.Preemption()
  lock = locks.Lock(
      run_dir, advice='wait until that has ended, or pass another --workdir'
  )
  with contextlib.ExitStack() as stack:
    try:
      check_lock = stack.enter_context(distributed.holding(lock))
    except OSError as error:
      raise UserError(
          f'--workdir {run_dir} cannot be written ({error.strerror}); pass a '
          'folder that can.'
      ) from error
    return _train(config, run_dir, watch, check_lock)


def _train(
    config: ml_collections.ConfigDict,
    run_dir: epath.Path,
    watch: preemption.Preemption,
    check_lock: Callable[[], None],
) -> int:
  """Does the work of `train` in a folder that is held.

  Args:
    config: see `train`.
    run_dir: see `train`.
    watch: see `train`.
    check_lock: raises UserError where another process has taken the folder.
  """
  began = time.time()
  lead = jax.process_index() == 0

  # ---- Data, network, optimizer ----------------------------------------------
  source = inputs.make_source(config, 'train')
  heldout = inputs.make_source(config, 'test')
  text = text_inputs.open_text(config, run_dir, source)
  network = build.make_model(config, inputs.label_sizes(source))
  inputs.require_arrays(config, network, source)
  inputs.require_arrays(config, network, heldout)
  learning_rate, optimizer = build_step.make_optimizer(config)
  mesh = build.make_mesh(config)

  # ---- What is reported beside the steps: evaluators and grids of samples ----
  if text:
    encode.check_prompts(
        config.sample.prompts, text.tokenizer, encoder=config.text.encoder
    )
  conditioner = inputs.make_conditioner(config, network, heldout, text)
  model = model_lib.Model(config, network, None, conditioner, mesh)
  with naming(lambda name: f'sample.{name}'):
    model.check(**build.sample_arguments(config))
  measured = evaluator_lib.Run(
      model, heldout, text, {'train': source, 'test': heldout}.get,
      run_dir / evaluator_lib.FOLDER, num_samples=config.log.score_samples,
  )
  evaluators = evaluators_lib.make(measured)
  scorers = evaluators_lib.make(measured, 'log.scores')
  best_curve = evaluators_lib.best_curve(
      config, (*evaluators.values(), *scorers.values())
  )

  # ---- The folder: whose it is, and what killed processes have left ----------
  def claim():
    """Writes what says whose the folder is, where it is not there."""
    run_dir_lib.claim(
        config,
        run_dir,
        getattr(source, 'fingerprint', ''),
        text.fingerprint if text else '',
    )
    if text and lead:
      tokenizer_files.keep(text.tokenizer, run_dir)

  claim()
  if lead:
    files.remove_parts(run_dir)
    files.remove_parts(run_dir / 'samples')
  writer = writers.Writer(run_dir, enabled=lead)

  # ---- State: abstract first, then initialised or restored, sharded ----------
  shapes = build.batch_shapes(config, network)
  init, abstract = build_step.abstract_state(
      config, network, optimizer, shapes, mesh
  )
  state_too_large = functools.partial(build_step.state_too_large, config)
  compile_lib.check_state(abstract, state_too_large)
  best = best_lib.Best(
      best_curve, config.checkpoint.best_is, writers.points(run_dir)
  )
  checkpoints = checkpoint.Checkpoints(
      run_dir / 'checkpoints',
      keep=config.checkpoint.keep,
      keep_every=config.checkpoint.keep_every,
      keep_also=best.steps,
      clean=True,
  )
  watch.before_exit(checkpoints.wait)
  with memory.explained(state_too_large):
    restored = checkpoints.restore_latest(abstract)
  if restored is None:
    step = 0
    layout = jax.tree.map(lambda x: x.sharding, abstract)
    with memory.explained(state_too_large):
      taken = init_from.take(
          config, abstract.params, mesh, text and text.tokenizer
      )
      make_state = jax.jit(init, out_shardings=layout)
      state = jax.block_until_ready(make_state(taken))
    del taken
  else:
    state, step = restored
    logging.info('Continuing %s from step %d.', run_dir, step)
  overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
  )
  writers.log_lines(overview)

  # ---- What the loop calls at some steps -------------------------------------
  first_step, last_step = step, config.train.steps
  missing = []  # sentences about pictures of the newest report

  def save(step, state):
    """Starts a save, unless another process has taken the folder over."""
    check_lock()
    checkpoints.save(step, state, saved_config.to_json(config))
    if not (run_dir / 'config.json').exists():
      claim()  # somebody has deleted it all

  def report(step, state):
    """Evaluators and samples, where due and not there from before."""
    ema = model.with_weights(state.ema_params, step)
    raw = model.with_weights(state.params, step)
    for every, made in (
        (config.log.eval_every, evaluators), (config.log.score_every, scorers)
    ):
      if due(step, every, last_step) and not (
          evaluators_lib.have_run(made.values(), run_dir, step)
      ):
        results = evaluators_lib.run(made, {'raw': raw, 'ema': ema})
        curves = evaluators_lib.as_curves(made, results)
        writer.scalars(step, curves)
        best.update(step, curves)
    if due(step, config.log.sample_every, last_step) and not (
        outputs.grid_path(run_dir, step).exists()
    ):
      missing[:] = samples.write_grid(ema, run_dir, writer)

  try:
    # ---- The train step, compiled; nothing where the run is finished ---------
    if restored is None and config.train.init_from:
      save(step, state)  # from here on the other run is not needed
    if restored is not None or config.train.init_from:
      report(step, state)  # what it begins from, or was interrupted at
    if step < last_step:
      train_step, flops = build_step.compile_step(
          config, network, optimizer, learning_rate, abstract, shapes, mesh
      )
      distributed.wait_for_all('train_step')
      batches = inputs.make_batches(
          config, source, start=step, stop=last_step, encode=text
      )
      window = progress.Window(
          batch_size=config.batch_size, flops=flops, step=step,
          run_dir=run_dir, enabled=lead, spike=config.log.spike,
          max_skips=config.train.max_skips,
          clips=functools.partial(inputs.batch_clips, config, source),
      )
    trace = progress.Trace(run_dir, step, config.log.profile_steps)
    pending = []  # (metrics, vote) of steps that are not read yet
    batch_too_large = functools.partial(
        build_step.batch_too_large, config, abstract, mesh
    )

    while step < last_step:
      # ---- One update --------------------------------------------------------
      watch.hold()
      batch = network.inputs_of(next(batches))
      batch = collectives.global_batch(batch, mesh)
      with memory.explained(batch_too_large):
        state, metrics = train_step(state, batch)
        if step == first_step:  # what does not fit is seen in the first update
          jax.block_until_ready(metrics)
      step += 1
      trace.after(step, metrics)

      # ---- What all processes want, and the progress line --------------------
      wanted = actions.wanted(
          watch, began=began, max_minutes=config.train.max_minutes
      )
      vote = collectives.largest(wanted, mesh)
      pending.append((metrics, vote))
      # The newest step is waited for only where a line is due, or the end.
      logs = due(step, config.log.every, last_step)
      try:
        action = actions.read(pending, window, leave=0 if logs else 1)
      except progress.TooManySkipsError:
        save(step, state)
        raise
      if action == actions.Action.STOP:
        logging.info('train.max_minutes is reached at step %d.', step)
        last_step = step
      if logs or action:
        window.write(writer, step, last_step)

      # ---- SIGTERM and Ctrl-C: save, and end the process ---------------------
      if action == actions.Action.QUIT:
        save(step, state)
        watch.leave(signal.SIGINT)
      if action == actions.Action.RESTART:
        save(step, state)
        watch.leave(signal.SIGTERM)

      # ---- Checkpoint, then what an interruption may cut off -----------------
      reports = any(
          due(step, every, last_step)
          for every in (
              config.log.eval_every, config.log.sample_every,
              *([config.log.score_every] if scorers else []),
          )
      )
      if reports or due(step, config.checkpoint.every, last_step):
        pause = time.time()
        save(step, state)
        watch.release()
        if reports:
          report(step, state)
        window.paused(time.time() - pause)

    # ---- The end -------------------------------------------------------------
    save(step, state)  # again, where the last save failed or was deleted
    if config.checkpoint.export:
      whole = collectives.whole(mesh)(state.ema_params)
      if lead:
        dtype = build.DTYPES[config.checkpoint.export]
        weights.save(whole, run_dir / weights.FOLDER, step=step, dtype=dtype)
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
      run_dir,
  )
  return step


def due(step: int, every: int, last_step: int) -> bool:
  """True every so many steps and at the last; 0 is at the last alone."""
  return step == last_step or (every > 0 and step % every == 0)


callable_module.make(__name__)
