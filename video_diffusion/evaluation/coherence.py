"""Whether samples of moving_shapes hold together: objects that stay the same.

Captions and labels are not needed: frame 0 says which objects a clip has.
"""
import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import alignment
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.evaluation import shapes_clips
from video_diffusion.metrics import shapes_coherence

# Real frames are read without a mistake, and four times faster than by four.
SUBPIXELS = 2


def make_figures(config, source: mixture_lib.Source) -> beside_real.Figures:
  """Makes the figures of clips like those of a run.

  Args:
    config: of the run.
    source: its held-out clips.

  Returns:
    uint8 [n, frames, height, width, 3] -> 'palette', the share of
    `alignment.palette_share`, and the values of `shapes_coherence.figures`.

  Raises:
    UserError: the run has other clips. The sentence names data.name.
  """
  sources = mixture_lib.as_mixture(source).sources
  if len(sources) > 1 or not isinstance(sources[0], shapes.MovingShapes):
    raise UserError(
        "eval.evaluators holds 'coherence', which reads clips of moving_shapes "
        f'alone, but data.name is {config.data.name!r}, or further data sets '
        'are mixed with it; leave it out.'
    )
  reader = shapes_clips.make_reader(sources[0], subpixels=SUBPIXELS)

  def figures(videos: np.ndarray) -> dict[str, float | None]:
    return {
        'palette': alignment.palette_share(videos),
        **shapes_coherence.figures(reader.shapes(videos)),
    }

  return figures


class Coherence(beside_real.BesideReal):
  """Figures of eval.num_clips samples, of real clips and of a control.

  See `make_figures` and `beside_real.BesideReal`.
  """

  key, prefix, raw = 'coherence', 'coherence_', False

  def __init__(self, run: evaluator_lib.Run):
    """Raises UserError; see `make_figures`."""
    super().__init__(
        self.key, run.source, make_figures(run.model.config, run.source)
    )
