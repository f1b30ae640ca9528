"""What is measured of a trained model: one evaluator is one object.

The field eval.evaluators lists which of EVALUATORS run, in training every
log.eval_every steps and in --mode=evaluate. A further evaluator is a further
class here, or an import of it.
"""
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from etils import epath

from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import alignment
from video_diffusion.evaluation import heldout_loss
from video_diffusion.parallel import distributed
from video_diffusion.training import writers


class Evaluator(Protocol):
  """Measures a model.

  It is made once, by (model, held-out clips, encode of their captions), and
  keeps what it compiles. The model that it is made with may have no weights.

  Attributes:
    key: where evaluation.json has its values.
    prefix: begins the names of its curves; no other evaluator has it.
    raw: training also gives it the raw weights, not only their EMA.
  """

  key: str
  prefix: str
  raw: bool

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields (name, value); None where there is no value."""


class HeldoutLoss:
  """The training objective on held-out clips, under times and noise of a seed.
  """

  key, prefix, raw = 'losses', 'heldout_', True

  def __init__(
      self,
      model: model_lib.Model,
      source: mixture_lib.Source,
      encode: pipeline.Encode | None,
  ):
    self._source, self._encode = source, encode
    step = heldout_loss.make_eval_step(
        model.network,
        prediction=model.config.diffusion.prediction,
        logsnr_fn=build.make_logsnr_fn(model.config),
        mesh=model.mesh,
    )
    self._step = distributed.compiled_together(step, 'heldout_loss')

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields 'loss', and 'loss_bucket_0' ... from the noisiest on."""
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


# A name in eval.evaluators -> its class.
EVALUATORS = {'heldout_loss': HeldoutLoss, 'alignment': alignment.Alignment}


def make(
    model: model_lib.Model,
    source: mixture_lib.Source,
    encode: pipeline.Encode | None = None,
) -> dict[str, Evaluator]:
  """The evaluators of a run, by name, in the order of eval.evaluators.

  Args:
    model: model of the run, perhaps without weights so far.
    source: held-out clips.
    encode: makes the arrays of captions, for a run with text.

  Raises:
    UserError: eval.evaluators holds an unknown name.
  """
  names = model.config.eval.evaluators
  for name in names:
    if name not in EVALUATORS:
      raise UserError(
          f'eval.evaluators holds {name!r}; there are '
          f'{", ".join(EVALUATORS)}.'
      )
  return {name: EVALUATORS[name](model, source, encode) for name in names}


def run(
    evaluators: Mapping[str, Evaluator], models: Mapping[str, model_lib.Model]
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
    writers.log_lines(as_table(name, results[name]))
  return results


def as_curves(
    evaluators: Mapping[str, Evaluator],
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


def have_run(
    evaluators: Iterable[Evaluator], run_dir: epath.PathLike, step: int
) -> bool:
  """Whether the curves of a run have the points of a step."""
  return all(
      writers.has(run_dir, step, evaluator.prefix) for evaluator in evaluators
  )


def as_table(
    title: str, rows: Mapping[str, Mapping[str, float | None]]
) -> str:
  """A row for each set of weights, a column for each value, '-' for None."""
  names = list(next(iter(rows.values()), {}))
  cells = [
      [weights, *('-' if v is None else f'{v:.4f}' for v in values.values())]
      for weights, values in rows.items()
  ]
  return writers.table([title, *names], cells)
