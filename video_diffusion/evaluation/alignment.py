"""How often clips of moving_shapes show what their captions say.

Samples of a model are made from the captions of held-out clips: once of pairs
of colour and shape that were seen in training, once of pairs that were held
out. `metrics.shapes_reader` reads them. Real clips of the same captions give
the most that the reader allows.

Two columns are of the frames alone. 'palette' is the share, of the pixels that
are not background, near a palette colour. 'frames' is the Frechet distance of
all frames, shrunk to 8x8 by area (192 numbers in [0, 1] each), to the frames of
as many other real clips of the same pairs: an FID whose network is a mean.
"""
from collections.abc import Iterator, Mapping, Sequence
import functools
import itertools
import time
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.evaluation import extractors
from video_diffusion.evaluation import shapes_clips
from video_diffusion.evaluation import shapes_figures
from video_diffusion.inference import conditioning
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.metrics import frechet
from video_diffusion.metrics import shapes_reader

COLUMNS = ('colour', 'shape', 'motion', 'all', 'palette', 'frames')
REAL = ('all', 'frames')  # columns of real clips that the evaluator yields
SMALL = extractors.THUMBNAIL  # side of the frames that are compared
BLOCK = 64  # number of clips whose palette is looked at, at once


def small_frames(videos: np.ndarray) -> np.ndarray:
  """All frames, shrunk to 8x8 by area and flat.

  Args:
    videos: uint8 [n, t, h, w, 3]; h and w divide by 8.

  Returns:
    float64 [n * t, 192] in [0, 1].
  """
  small = extractors.thumbnails(videos)
  return small.reshape(-1, small.shape[-1])


def palette_share(videos: np.ndarray) -> float:
  """'palette' of `shapes_score.shape_figures`, computed in blocks of clips.

  Args:
    videos: uint8 [n, t, h, w, 3].
  """
  near, shown = 0.0, 0.0
  for start in range(0, len(videos), BLOCK):
    block = videos[start : start + BLOCK]
    figures = shapes_figures.figures(block)
    near += figures['palette'] * figures['area'] * len(block)
    shown += figures['area'] * len(block)
  return near / shown if shown else 0.0


class CaptionScores:
  """Scores clips that were made from the captions of real ones.

  Attributes:
    captions: the captions, of the first real clips.
    real: the columns of these real clips themselves.
  """

  def __init__(
      self,
      source: shapes.MovingShapes,
      num_clips: int,
      *,
      frames: int,
      frameskips: Sequence[int] = (1,),
  ):
    """Reads real clips.

    Args:
      source: of held-out clips.
      num_clips: number of captions. As many further clips give the frames that
        frames are compared with.
      frames: number of frames of a clip.
      frameskips: see `shapes_clips.real_clips`.
    """
    clips, others = (
        itertools.islice(
            shapes_clips.real_clips(
                source, frames=frames, frameskips=frameskips, first=first
            ),
            num_clips,
        )
        for first in (0, num_clips)
    )
    clips = list(clips)
    self.captions = [clip['caption'] for clip in clips]
    self._reader = shapes_clips.make_reader(source)
    self._wanted = np.stack([clip['labels'] for clip in clips])
    self._frames = frechet.mean_and_covariance(
        np.concatenate([small_frames(clip['video'][None]) for clip in others])
    )
    self.real = self(np.stack([clip['video'] for clip in clips]))

  def __call__(self, videos: np.ndarray) -> dict[str, float]:
    """uint8 [n, t, h, w, 3], in the order of the captions -> COLUMNS."""
    return {
        **shapes_reader.match_shares(self._reader(videos), self._wanted),
        'palette': palette_share(videos),
        'frames': frechet.frechet_distance(
            *frechet.mean_and_covariance(small_frames(videos)), *self._frames
        ),
    }


def make_scores(
    source: shapes.MovingShapes, num_clips: int, **window
) -> dict[str, CaptionScores]:
  """'seen' and perhaps 'heldout' -> the scores of num_clips clips of each.

  Args:
    source: of held-out clips.
    num_clips: number of clips of each kind of pairs.
    **window: frames and frameskips; see `CaptionScores`.
  """
  return {
      pairs: CaptionScores(part, num_clips, **window)
      for pairs, part in shapes_clips.by_pairs(source).items()
  }


def sample(
    model: model_lib.Model,
    conditions: conditioning.Conditions,
    weight: float,
    batch_size: int | None = None,
    **settings: Any,
) -> np.ndarray:
  """Samples clips; one compiled program does for all weights.

  Args:
    model: it samples with the seed of its run.
    conditions: of all clips.
    weight: w of classifier-free guidance.
    batch_size: clips sampled at once; None takes the run's own.
    **settings: see `Model.with_settings`.

  Returns:
    uint8 [n, frames, height, width, 3], all clips in every process.
  """
  model.with_settings(guidance_weight=weight)  # a sentence where it may not be
  batches = model.batches(conditions.num_videos, batch_size)
  stage = model.stage(
      model.with_settings(**settings), conditions, batches,
      block_frames=model.frames,
  )
  stage = stage._replace(sample_block=functools.partial(
      stage.sample_block, weight=np.float32(weight)
  ))
  plan = sampling_plan.generate(
      model.frames, block_frames=model.frames, overlap=1
  )
  videos = rollout.run(plan, [stage], batches, seed=model.config.sample.seed)
  return batches.first(videos, conditions.num_videos)


class Row(NamedTuple):
  """A row of the table.

  Attributes:
    pairs: 'seen' or 'heldout'.
    weight: w of classifier-free guidance; None for real clips.
    columns: the values of COLUMNS.
    videos: the clips that were read, uint8 [n, frames, height, width, 3]; None
      for real clips.
    captions: their captions.
    seconds: how long sampling took, compilation included; None for real clips.
  """

  pairs: str
  weight: float | None
  columns: dict[str, float]
  videos: np.ndarray | None
  captions: Sequence[str]
  seconds: float | None


def rows(
    model: model_lib.Model,
    scores: Mapping[str, CaptionScores],
    weights: Sequence[float],
    *,
    batch_size: int | None = None,
    **settings: Any,
) -> Iterator[Row]:
  """Samples and scores: for each kind of pairs real clips, then each weight.

  The captions and the noise are the same for every weight.

  Args:
    model: takes captions.
    scores: from `make_scores`.
    weights: of classifier-free guidance.
    batch_size: see `sample`.
    **settings: see `sample`.
  """
  for pairs, score in scores.items():
    yield Row(pairs, None, score.real, None, score.captions, None)
    conditions = model.conditions(prompts=score.captions)
    for weight in weights:
      began = time.time()
      videos = sample(model, conditions, weight, batch_size, **settings)
      seconds = time.time() - began
      yield Row(
          pairs, weight, score(videos), videos, conditions.captions, seconds
      )


def require_readable(
    config, source: mixture_lib.Source
) -> shapes.MovingShapes:
  """Returns the clips of a run with captions of moving_shapes.

  Args:
    config: of the run.
    source: its held-out clips.

  Raises:
    UserError: the run has other clips or takes no captions, or its frames
      cannot be shrunk. The sentence names eval.evaluators.
  """
  begin = "eval.evaluators holds 'alignment', which"
  sources = mixture_lib.as_mixture(source).sources
  if len(sources) > 1 or not isinstance(sources[0], shapes.MovingShapes):
    raise UserError(
        f'{begin} reads clips of moving_shapes and no others, but data.name is '
        f'{config.data.name!r}'
        f'{", mixed with further data sets" if len(sources) > 1 else ""}; '
        'leave it out.'
    )
  if not config.text.encoder:
    raise UserError(
        f'{begin} compares samples with their captions, but the run takes no '
        "text (text.encoder is ''); leave it out."
    )
  height, width = config.data.height, config.data.width
  if height % SMALL or width % SMALL:
    raise UserError(
        f'{begin} shrinks frames to {SMALL}x{SMALL}, but data.height and '
        f'data.width are {height} and {width}; they must divide by {SMALL}.'
    )
  return sources[0]


class Alignment:
  """The columns above, of samples with the run's own guidance weight.

  eval.num_clips clips of each kind of pairs are sampled, eval.batch_size at
  once, by the sample fields of the run.
  """

  key, prefix, raw = 'alignment', 'alignment_', False

  def __init__(self, run: evaluator_lib.Run):
    """Raises UserError; see `require_readable`."""
    self._source = require_readable(run.model.config, run.source)
    self._scores = None  # real clips are read at the first call

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields 'seen_colour' ..., 'seen_real_all' and 'seen_real_frames'.

    The same follows with 'heldout' for 'seen' where pairs are held out. Samples
    that are not finite have no values.
    """
    config = model.config
    if self._scores is None:
      self._scores = make_scores(
          self._source, config.eval.num_clips, frames=config.data.frames,
          frameskips=config.data.frameskips,
      )
    values = {
        f'{pairs}_{name}': None
        for pairs in self._scores
        for name in (*(f'real_{column}' for column in REAL), *COLUMNS)
    }
    try:
      with naming(_field):
        for row in rows(
            model, self._scores, [config.sample.guidance_weight],
            batch_size=config.eval.batch_size,
        ):
          names = COLUMNS if row.weight is not None else REAL
          real = '' if row.weight is not None else 'real_'
          for name in names:
            values[f'{row.pairs}_{real}{name}'] = row.columns[name]
    except rollout.NotFiniteError as error:
      # A training goes on, and may recover.
      logging.error('No alignment of step %d: %s', model.step, error)
    yield from values.items()


def _field(name):
  """The config field of an argument of sampling."""
  return 'eval.batch_size' if name == 'batch_size' else f'sample.{name}'
