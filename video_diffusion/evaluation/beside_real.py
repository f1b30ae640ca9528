"""Figures of samples, beside those of real clips and of a control."""
from collections.abc import Callable, Iterator, Mapping

from absl import logging
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import naming
from video_diffusion.inference import rollout
from video_diffusion.metrics import flicker

SEED = 0  # of the control
KINDS = ('real', 'unrelated')  # of clips beside the samples
Figures = Callable[[np.ndarray], dict[str, float | None]]


def samples(model: model_lib.Model) -> np.ndarray:
  """eval.num_clips samples, by the sample fields of the run.

  Args:
    model: with the weights of a step. It samples eval.batch_size clips at once.

  Returns:
    uint8 [n, frames, height, width, 3], all clips in every process.

  Raises:
    NotFiniteError: frames are not finite.
    UserError: a field that does not fit.
  """
  count, batch_size = model.config.eval.num_clips, model.config.eval.batch_size
  arguments = build.sample_arguments(model.config) | {'num_videos': count}
  with naming(_field):
    videos = model.sample(**arguments, batch_size=batch_size)
    return model.batches(count, batch_size).first(videos, count)


class BesideReal:
  """Measures samples, real clips and clips of unrelated frames alike.

  The real ones are windows of as many held-out clips as there are samples, of
  data.frames frames; `flicker.unrelated_frames` makes the control of them.
  """

  def __init__(self, title: str, source: mixture_lib.Source, figures: Figures):
    """Keeps what is measured.

    Args:
      title: of a message about samples that are not finite.
      source: held-out clips.
      figures: uint8 [n, frames, height, width, 3] -> name -> value.
    """
    self._title, self._source, self._figures = title, source, figures
    self._real = None  # real clips are read at the first call

  def real(self, config) -> dict[str, float | None]:
    """'real_...' and 'unrelated_...' of held-out clips.

    Args:
      config: of the run.
    """
    if self._real is None:
      examples = inputs.heldout_examples(
          config, self._source, config.eval.num_clips
      )
      videos = np.stack([example['video'] for example in examples])
      self._real = {}
      mixed = flicker.unrelated_frames(videos, SEED)
      for name, clips in zip(KINDS, (videos, mixed), strict=True):
        self._real |= {
            f'{name}_{key}': value
            for key, value in self._figures(clips).items()
        }
    return self._real

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields the figures of samples, and those of `real`.

    Samples that are not finite have no values.
    """
    real = self.real(model.config)
    try:
      found = self._figures(samples(model))
    except rollout.NotFiniteError as error:
      # A training goes on, and may recover.
      logging.error('No %s of step %d: %s', self._title, model.step, error)
      found = dict.fromkeys(by_kind(real)['real'])
    yield from found.items()
    yield from real.items()


def by_kind(
    values: Mapping[str, float | None],
) -> dict[str, dict[str, float | None]]:
  """{'samples': {name: value}, 'real': ..., 'unrelated': ...} of a call.

  Args:
    values: by name, as `BesideReal` yields them. All values count as those of
      samples, unless each of the kinds that are there has the same names.
  """
  found = {}
  for name, value in values.items():
    kind, _, rest = name.partition('_')
    kind, rest = (kind, rest) if kind in KINDS else ('samples', name)
    found.setdefault(kind, {})[rest] = value
  if len({tuple(named) for named in found.values()}) > 1:
    return {'samples': dict(values)}
  return found


def _field(name):
  """The config field of an argument of sampling."""
  fields = {'batch_size': 'eval.batch_size', 'num_videos': 'eval.num_clips'}
  return fields.get(name, f'sample.{name}')
