"""Whether samples of Moving-MNIST hold together: ink, paths and classes.

The reader of digits learns from MNIST's training digits when it is first
needed, in about ten seconds on two cores.
"""
import functools

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import wanted
from video_diffusion.data.builders import mnist
from video_diffusion.data.builders import moving_mnist
from video_diffusion.errors import Argument
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import evaluator as evaluator_lib
from video_diffusion.filesystem import files
from video_diffusion.metrics import digit_clips
from video_diffusion.metrics import digit_reader

# Name of a data set -> side of a digit's 28 x 28 image, of that of its frames.
SHARES = {moving_mnist.NAME: 32 / 64, 'moving_mnist': 28 / 64}
SMALLEST = 32  # side of frames; in smaller ones digits look alike
LEARNED = 30_000  # digits; twice as many read 0.1 % more of others rightly


def make_figures(config, source: mixture_lib.Source) -> beside_real.Figures:
  """Makes `digit_clips.figures` of clips like those of a run.

  Args:
    config: of the run.
    source: its held-out clips.

  Returns:
    uint8 [n, frames, height, width, 3] -> name -> value.

  Raises:
    UserError: the run has other clips, or its frames are too small; or there
      are no digits to learn from. The sentence names a field.
  """
  begin = "eval.evaluators holds 'digits', which"
  data = config.data
  if (
      data.name not in SHARES
      or len(mixture_lib.as_mixture(source).sources) > 1
  ):
    raise UserError(
        f'{begin} reads clips of {" or ".join(SHARES)} alone, but data.name is '
        f'{data.name!r}, or further data sets are mixed with it; leave it out.'
    )
  if data.frames < 2:
    raise UserError(
        f'{begin} compares frames of a clip, but data.frames is {data.frames}; '
        'leave it out.'
    )
  if min(data.height, data.width) < SMALLEST:
    raise UserError(
        f'{begin} needs frames of at least {SMALLEST}x{SMALLEST}, but '
        f'data.height and data.width are {data.height} and {data.width}, where '
        'digits are too small to read; leave it out.'
    )
  with naming(lambda name: f'data.{name}'):
    images, labels = mnist.labelled(
        files.expand(data.get('path', ''), Argument('path')),
        data_dir=wanted.data_dir(data.get('dir', '')),
        count=LEARNED,
    )
  reader = functools.cache(lambda: digit_reader.DigitReader(images, labels))
  share = SHARES[data.name]
  return lambda videos: digit_clips.figures(videos, reader(), share=share)


class Digits(beside_real.BesideReal):
  """Figures of eval.num_clips samples, of real clips and of a control.

  See `digit_clips.figures` and `beside_real.BesideReal`.
  """

  key, prefix, raw = 'digits', 'digits_', False

  def __init__(self, run: evaluator_lib.Run):
    """Raises UserError; see `make_figures`."""
    super().__init__(
        self.key, run.source, make_figures(run.model.config, run.source)
    )
