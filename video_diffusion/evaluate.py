"""The mode evaluate: measures the EMA weights of a run, or scores a folder."""
import datetime
import functools
import json
from typing import Any

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion import callable_module
from video_diffusion.api import load as load_lib
from video_diffusion.config import inputs
from video_diffusion.config import text_inputs
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import naming
from video_diffusion.evaluation import bars
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import heldout_loss
from video_diffusion.evaluation import report_page
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import score_run
from video_diffusion.filesystem import files

FOLDER_FRAMES = 16  # frames of a clip of a folder, unless eval.frames is set
FPS = 8.0  # of the videos of folders in a report


def evaluate(
    run_dir: epath.PathLike,
    overrides: dict[str, Any] | None = None,
    *,
    step: int | None = None,
) -> dict[str, Any]:
  """Writes evaluation.json into a run's folder and logs it as tables.

  The EMA weights of a checkpoint are measured by the evaluators of the field
  eval.evaluators. The module can be called in place of this function:
  `video_diffusion.evaluate('runs/mine', {'eval.num_clips': 64})`.

  Args:
    run_dir: folder of the run, local or gs://.
    overrides: 'group.field' -> value, as on the command line: fields of the
      groups eval, sample and mesh, and the paths of the data.
    step: step of the checkpoint; None takes the newest.

  Returns:
    What evaluation.json holds: name -> value in 'losses', 'scores' and
    'alignment', as far as such evaluators ran, and the circumstances.

  Raises:
    UserError: no run or no checkpoint in run_dir; bad eval fields, or no data.
  """
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  model = load_lib.load(run_dir, overrides, mode='evaluate', step=step)
  config = model.config
  source = inputs.make_source(config, 'test')
  inputs.require_arrays(config, model.network, source)
  encode = text_inputs.open_text(config, run_dir, source)
  # The clips of training are opened where a score asks for them, and once.
  source_of = functools.cache(
      lambda split: (
          source if split == 'test' else inputs.make_source(config, split)
      )
  )
  evaluators = evaluators_lib.make(evaluator_lib.Run(
      model, source, encode, source_of, run_dir / evaluator_lib.FOLDER,
      keep=True,
  ))
  title = f'EMA, step {model.step}'
  results = evaluators_lib.run(evaluators, {title: model})
  report = {
      evaluator.key: results[name][title]
      for name, evaluator in evaluators.items()
  } | {
      'step': model.step,
      'windows': config.eval.num_clips,
      'clips': mixture_lib.as_mixture(source).distinct(config.eval.num_clips),
      'data': ' + '.join(inputs.video_names(config)),
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


def evaluate_folders(
    config: ml_collections.ConfigDict,
    samples: str,
    reference: str,
    output: str,
) -> dict[str, float | None]:
  """Scores a folder of videos against another, without a run.

  Writes report.json and report.html into the folder `output`.

  Args:
    config: a config; its eval fields and the limits of its data group count.
    samples: local folder of the videos that are scored.
    reference: local folder of real videos.
    output: folder of the report, local or gs://.

  Returns:
    Name of a score -> its value.

  Raises:
    UserError: a folder holds too few videos that can be scored, or videos of
      several sizes; bad eval fields.
  """
  output = epath.Path(files.expand(output, '--workdir', bucket=True))
  options = evaluators_lib.options_of(config)
  frames = options.frames or FOLDER_FRAMES
  with naming(lambda name: f'eval.{name}'):
    score_options.check(options, frames)
    extractors = score_options.make_extractors(options)
    limits = limits_lib.from_fields(config.data)
    clips = [
        folder_clips.FolderClips(folder, name, frames=frames, limits=limits)
        for folder, name in (
            (samples, '--samples'), (reference, '--reference')
        )
    ]
    report = score_run.score_folders(
        *clips, options, extractors, output, bars.bar
    )
  report_page.write(output, report, fps=FPS)
  values = score_run.values(report)
  evaluators_lib.log_table('scores', {'samples': values})
  logging.info('Wrote %s.', output / 'report.html')
  return values


callable_module.make(__name__)
