"""The model card of a run: what it was trained on, how, and how good it is."""
import json
import math
from typing import Any

from etils import epath
import jax
import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.config import inputs
from video_diffusion.errors import UserError

_TEMPLATE = """---
library_name: video_diffusion
pipeline_tag: {task}
tags:
- video-diffusion-models
- arxiv:2204.03458
---

# A video diffusion model of {data}

This model samples videos of {frames} frames of {width}x{height} pixels{given}.

    import video_diffusion
    model = video_diffusion.load('FOLDER')
    video_diffusion.write_video('four.mp4', model.sample({call}))

## Data

{data}.

## Recipe

| what | value |
|---|---|
| parameters | {parameters:,} |
| updates | {step:,} |
| clips of a batch | {batch_size} |
| video frames and image frames of a clip | {frames} + {images} |
| prediction | {prediction} |
| learning rate | {learning_rate} |

config.json has every field.

## Scores

{scores}

## Limits

The model knows nothing but videos like those that it was trained on. Objects
may change their look or vanish within a clip, more often in videos that are
longer than {frames} frames.

## Licence

The weights have no licence of their own until whoever publishes them gives one;
the licences of the data apply.
"""


def write(
    config: ml_collections.ConfigDict,
    run_dir: epath.Path,
    params: Any,
    *,
    step: int,
) -> str:
  """The model card of a run, in Markdown.

  Args:
    config: config of the run.
    run_dir: folder of the run, whose evaluation.json has the scores.
    params: its parameters.
    step: number of updates behind them.
  """
  given, call, task = '', 'num_videos=4', 'unconditional-video-generation'
  if config.text.encoder:
    given, call, task = ' from captions', "prompts=['...']", 'text-to-video'
  elif config.model.cond_dim:
    given = f' from {config.model.conditioning}'
  return _TEMPLATE.format(
      task=task,
      data=' and '.join(inputs.video_names(config)),
      frames=config.data.frames,
      images=config.data.images,
      width=config.data.width,
      height=config.data.height,
      given=given,
      call=call,
      parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
      step=step,
      batch_size=config.batch_size,
      prediction=config.diffusion.prediction,
      learning_rate=config.optim.lr,
      scores=_scores(run_dir, step),
  )


def _scores(run_dir, step):
  """What --mode=evaluate has found of these weights, as JSON."""
  path = run_dir / 'evaluation.json'
  try:
    found = json_files.read(path) if path.exists() else {}
  except (UserError, OSError):  # the card does without
    found = {}
  if found.get('step') != step:
    return 'They were not measured.'
  content = json.dumps(found, indent=1).replace('\n', '\n    ')
  return f'By `--mode=evaluate`:\n\n    {content}'
