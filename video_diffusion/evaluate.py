"""The mode evaluate: measures the EMA weights of a run."""
import datetime
import json
from typing import Any

from absl import logging
from etils import epath
import jax

from video_diffusion.api import load as load_lib
from video_diffusion.config import inputs
from video_diffusion.config import text_inputs
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.evaluation import heldout_loss
from video_diffusion.filesystem import files


def evaluate(overrides: dict[str, Any], run_dir: str) -> dict[str, Any]:
  """Writes evaluation.json into a run's folder and logs it as tables.

  Measured are the EMA weights of the newest checkpoint, by the evaluators of
  the field eval.evaluators.

  Args:
    overrides: config fields of the command line: {'eval.num_clips': 64}.
    run_dir: folder of the run, local or gs://.

  Returns:
    What evaluation.json holds.

  Raises:
    UserError: no run or no checkpoint in run_dir; bad eval fields, or no data.
  """
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  model = load_lib.load(run_dir, overrides, mode='evaluate')
  config = model.config
  source = inputs.make_source(config, 'test')
  inputs.require_arrays(config, model.network, source)
  encode = text_inputs.open_text(config, run_dir, source)
  evaluators = evaluators_lib.make(model, source, encode)
  title = f'EMA, step {model.step}'
  results = evaluators_lib.run(evaluators, {title: model})
  report = {
      evaluator.key: results[name][title]
      for name, evaluator in evaluators.items()
  } | {
      'step': model.step,
      'windows': config.eval.num_clips,
      'clips': mixture_lib.as_mixture(source).distinct(config.eval.num_clips),
      'data': ' + '.join(
          fields['name']
          for prefix, fields in inputs.data_sets(config).items()
          if not prefix.startswith('data.image_mixture.')
      ),
      'prediction': config.diffusion.prediction,
      'buckets': 'equal parts of the log-SNR range, noisiest first',
      'seed': heldout_loss.SEED,
      'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'date': datetime.date.today().isoformat(),
  }
  path = run_dir / 'evaluation.json'
  if jax.process_index() == 0:
    files.write(path, json.dumps(report, indent=1))
  logging.info('Wrote %s.', path)
  return report
