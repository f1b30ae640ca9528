"""From a run's folder to a model that Python code can sample from.

  import video_diffusion
  model = video_diffusion.load('runs/moving_shapes')
  videos = model.sample(num_videos=4)
  video_diffusion.write_video('four.mp4', videos)

Videos are uint8 [n, frames, height, width, 3]; a given one may come without its
first axis. The command line, the grids of a training run and the benchmarks
sample through the same classes.
"""
from collections.abc import Collection
from typing import Any

from etils import epath

from video_diffusion.api import model_folder
from video_diffusion.api.model import Model
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import saved_config
from video_diffusion.config import text_inputs
from video_diffusion.config import validate
from video_diffusion.filesystem import files
from video_diffusion.inference import conditioning

# Mode -> the groups of fields that a call may set.
_GROUPS = {'sample': ('sample',), 'evaluate': ('eval', 'sample')}


def load(
    path: epath.PathLike | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    optional: Collection[str] = (),
    mode: str = 'sample',
    step: int | None = None,
) -> Model:
  """The model of a run's folder, or of a copy of its config.json and weights/.

  Weights are read when they are first used.

  Args:
    path: the folder, local or gs://; 'hf://OWNER/NAME', which huggingface_hub
      fetches; None is the small model that comes with the package.
    overrides: 'group.field' -> value, as on the command line: {'text.path':
      'T5'}. They are the fields that name files, which a run's own config is
      not trusted with, and those of the groups mesh and sample, or eval.
    optional: overrides that are passed over where the run has no such field.
    mode: 'sample'; or 'evaluate', which takes fields of the group eval as well
      and needs the data at once.
    step: step of the checkpoint; None takes the newest.

  Raises:
    UserError: the folder holds no run, or a field cannot be set.
  """
  overrides = overrides or {}
  path = model_folder.find(path)
  run_dir = epath.Path(files.expand(path, 'path', bucket=True))
  config = saved_config.load(
      overrides, run_dir, (*_GROUPS[mode], 'mesh'), optional=optional
  )
  named = text_inputs.places(config, run_dir)
  if mode == 'sample':
    saved_config.require_places(overrides, run_dir, *named)
    saved_config.tell_places(overrides, run_dir)
  else:
    saved_config.require_places(overrides, run_dir, 'data', *named)
  validate.check(config, mode)
  sizes = build.saved_label_sizes(config, run_dir)
  network = build.make_model(config, sizes)

  def heldout(count):
    if not inputs.synthetic(config):
      saved_config.require_places(
          overrides, run_dir, 'data',
          advice='; or give prompts' if config.text.encoder else
          '; or give labels',
      )
    source = inputs.make_source(config, 'test')
    return inputs.heldout_examples(config, source, count)

  conditioner = conditioning.Conditioner(
      heldout,
      encode=text_inputs.make_encode(config, run_dir),
      label_sizes=sizes,
      arrays=network.arrays(),
  )
  read = lambda: build.restore_ema(config, run_dir, network, step)
  return Model(config, network, read, conditioner, run_dir=run_dir)
