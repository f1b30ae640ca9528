"""Figures of extended, interpolated and enlarged clips.

Videos are float32 [n, frames, height, width, 3] in [-1, 1].
"""
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion import media
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.evaluation import shapes_figures


def shape_figures(videos: np.ndarray) -> dict[str, float]:
  """`shapes_score.shape_figures` of clips like those of moving_shapes."""
  return shapes_figures.figures(media.to_uint8(videos))


def rms(a: np.ndarray, b: np.ndarray) -> float:
  """Root mean square of a - b, over everything."""
  return float(np.sqrt(np.mean((a - b) ** 2)))


def seams(plan: extension.Plan) -> list[int]:
  """The changes from frame to frame where a block of a plan begins.

  Change i is from frame i to frame i + 1. The first block has no seam.
  """
  return [block.frames[sum(block.known)] - 1 for block in plan.blocks[1:]]


def frame_to_frame(
    videos: np.ndarray, places: Iterable[int]
) -> dict[str, float]:
  """The change from frame to frame, on average and at some places.

  Args:
    videos: see above.
    places: from `seams`.

  Returns:
    'frame_to_frame_rms' and 'frame_to_frame_rms_at_seams': means of the root
    mean square of each change, rounded to four digits.
  """
  jump = np.sqrt(np.mean(np.diff(videos, axis=1) ** 2, axis=(0, 2, 3, 4)))
  return {
      'frame_to_frame_rms': round(float(jump.mean()), 4),
      'frame_to_frame_rms_at_seams': round(
          float(jump[list(places)].mean()), 4
      ),
  }


def own_error(
    denoise_fn: guidance.DenoiseFn,
    videos: np.ndarray,
    places: Iterable[int],
    *,
    logsnr: float,
) -> float:
  """Root mean square of x_hat^a - x^a, at one noise level.

  Args:
    denoise_fn: of the model that has sampled the videos.
    videos: the frames of one block.
    places: frames that were known, x^a.
    logsnr: the noise level.
  """
  x = jnp.asarray(videos)
  eps = jax.random.normal(jax.random.key(0), x.shape)
  level = jnp.full((len(x),), logsnr)
  z = gaussian.diffuse(x=x, eps=eps, logsnr=level)
  difference = (guidance.clip(denoise_fn)(z, level) - x)[:, list(places)]
  return float(jnp.sqrt(jnp.mean(difference**2)))


def enlargement(
    videos: np.ndarray, low: np.ndarray, real: np.ndarray
) -> dict[str, float]:
  """How near enlarged clips are to what they were made of.

  Args:
    videos: the enlarged clips.
    low: the small clips, the means of squares of pixels of the real ones.
    real: the real clips, as large as `videos`.

  Returns:
    'low_res_rms': from the shrunk videos to the small clips.
    'rms_to_the_real_clip': from the videos to the real ones.
    'rms_of_bilinear_enlargement': from the small clips, enlarged without a
      model, to the real ones. All are rounded to four digits.
  """
  factor = real.shape[2] // low.shape[2]
  down = np.asarray(guidance.area(factor)(videos))
  bilinear = np.asarray(jax.image.resize(low, real.shape, 'bilinear'))
  return {
      'low_res_rms': round(rms(down, low), 4),
      'rms_to_the_real_clip': round(rms(videos, real), 4),
      'rms_of_bilinear_enlargement': round(rms(bilinear, real), 4),
  }
