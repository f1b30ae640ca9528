"""What a model of moving_shapes takes from captions, and at which noise.

Clips of one shape are diffused and denoised by their own caption, and by
captions that are wrong in one word: the next colour, the next shape or the
opposite direction. The error of x is larger then, where the network uses the
word. Samples show whether captions are followed; this shows it as soon as it
begins, while a run is young.
"""
from collections.abc import Iterator, Sequence
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.data import shapes
from video_diffusion.diffusion import gaussian
from video_diffusion.evaluation import shapes_clips
from video_diffusion.inference import denoiser
from video_diffusion.training import step as step_lib

# Each part of a label (shape, colour, direction) has a column, a number of
# values, and a distance to the value that stands for a wrong one.
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


def single_shapes(
    source: shapes.MovingShapes,
    n: int,
    *,
    frames: int,
    frameskips: Sequence[int] = (1,),
) -> tuple[jax.Array, np.ndarray]:
  """The first n clips of one shape: videos in [-1, 1] and labels [n, 3]."""
  clips = shapes_clips.real_clips(source, frames=frames, frameskips=frameskips)
  single = (clip for clip in clips if clip['labels'][1, 0] < 0)
  found = list(itertools.islice(single, n))
  videos = np.stack([clip['video'] for clip in found])
  labels = np.stack([clip['labels'][0] for clip in found])
  return step_lib.to_float(videos), labels


def rows(
    model: model_lib.Model,
    source: shapes.MovingShapes,
    num_clips: int,
    logsnrs: Sequence[float],
) -> Iterator[dict[str, float]]:
  """Yields a row for each log-SNR.

  Args:
    model: takes captions.
    source: of held-out clips.
    num_clips: number of clips of one shape.
    logsnrs: the noise levels.

  Yields:
    'logsnr'; 'error', the mean squared error of x with the right caption; and
    for each of WORDS how much larger it is with the wrong word, as a share: 0
    says that the network does not use the word there.
  """
  config = model.config
  videos, labels = single_shapes(
      source, num_clips, frames=config.data.frames,
      frameskips=config.data.frameskips,
  )

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
  for value in logsnrs:
    logsnr = jnp.full(num_clips, value)
    z = gaussian.diffuse(x=videos, eps=eps, logsnr=logsnr)
    right = float(error(model.params, videos, z, logsnr, own))
    row = {'logsnr': value, 'error': right}
    for word, other in others.items():
      found = float(error(model.params, videos, z, logsnr, other))
      row[word] = found / right - 1
    yield row
