"""What a row of `benchmarks.distillation` measures of a model."""
import json
import time
from typing import Any

from etils import epath
import numpy as np

from benchmarks import table_rows
from video_diffusion.api import load as load_lib
from video_diffusion.api import model as model_lib
from video_diffusion.config import inputs
from video_diffusion.config import next_frames
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import shapes_clips
from video_diffusion.inference import sampling_plan
from video_diffusion.metrics import bootstrap
from video_diffusion.metrics import flicker
from video_diffusion.metrics import shapes_reader

Figures = dict[str, float | None]


def load(path: epath.PathLike, fields: dict[str, Any]) -> model_lib.Model:
  """The model of a run, with fields of the call.

  Raises:
    UserError: there is no such run, or a field cannot be set.
  """
  model = load_lib.load(path, fields, mode='evaluate')
  _ = model.params  # read once, for all copies of the model
  return model


def sample(model: model_lib.Model, **settings) -> np.ndarray:
  """Samples of a model from `Clips.asked`, with the seed of its run.

  Args:
    model: with as many conditions as there are samples.
    **settings: of `Model.sample`.
  """
  with naming(lambda name: f'sample.{name}'):
    return model.sample(
        num_videos=model.config.sample.num_videos,
        seed=model.config.sample.seed, **settings,
    )


class Clips:
  """Held-out clips: those that samples are asked for, and as many others."""

  def __init__(
      self, config, count: int, features: table_rows.Features, *, draws: int
  ):
    """Reads real clips.

    Args:
      config: of the teacher.
      count: number of samples, and of real clips.
      features: of the FVD.
      draws: of the bootstrap interval.
    """
    source = inputs.make_source(config, 'test')
    examples = list(inputs.heldout_examples(config, source, 2 * count))
    self._asked, others = examples[:count], examples[count:]
    self._features, self._draws = features, draws
    self._others = features(np.stack([clip['video'] for clip in others]))
    self._match = _matcher(config, source, self._asked)

  def asked(self, model: model_lib.Model, count: int) -> model_lib.Model:
    """A model with the conditions of the first clips, for as many samples."""
    model = model.with_examples(self._asked)
    model.config = model.config.copy_and_resolve_references()
    model.config.sample.num_videos = min(count, len(self._asked))
    return model

  def real(self) -> Figures:
    """The figures of the clips that samples are asked for."""
    return self._figures(np.stack([clip['video'] for clip in self._asked]))

  def measure(
      self, model: model_lib.Model, *, timed: bool = False, **settings
  ) -> Figures:
    """The figures of samples.

    Args:
      model: the teacher or a student.
      timed: whether the seconds of a batch are among them, in which everything
        is compiled already.
      **settings: of `Model.sample`.
    """
    found = self._figures(
        sample(self.asked(model, len(self._asked)), **settings)
    )
    if timed:
      batch = self.asked(model, model.config.sample.batch_size)
      sample(batch, **settings)  # a smaller batch may be compiled here
      began = time.perf_counter()
      sample(batch, **settings)
      found['seconds_a_batch'] = round(time.perf_counter() - began, 4)
    return found

  def extend(
      self, model: model_lib.Model, frames: int, **settings
  ) -> Figures:
    """The figures of videos that are extended block by block.

    Args:
      model: the teacher or a student.
      frames: of a video, a multiple of T.
      **settings: of `Model.sample`.

    Raises:
      UserError: frames is no multiple of T.
    """
    block = model.frames
    if frames % block or frames == block:
      raise UserError(
          f'--frames is {frames}; it must be a multiple of the {block} frames '
          'of a block, and more than one block.'
      )
    videos = sample(
        self.asked(model, len(self._asked)), frames=frames, **settings
    )
    scores = {
        f'fvd_{i}': self._fvd(self._features(part)).value
        for i, part in enumerate(np.split(videos, frames // block, axis=1), 1)
    }
    plan = sampling_plan.generate(
        frames, block_frames=block, overlap=model.overlap(),
        context_frames=next_frames.context_frames(model.config),
    )
    return scores | table_rows.changes(videos, plan) | {
        'flicker': float(flicker.ink_flicker(videos).mean())
    }

  def _fvd(self, features):
    return bootstrap.frechet_interval(
        features, self._others, draws=self._draws
    )

  def _figures(self, videos):
    score = self._fvd(self._features(videos))
    return {
        # An interval about the value; see `bootstrap.frechet_interval`.
        'fvd': score.value,
        'fvd_low': score.low - score.bias,
        'fvd_high': score.high - score.bias,
        'flicker': float(flicker.ink_flicker(videos).mean()),
    } | self._match(videos)


def _matcher(config, source, examples):
  """What reads samples of moving_shapes; of other data it finds nothing."""
  sources = mixture_lib.as_mixture(source).sources
  if (
      not config.model.cond_dim
      or len(sources) > 1
      or not isinstance(sources[0], shapes.MovingShapes)
  ):
    return lambda videos: {}
  reader = shapes_clips.make_reader(sources[0])
  wanted = np.stack([clip['labels'] for clip in examples])
  wanted = wanted.reshape(len(wanted), -1, 3)
  return lambda videos: shapes_reader.match_shares(reader(videos), wanted)


def round_cost(folder: epath.PathLike) -> Figures:
  """The updates of a round, and the minutes that these took.

  They are those of the steps alone, without compilation, pictures and
  checkpoints.

  Args:
    folder: of its run, with metrics.jsonl and config.json.
  """
  folder = epath.Path(folder)
  batch = json.loads((folder / 'config.json').read_text())['batch_size']
  step, seconds = 0, 0.0
  for line in (folder / 'metrics.jsonl').read_text().splitlines():
    point = json.loads(line)
    if 'clips_per_second' in point:
      seconds += (point['step'] - step) * batch / point['clips_per_second']
      step = point['step']
  return {'updates': step, 'minutes': round(seconds / 60, 2)}
