"""What a model takes from captions, and at which noise.

  python -m benchmarks.caption_use WORKDIR [--clips 32] [--logsnr=-14,-10,...]

WORKDIR is a run of a text variant of configs/moving_shapes.py, in training
still perhaps, or what it exported. Clips of one shape from the test split are
diffused to each log-SNR and denoised by their own caption and by captions that
are wrong in one word: the next colour, the next shape, the opposite direction.
Each column is how much larger the mean squared error of x is then. 0 % says
that the network does not use the word there.

Samples show whether captions are followed; this shows it as soon as it begins,
in a second, while a run is young, and where in the noise it is learned. Needs
no TensorFlow.
"""
import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import alignment
from benchmarks import timing
from video_diffusion.config import inputs
from video_diffusion.data import shapes
from video_diffusion.diffusion import gaussian
from video_diffusion.evaluation import shapes_clips
from video_diffusion.inference import denoiser
from video_diffusion.training import step as step_lib
from video_diffusion.training import writers

# Of a label (shape, colour, direction): its column, its values and how far the
# wrong one is.
WORDS = {
    'colour': (1, len(shapes.COLOURS), 1),
    'shape': (0, len(shapes.SHAPES), 1),
    'direction': (2, len(shapes.DIRECTIONS), len(shapes.DIRECTIONS) // 2),
}


def wrong(labels: np.ndarray, word: str) -> np.ndarray:
  """Labels [n, 3] with another value of one word."""
  column, size, step = WORDS[word]
  labels = labels.copy()
  labels[:, column] = (labels[:, column] + step) % size
  return labels


def single_shapes(source, n: int, config) -> tuple[jax.Array, np.ndarray]:
  """The first n clips of one shape: videos in [-1, 1] and labels [n, 3]."""
  clips = shapes_clips.real_clips(
      source, frames=config.data.frames, frameskips=config.data.frameskips
  )
  single = (clip for clip in clips if clip['labels'][1, 0] < 0)
  found = list(itertools.islice(single, n))
  videos = np.stack([clip['video'] for clip in found])
  labels = np.stack([clip['labels'][0] for clip in found])
  return step_lib.to_float(videos), labels


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
  config = model.config
  source = inputs.make_source(config, 'test')
  videos, labels = single_shapes(source, args.clips, config)

  def condition(labels):
    captions = [shapes.caption([label]) for label in labels]
    return model.conditions(prompts=captions).arrays

  @jax.jit
  def error(params, x, z, logsnr, condition):
    denoise = denoiser.make_denoise_fn(
        model.network, params, condition,
        prediction=config.diffusion.prediction,
    )
    return jnp.mean(jnp.square(denoise(z, logsnr) - x))

  own = condition(labels)
  others = {word: condition(wrong(labels, word)) for word in WORDS}
  eps = jax.random.normal(jax.random.key(0), videos.shape)
  rows = []
  for value in args.logsnr:
    logsnr = jnp.full(args.clips, value)
    z = gaussian.diffuse(x=videos, eps=eps, logsnr=logsnr)
    right = float(error(model.params, videos, z, logsnr, own))
    row = {'logsnr': value, 'error': right}
    for word, other in others.items():
      found = float(error(model.params, videos, z, logsnr, other))
      row[word] = found / right - 1
    rows.append(row)
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
