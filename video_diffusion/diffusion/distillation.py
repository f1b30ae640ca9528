"""Progressive distillation: one step of a student is two of its teacher's.

Salimans & Ho (2022), arXiv 2202.00512, algorithm 2. A student of N steps visits
the times i / N, and its last step returns x_hat, as `sampling.sample` does.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import loss
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion.guidance import DenoiseFn

# Largest SNR that counts in `guided_weight` of x.
MAX_SNR = 1e3


def draw_index(
    key: jax.Array,
    *,
    batch: int,
    num_images: int,
    num_frames: int,
    num_steps: int,
    share: bool = False,
) -> jax.Array:
  """Which step of the student each frame is at, int32 [batch, T + K].

  i ~ U{1, ..., N}, of which N is the noisiest. The T video frames of an example
  share one step; every appended image has its own, or with `share` the video's,
  as the times of `loss.draw_logsnr`.
  """
  index = jax.random.randint(key, (batch, 1 + num_images), 1, num_steps + 1)
  return loss.to_frames(index, num_frames=num_frames, share=share)


def draw_known(key: jax.Array, *, batch: int, num_frames: int) -> jax.Array:
  """Which frames of each video are known, bool [batch, T].

  Half of the videos have none. The others have n ~ U{1, ..., T - 1}: the first
  n, as in extension, the last n, or n at random places; or they have the first
  and every k-th after it, as in interpolation, with k ~ U{2, ..., T - 1}. Each
  of the four is as frequent (this project's choice). Of T = 2, k is 2.

  Args:
    key: of this draw.
    batch: number of videos.
    num_frames: T, at least 2.
  """
  keys = jax.random.split(key, 5)
  count = jax.random.randint(keys[0], (batch, 1), 1, num_frames)
  some = jax.random.bernoulli(keys[1], 0.5, (batch, 1))
  first = jnp.arange(num_frames)
  places = jnp.argsort(jax.random.uniform(keys[2], (batch, num_frames)))
  kind = jax.random.randint(keys[3], (batch, 1), 0, 4)
  factor = jax.random.randint(keys[4], (batch, 1), 2, max(3, num_frames))
  rank = jnp.where(kind == 0, first, jnp.where(kind == 1, first[::-1], places))
  return some & jnp.where(kind == 3, first % factor == 0, rank < count)


def levels(
    index: jax.Array,
    num_steps: int,
    logsnr_fn: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Log-SNRs of i / N, (i - 1/2) / N and (i - 1) / N, each of index's shape.

  At time 0 it is infinite: samplers end with x_hat, and not with a z of the
  schedule's largest log-SNR.

  Args:
    index: i, int32 of any shape, in 1 .. N.
    num_steps: N.
    logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
  """
  logsnr_t, logsnr_m, logsnr_s = (
      logsnr_fn((index - part) / num_steps) for part in (0.0, 0.5, 1.0)
  )
  return logsnr_t, logsnr_m, jnp.where(index == 1, jnp.inf, logsnr_s)


def target(
    teacher: DenoiseFn,
    *,
    z_t: jax.Array,
    logsnr_t: jax.Array,
    logsnr_m: jax.Array,
    logsnr_s: jax.Array,
) -> jax.Array:
  """The x_hat whose one DDIM step from t to s is the teacher's two by way of m.

  With the teacher's x_1 at t and x_2 at m it is x_1 + w (x_2 - x_1),
  w = (1 - e^{(lambda_m - lambda_s) / 2}) / (1 - e^{(lambda_t - lambda_s) / 2}):
  the paper's (z_s - sigma_s / sigma_t z_t) / (alpha_s - sigma_s / sigma_t
  alpha_t) without its differences of nearly equal numbers.

  Args:
    teacher: (z, log-SNR) -> x_hat.
    z_t: latents at t.
    logsnr_t: [batch] or [batch, time]; logsnr_m and logsnr_s likewise, each
      larger than the one before.

  Returns:
    float32 of z_t's shape.
  """
  x_1 = teacher(z_t, logsnr_t)
  z_m, _ = samplers.ddim_step(
      z_t=z_t, x=x_1, logsnr_t=logsnr_t, logsnr_s=logsnr_m, eta=0.0
  )
  x_2 = teacher(z_m, logsnr_m)
  share = jnp.expm1((logsnr_m - logsnr_s) / 2) / jnp.expm1(
      (logsnr_t - logsnr_s) / 2
  )
  return x_1 + gaussian.broadcast_to_rank(share, z_t) * (x_2 - x_1)


def output_of(
    *, z: jax.Array, x: jax.Array, logsnr: jax.Array, prediction: str
) -> jax.Array:
  """The output of a network whose x_hat is x: the inverse of `loss.x_hat`."""
  eps = gaussian.eps_from_x(z=z, x=x, logsnr=logsnr)
  return loss.target(x=x, eps=eps, logsnr=logsnr, prediction=prediction)


def weight(logsnr: jax.Array, *, prediction: str) -> jax.Array:
  """max(SNR, 1) for the error of x_hat, as a weight of that of the prediction.

  The paper's "truncated SNR" weighting. `loss.weight` says how the squared
  errors of the predictions compare.

  Args:
    logsnr: any shape.
    prediction: what the network outputs, one of `loss.PREDICTIONS`.
  """
  log_weight = jnp.maximum(logsnr, 0.0)
  return jnp.exp(log_weight + loss.log_error_ratio(logsnr, prediction))


def guided_weight(logsnr: jax.Array, *, prediction: str) -> jax.Array:
  """`weight` for continuous times; for x, of an SNR of at most MAX_SNR.

  Over t ~ U[0, 1], max(SNR, 1) of x would have nearly all of its mean at the
  smallest t, where there is nothing to learn. (This project's choice. For v the
  weight is at most 1, and of N steps the smallest t is 1 / N.)

  Args:
    logsnr: any shape.
    prediction: what the student outputs, 'v' or 'x'.
  """
  if prediction == 'x':
    logsnr = jnp.minimum(logsnr, jnp.log(MAX_SNR))
  return weight(logsnr, prediction=prediction)
