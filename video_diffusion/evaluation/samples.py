"""What is shown of samples: the grids of a training run, and their figures."""
from absl import logging
from etils import epath
import jax
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.errors import naming
from video_diffusion.evaluation import shapes_figures
from video_diffusion.inference import outputs
from video_diffusion.inference import rollout
from video_diffusion.training import writers


def write_grid(
    model: model_lib.Model, run_dir: epath.Path, writer: writers.Writer
) -> list[str]:
  """Samples by the run's own fields, and writes a grid of the first videos.

  The grid is samples/step_<step>.mp4 and .gif, and goes to TensorBoard. Every
  process takes part; the first one writes.

  Args:
    model: with the weights of a step.
    run_dir: folder of the run.
    writer: of the run's curves.

  Returns:
    Sentences about what the disk refused, which are logged as well.
  """
  config, step = model.config, model.step
  arguments = build.sample_arguments(config)
  try:
    with naming(lambda name: f'sample.{name}'):
      videos = model.sample(**arguments)
  except rollout.NotFiniteError as error:
    # The training goes on, and may recover.
    logging.error('No samples of step %d: %s', step, error)
    return []
  conditions = model.conditions(
      *(arguments[name] for name in ('num_videos', 'prompts', 'labels'))
  )
  batches = model.batches(conditions.num_videos)
  shown = batches.first(videos, outputs.GRID_VIDEOS)
  missing = []
  if jax.process_index() == 0:
    gif, shape, missing = outputs.write_training_grid(
        outputs.grid_path(run_dir, step), shown, conditions.captions,
        fps=config.sample.fps,
    )
    writer.gif(step, 'samples', gif, shape)
  log_figures(config, shown)
  return missing


def log_figures(config, videos: np.ndarray) -> None:
  """Logs `shapes_figures.table`, where the run's data are moving_shapes.

  Args:
    config: of the run that has sampled them.
    videos: uint8 [n, frames, height, width, 3].
  """
  if not inputs.all_moving_shapes(config):
    return
  n, t = videos.shape[:2]
  examples = inputs.heldout_examples(
      config, inputs.make_source(config, 'test'), n,
      frames=min(t, config.data.frames),
  )
  writers.log_lines(shapes_figures.table(videos, examples))
