"""What a row of `benchmarks.tables` measures of a model, by kind of table.

Each class reads real clips once. `real()` has the figures of real clips, which
no samples can be much better than, and `measure(model, ...)` those of samples.
Real clips that samples are compared with are others than those whose captions
samples are made of, but for `Prediction`, whose samples continue the very clips
that they are compared with, as in the paper's table 3.
"""
from collections.abc import Callable
import dataclasses
import itertools
import time

import jax.numpy as jnp
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.config import inputs
from video_diffusion.config import next_frames
from video_diffusion.data import shapes
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import loss
from video_diffusion.evaluation import alignment
from video_diffusion.evaluation import coherence
from video_diffusion.evaluation import evaluator
from video_diffusion.evaluation import evaluators
from video_diffusion.evaluation import extension_figures
from video_diffusion.evaluation import fvd
from video_diffusion.evaluation import shapes_clips
from video_diffusion.inference import sampling_plan
from video_diffusion.training import state as state_lib

BLOCKS = 4  # blocks of T frames that an extended video is scored by
# uint8 videos [n, frames, height, width, 3] -> float32 [n, d].
Features = Callable[[np.ndarray], np.ndarray]
Figures = dict[str, float | None]
SIZE_AND_LOSSES = 'parameters_m', 'heldout_loss', 'heldout_x', 'heldout_next'


class Captions:
  """Samples with captions of seen pairs: FVD and the columns of `alignment`."""

  def __init__(self, config, clips: int, features: Features):
    """Reads real clips.

    Args:
      config: of a model of the table.
      clips: number of samples, and of real clips.
      features: of the FVD.
    """
    self._features = features
    source = shapes_clips.by_pairs(inputs.make_source(config, 'test'))['seen']
    window = {
        'frames': config.data.frames, 'frameskips': config.data.frameskips
    }
    self._scores = alignment.CaptionScores(source, clips, **window)
    # `CaptionScores` has read twice as many clips.
    self._captioned, others = (
        features(real_videos(source, clips, first=first, **window))
        for first in (0, 2 * clips)
    )
    self._others = others
    self.protocol = (
        f'{sampler(config)}; {clips} captions of held-out clips with seen '
        'pairs, against as many other such clips'
    )

  def real(self) -> Figures:
    """The figures of the clips that the captions are of."""
    score = fvd.fvd(self._captioned, self._others)
    return {'fvd': score} | self._scores.real

  def measure(
      self, model: model_lib.Model, *, weight: float, **settings
  ) -> Figures:
    """The figures of samples.

    Args:
      model: takes captions.
      weight: of classifier-free guidance.
      **settings: of the sampler, where they are not those of the model.
    """
    *_, row = alignment.rows(
        model, {'seen': self._scores}, [weight], **settings
    )
    score = fvd.fvd(self._features(row.videos), self._others)
    return {'fvd': score} | row.columns


class Variant(Captions):
  """The same of models of one size that are built or trained in other ways.

  The other figures are those of `size_and_losses`.
  """

  def __init__(self, config, clips: int, features: Features):
    """Reads real clips; see `Captions`."""
    super().__init__(config, clips, features)
    self.protocol += f'; losses of {config.eval.num_clips} held-out clips'

  def real(self) -> Figures:
    """The figures of the clips that the captions are of."""
    return super().real() | dict.fromkeys(SIZE_AND_LOSSES)

  def measure(self, model: model_lib.Model, **settings) -> Figures:
    """The figures of samples; see `Captions`."""
    return super().measure(model, **settings) | size_and_losses(model)


class Extension:
  """Videos of BLOCKS * T frames, extended from noise as the model does it.

  'fvd_1' ... are of frames 1 to T and so on, against the same frames of real
  clips. 'change_within' and 'change_at_seams' are the root mean square of the
  change from frame to frame, on the range [-1, 1], within the frames that one
  block has sampled and where the next one begins. The other figures are those
  of `coherence`.
  """

  def __init__(self, config, clips: int, features: Features):
    """Reads real clips; see `Captions`."""
    self._features, self._clips = features, clips
    self._block, self._frames = config.data.frames, BLOCKS * config.data.frames
    source = dataclasses.replace(
        inputs.make_source(config, 'test'), num_frames=self._frames
    )
    self._coherence = coherence.make_figures(config, source)
    self._shown, others = (
        real_videos(source, clips, first=first, frames=self._frames)
        for first in (0, clips)
    )
    self._others = [features(block) for block in self._blocks(others)]
    self._overlap = config.sample.overlap or self._block // 2
    self.protocol = (
        f'{sampler(config)} for a block of {self._block} frames, which knows '
        f'{self._overlap}; w_r = {config.sample.reconstruction_weight:g}; '
        f'{clips} unconditional samples of {self._frames} frames, against as '
        'many held-out clips'
    )

  def real(self) -> Figures:
    """The figures of other real clips."""
    return self._figures(self._shown, self._plan(0))

  def measure(self, model: model_lib.Model, **settings) -> Figures:
    """The figures of samples.

    Args:
      model: takes no condition.
      **settings: reconstruction_weight=0.0 is replacement alone.
    """
    count = next_frames.context_frames(model.config)
    return self._figures(
        model.sample(
            num_videos=self._clips, frames=self._frames,
            overlap=None if count else self._overlap,
            seed=model.config.sample.seed, **settings,
        ),
        self._plan(count),
    )

  def _plan(self, context_frames):
    return sampling_plan.generate(
        self._frames, block_frames=self._block, overlap=self._overlap,
        context_frames=context_frames,
    )

  def _figures(self, videos, plan):
    scores = {
        f'fvd_{i}': fvd.fvd(self._features(block), others)
        for i, (block, others) in enumerate(
            zip(self._blocks(videos), self._others, strict=True), start=1
        )
    }
    return scores | changes(videos, plan) | self._coherence(videos)

  def _blocks(self, videos):
    return np.split(videos, BLOCKS, axis=1)


class VariantExtension(Extension):
  """The same of models of one size that are built or trained in other ways.

  'frame_seconds' is the time of the sampler for each new frame behind the first
  block, without compilation. The other figures are those of `size_and_losses`.
  """

  def __init__(self, config, clips: int, features: Features):
    """Reads real clips; see `Captions`."""
    super().__init__(config, clips, features)
    self.protocol += (
        f"; 'aligned' knows {config.extension.context_frames} frames, and "
        f'samples one; losses of {config.eval.num_clips} held-out clips'
    )

  def real(self) -> Figures:
    """The figures of other real clips."""
    return super().real() | dict.fromkeys((*SIZE_AND_LOSSES, 'frame_seconds'))

  def measure(self, model: model_lib.Model, **settings) -> Figures:
    """The figures of samples; see `Extension`."""
    times = [time.perf_counter()]
    found = super().measure(
        model, progress=lambda *_: times.append(time.perf_counter()), **settings
    )
    blocks = len(self._plan(next_frames.context_frames(model.config)).blocks)
    # Of all batches; the first block of each is sampled from noise. The median
    # leaves out the block that is compiled.
    took = np.diff(times).reshape(-1, blocks)[:, 1:]
    new = (self._frames - self._block) * model.batches(self._clips).size
    seconds = float(np.median(took)) * (blocks - 1) / new
    return found | size_and_losses(model) | {'frame_seconds': seconds}


class Prediction:
  """Held-out clips continued from their first frames, which count in the FVD.

  The other figures are those of `coherence`.
  """

  def __init__(self, config, clips: int, features: Features):
    """Reads real clips; see `Captions`."""
    self._features = features
    source = inputs.make_source(config, 'test')
    self._coherence = coherence.make_figures(config, source)
    self._given, self._shown = (
        real_videos(source, clips, first=first, frames=config.data.frames)
        for first in (0, clips)
    )
    self._others = features(self._given)
    self.protocol = (
        'ancestral with gamma 0, and a Langevin step of 0.1 after each step '
        'but the last; reconstruction guidance with w_r = '
        f'{config.sample.reconstruction_weight:g}; {clips} held-out clips, '
        'continued and compared with themselves'
    )

  def real(self) -> Figures:
    """The figures of other real clips."""
    return self._figures(self._shown)

  def measure(
      self, model: model_lib.Model, *, known: int, **settings
  ) -> Figures:
    """The figures of samples that know some frames.

    Args:
      model: takes no condition.
      known: number of frames that are given.
      **settings: num_steps and corrector_delta.
    """
    return self._figures(model.extend(
        self._given[:, :known], frames=model.frames, sampler='ancestral',
        gamma=0.0, seed=model.config.sample.seed, **settings,
    ))

  def _figures(self, videos):
    score = fvd.fvd(self._features(videos), self._others)
    return {'fvd': score} | self._coherence(videos)


def changes(videos: np.ndarray, plan: extension.Plan) -> Figures:
  """'change_within' and 'change_at_seams' of `Extension`.

  Args:
    videos: uint8 [n, frames, height, width, 3].
    plan: that they were sampled by.
  """
  seams = extension_figures.seams(plan)
  within = [i for i in range(videos.shape[1] - 1) if i not in seams]
  floats = videos.astype(np.float32) / 127.5 - 1
  change = lambda places: extension_figures.frame_to_frame(
      floats, places
  )['frame_to_frame_rms_at_seams']
  return {'change_within': change(within), 'change_at_seams': change(seams)}


def real_videos(
    source: shapes.MovingShapes, count: int, **options
) -> np.ndarray:
  """uint8 [count, frames, height, width, 3]: real clips.

  Args:
    source: of the clips.
    count: their number.
    **options: see `shapes_clips.real_clips`.
  """
  clips = shapes_clips.real_clips(source, **options)
  return np.stack([clip['video'] for clip in itertools.islice(clips, count)])


def size_and_losses(model: model_lib.Model) -> Figures:
  """SIZE_AND_LOSSES of a model.

  'parameters_m' are in millions. 'heldout_loss' is of videos as a whole,
  without a context, by the objective of the model. 'heldout_x' is the same as
  the error of x_hat, which models of any prediction share. 'heldout_next' is of
  next frames alone; None where the model was not trained on such.
  """
  config, encode = model.config, model.conditioner.encode
  config.data.loader = 'threads'  # that encoder cannot be sent to a process
  source = inputs.make_source(config, 'test')
  run = evaluator.Run(model, source, encode, lambda split: source, None)
  of_x = lambda logsnr: jnp.exp(
      loss.log_error_ratio(logsnr, config.diffusion.prediction)
  )
  losses, losses_of_x = (
      dict(evaluators.HeldoutLoss(run, *weight_fn)(model))
      for weight_fn in ((), (of_x,))
  )
  return {
      'parameters_m': state_lib.tree_size(model.params) / 1e6,
      'heldout_loss': losses['loss'],
      'heldout_x': losses_of_x['loss'],
      'heldout_next': losses.get('loss_next'),
  }


def sampler(config) -> str:
  """How the sample fields of a config sample, for a protocol."""
  fields = config.sample
  gamma = f', gamma {fields.gamma:g}' if fields.sampler == 'ancestral' else ''
  return f'{fields.sampler} in {fields.num_steps} steps{gamma}'
