"""What is measured of a trained model: one evaluator is one object.

The field eval.evaluators lists which of EVALUATORS run, in training every
log.eval_every steps and in --mode=evaluate; log.scores lists those that run in
training every log.score_every steps. A further evaluator is a further class
here, or an import of it.
"""
from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp

from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import next_frames
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import alignment
from video_diffusion.evaluation import bars
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import coherence
from video_diffusion.evaluation import digits
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.evaluation import heldout_loss
from video_diffusion.evaluation import report_page
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import score_run
from video_diffusion.inference import rollout
from video_diffusion.parallel import distributed
from video_diffusion.training import writers


class HeldoutLoss:
  """The training objective on held-out clips, under times and noise of a seed.
  """

  key, prefix, raw = 'losses', 'heldout_', True

  def __init__(
      self,
      run: evaluator_lib.Run,
      weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
  ):
    """Makes the step; `weight_fn` as of `heldout_loss.make_eval_step`."""
    self._source, self._encode = run.source, run.encode
    model = run.model
    step = heldout_loss.make_eval_step(
        model.network,
        prediction=model.config.diffusion.prediction,
        logsnr_fn=build.make_logsnr_fn(model.config),
        mesh=model.mesh,
        next_frames=next_frames.trained(model.config),
        weight_fn=weight_fn,
    )
    self._step = distributed.compiled_together(step, 'heldout_loss')

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields 'loss', and 'loss_bucket_0' ... from the noisiest on.

    Then 'loss_next', of next frames, for a model that extends frame by frame.
    """
    config = model.config
    batches = inputs.heldout_batches(config, self._source, self._encode)
    with naming(lambda name: f'eval.{name}'):
      losses = heldout_loss.mean_losses(
          self._step,
          model.params,
          map(model.network.inputs_of, batches),
          batch_size=config.eval.batch_size,
          num_clips=config.eval.num_clips,
          mesh=model.mesh,
      )
    yield from losses.items()


class Scores:
  """Distances of samples to real clips, by the protocol of eval.protocol.

  Each call leaves a report, report.json and report.html, in a folder of the
  step below the run's evaluation/.
  """

  key, prefix, raw = 'scores', 'score_', False

  def __init__(self, run: evaluator_lib.Run):
    self._run = run
    self._options = options_of(run.model.config, run.num_samples)
    with naming(lambda name: f'eval.{name}'):
      # What does not fit is said before hours are spent.
      score_options.check(self._options, run.model.frames)
      self._extractors = score_options.make_extractors(self._options)

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields 'fvd', 'kvd', ... and writes the report."""
    run, options = self._run, self._options
    name = f'{options.protocol}_step_{model.step}_seed_{options.seed}'
    folder = run.folder / name
    try:
      with naming(lambda name: f'eval.{name}'):
        found = score_run.score_run(
            model, run.source_of, options, self._extractors, folder, bars.bar
        )
    except rollout.NotFiniteError as error:
      # A training goes on, and may recover.
      logging.error('No scores of step %d: %s', model.step, error)
      return
    if jax.process_index() == 0:
      report_page.write(folder, found, fps=model.config.sample.fps)
      logging.info('Wrote %s.', folder / 'report.html')
      if not run.keep:
        for kept in folder.iterdir():
          if kept.is_dir():
            kept.rmtree()
    yield from score_run.values(found).items()


def options_of(config, num_samples: int = 0) -> score_options.Options:
  """How the eval fields of a config score.

  Args:
    config: the config of a run.
    num_samples: number of samples; 0 takes that of the config.
  """
  names = [field.name for field in dataclasses.fields(score_options.Options)]
  fields = {name: config.eval[name] for name in names}
  options = score_options.Options(**fields)
  if num_samples:
    options = dataclasses.replace(options, num_samples=num_samples)
  return options


# A name in eval.evaluators -> its class.
EVALUATORS = {
    'heldout_loss': HeldoutLoss,
    'scores': Scores,
    'alignment': alignment.Alignment,
    'coherence': coherence.Coherence,
    'digits': digits.Digits,
}


def make(
    run: evaluator_lib.Run, field: str = 'eval.evaluators'
) -> dict[str, evaluator_lib.Evaluator]:
  """The evaluators of a run, by name, in the order of a field of its config.

  Args:
    run: what they are made of.
    field: name of the field that lists them.

  Raises:
    UserError: the field holds an unknown name.
  """
  names = validate.field(run.model.config, field)
  for name in names:
    if name not in EVALUATORS:
      raise UserError(
          f'{field} holds {name!r}; there are {", ".join(EVALUATORS)}.'
      )
  return {name: EVALUATORS[name](run) for name in names}


def run(
    evaluators: Mapping[str, evaluator_lib.Evaluator],
    models: Mapping[str, model_lib.Model],
) -> dict[str, dict[str, dict[str, float | None]]]:
  """Runs evaluators and logs a table of each.

  Args:
    evaluators: from `make`.
    models: name of a set of weights, 'raw' or 'ema' in training -> model.

  Returns:
    Name of the evaluator -> name of the weights -> name -> value.
  """
  results = {}
  for name, evaluator in evaluators.items():
    results[name] = {
        weights: dict(evaluator(model))
        for weights, model in models.items()
        if weights != 'raw' or evaluator.raw
    }
    log_table(name, results[name])
  return results


def log_table(
    title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> None:
  """Logs a table, a row for each set of weights."""
  writers.log_lines(as_table(title, rows))


def as_curves(
    evaluators: Mapping[str, evaluator_lib.Evaluator],
    results: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> dict[str, float]:
  """{'heldout_loss/raw': ..., ...} of the results of `run`, without None."""
  return {
      f'{evaluators[evaluator].prefix}{name}/{weights}': value
      for evaluator, found in results.items()
      for weights, values in found.items()
      for name, value in values.items()
      if value is not None
  }


def best_curve(config, evaluators: Iterable[evaluator_lib.Evaluator]) -> str:
  """The curve of EMA weights that checkpoint.best names; '' where it is ''.

  Args:
    config: config of a run.
    evaluators: all that run in its training.

  Raises:
    UserError: no evaluator has such a curve.
  """
  name = config.checkpoint.best
  prefixes = tuple(evaluator.prefix for evaluator in evaluators)
  validate.require(
      not name or name.startswith(prefixes),
      f'checkpoint.best is {name!r}; its curve must begin with one of '
      f'{", ".join(prefixes)}, of the evaluators in eval.evaluators and '
      'log.scores.',
  )
  return name and f'{name}/ema'


def have_run(
    evaluators: Iterable[evaluator_lib.Evaluator],
    run_dir: epath.PathLike,
    step: int,
) -> bool:
  """Whether the curves of a run have the points of a step."""
  return all(
      writers.has(run_dir, step, evaluator.prefix) for evaluator in evaluators
  )


def as_table(
    title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> str:
  """A row for each set of weights, a column for each value, '-' for None.

  What `beside_real` measures of other clips than samples has rows of its own.
  """
  names, cells = [], []
  for weights, found in rows.items():
    for kind, values in beside_real.by_kind(found).items():
      names = names or list(values)
      cells.append([
          weights if kind == 'samples' else kind,
          *('-' if v is None else f'{v:.4f}' for v in values.values()),
      ])
  return writers.table([title, *names], cells)
