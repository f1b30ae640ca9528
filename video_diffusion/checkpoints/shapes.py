"""Shapes of a run's weights, read without the weights themselves."""
from absl import logging
from etils import epath
import flax.traverse_util
import orbax.checkpoint as ocp

from video_diffusion.checkpoints import safetensors_files
from video_diffusion.checkpoints import weights


def ema_shapes(run_dir: epath.PathLike) -> dict[str, tuple[int, ...]]:
  """Shapes of the EMA parameters of the newest checkpoint, else of an export.

  Args:
    run_dir: folder of the run.

  Returns:
    'path.of.an.array' -> shape; empty where there are no weights, or none that
    can be read.

  Raises:
    UserError: an exported file is damaged.
  """
  run_dir = epath.Path(run_dir).resolve()  # Orbax reads no relative path
  folder = run_dir / 'checkpoints'
  names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
  steps = sorted((int(name) for name in names if name.isdigit()), reverse=True)
  for step in steps:
    try:
      found = ocp.StandardCheckpointHandler().metadata(
          folder / str(step) / 'ema'
      )
    except Exception as error:  # pylint: disable=broad-except
      # Orbax raises many kinds. Restoring the weights says what is wrong.
      logging.warning(
          'The shapes of the checkpoint of step %d cannot be read (%s).', step,
          type(error).__name__,
      )
      continue
    flat = flax.traverse_util.flatten_dict(found.tree, sep='.')
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}
  shapes = {}
  for path in (run_dir / weights.FOLDER).glob('ema-*.safetensors'):
    inside, _ = safetensors_files.open_safetensors(path)
    shapes |= {name: tuple(array.shape) for name, array in inside.items()}
  return shapes
