"""What a model takes from captions, and at which noise.

  python -m benchmarks.caption_use WORKDIR [--clips 32] [--logsnr=-14,-10,...]

WORKDIR is a run of a text variant of configs/moving_shapes.py, in training
still perhaps, or what it exported. Clips of one shape from the test split are
diffused to each log-SNR and denoised by their own caption and by captions that
are wrong in one word: the next colour, the next shape, the opposite direction.
Each column is how much larger the mean squared error of x is then. 0 % says
that the network does not use the word there.

Samples show whether captions are followed; this shows it as soon as it begins,
in a second, while a run is young, and where in the noise it is learned. The
errors are computed in `video_diffusion/evaluation/caption_use.py`. Needs no
TensorFlow.
"""
import argparse

import jax

from benchmarks import alignment
from benchmarks import timing
from video_diffusion.config import inputs
from video_diffusion.evaluation import caption_use
from video_diffusion.training import writers

WORDS = caption_use.WORDS


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('workdir')
  parser.add_argument('--clips', type=alignment.positive, default=32)
  parser.add_argument(
      '--logsnr', type=alignment.numbers, help='as --logsnr=-10,-5',
      default=[-14.0, -10.0, -8.0, -6.0, -4.0, -2.0, 0.0],
  )
  args = parser.parse_args(argv)
  # Nothing is sampled: sizes that do on any number of devices.
  overrides = {'sample.num_videos': 1, 'sample.batch_size': jax.device_count()}
  model = alignment.restore(args.workdir, overrides, parser)
  source = inputs.make_source(model.config, 'test')
  rows = list(caption_use.rows(model, source, args.clips, args.logsnr))
  timing.emit(alignment.protocol(model) | {'clips': args.clips})
  cells = [
      [f'{row["logsnr"]:g}', f'{row["error"]:.4f}',
       *(f'{row[word]:+.1%}' for word in WORDS)]
      for row in rows
  ]
  print(writers.table(['log-SNR', 'error', *WORDS], cells))
  return rows


if __name__ == '__main__':
  main()
