"""Noise schedules: the log-SNR as a function of time."""
import math

import jax
import jax.numpy as jnp


def cosine_logsnr(
    t: jax.Array, *, logsnr_min: float = -20.0, logsnr_max: float = 20.0
) -> jax.Array:
  """lambda(t) = -2 log tan(a t + b), the cosine schedule cut to a range.

  b = arctan(e^{-logsnr_max / 2}), a = arctan(e^{-logsnr_min / 2}) - b, so that
  lambda(0) = logsnr_max and lambda(1) = logsnr_min (paper section 2, appendix
  A: cosine schedule, log-SNR in [-20, 20]).

  Args:
    t: times in [0, 1], any shape.
    logsnr_min: the log-SNR at t = 1 (pure noise).
    logsnr_max: the log-SNR at t = 0 (clean data).

  Returns:
    The log-SNR, of t's shape, decreasing in t.
  """
  start = math.atan(math.exp(-0.5 * logsnr_max))
  end = math.atan(math.exp(-0.5 * logsnr_min))
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
  return jnp.where(near_end, -logsnr, logsnr)
