"""Noise schedules: the log-SNR as a function of time."""
import math

import jax
import jax.numpy as jnp


def cosine_logsnr(
    t: jax.Array,
    *,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
    shift: float = 0.0,
) -> jax.Array:
  """lambda(t) = shift - 2 log tan(a t + b), the cosine schedule cut to a range.

  b = arctan(e^{(shift - logsnr_max) / 2}), a = arctan(e^{(shift - logsnr_min) /
  2}) - b, so that lambda(0) = logsnr_max and lambda(1) = logsnr_min (paper
  section 2, appendix A: cosine schedule, log-SNR in [-20, 20], no shift).

  Times are drawn evenly, so that half of them are below the shift. Where many
  pixels say the same, noise hides it only at a low log-SNR, which a negative
  shift visits more often (Hoogeboom et al. 2023, arXiv 2301.11093).

  Args:
    t: times in [0, 1], any shape.
    logsnr_min: the log-SNR at t = 1 (pure noise).
    logsnr_max: the log-SNR at t = 0 (clean data).
    shift: added to all between, about the log-SNR at t = 1/2.

  Returns:
    The log-SNR, of t's shape, decreasing in t.
  """
  start = math.atan(math.exp(0.5 * (shift - logsnr_max)))
  end = math.atan(math.exp(0.5 * (shift - logsnr_min)))
  # The angle a t + b is taken from whichever end of [0, pi/2] is nearer: close
  # to pi/2 the tangent magnifies float32 rounding of the angle (1e-3 at t = 1),
  # while -log tan(pi/2 - angle) is exact there.
  t = jnp.asarray(t)
  near_end = t > 0.5
  angle = jnp.where(
      near_end,
      (math.pi / 2 - end) + (end - start) * (1.0 - t),
      start + (end - start) * t,
  )
  logsnr = -2.0 * jnp.log(jnp.tan(angle))
  return jnp.where(near_end, -logsnr, logsnr) + shift
