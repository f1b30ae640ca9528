"""Samplers: one `lax.scan` from z_1 ~ N(0, I) to x.

Every step is z_s = mean + std * noise; the functions below give the two, and
hold no randomness, so that they can be checked by recursion.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import schedules

SAMPLERS = ('ancestral', 'ddim', 'dpmpp_2m')
REPLACEMENTS = ('marginal', 'joint')


def ancestral_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    gamma: float,
) -> tuple[jax.Array, jax.Array]:
  """z_s ~ N(mean, var_low^(1-gamma) var_high^gamma) (paper section 2).

  Returns:
    (mean of z_t's shape, std broadcastable to it).
  """
  mean, logvar = gaussian.posterior(
      z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s, gamma=gamma
  )
  return mean, jnp.exp(0.5 * logvar)


def ddim_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    eta: float,
) -> tuple[jax.Array, jax.Array]:
  """z_s ~ N(alpha_s x + sqrt(sigma_s^2 - v) eps_hat, v), v = eta^2 var_low.

  eta = 0 is the deterministic DDIM; eta = 1 is the ancestral step at gamma = 0.
  """
  rank = lambda logsnr: gaussian.broadcast_to_rank(logsnr, z_t)
  alpha_s, sigma_s = gaussian.alpha_sigma(rank(logsnr_s))
  eps = gaussian.eps_from_x(z=z_t, x=x, logsnr=logsnr_t)
  fresh = -(eta**2) * jnp.expm1(rank(logsnr_t) - rank(logsnr_s))
  mean = alpha_s * x + sigma_s * jnp.sqrt(1.0 - fresh) * eps
  return mean, sigma_s * jnp.sqrt(fresh)


def dpmpp_2m_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    x_before: jax.Array,
    logsnr_before: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
) -> jax.Array:
  """The deterministic second-order multistep DPM-Solver++(2M) (2211.01095).

  In half log-SNRs h = (lambda_s - lambda_t) / 2, r = h_before / h:
    D   = x + (x - x_before) / (2 r)
    z_s = (sigma_s / sigma_t) z_t + alpha_s (1 - e^{-h}) D

  Args:
    z_t: latents.
    x: x_hat(z_t).
    x_before: x_hat of the step before; x itself on the first step.
    logsnr_before: the log-SNR of that step, below logsnr_t.
    logsnr_t: of z_t.
    logsnr_s: of the result.
  """
  rank = lambda logsnr: gaussian.broadcast_to_rank(logsnr, z_t)
  h = 0.5 * (rank(logsnr_s) - rank(logsnr_t))
  h_before = 0.5 * (rank(logsnr_t) - rank(logsnr_before))
  slope = 0.5 * h / h_before
  estimate = x + slope * (x - x_before)
  alpha_s, _ = gaussian.alpha_sigma(rank(logsnr_s))
  # sigma_s / sigma_t in logs: it is 1 to seven digits at high noise.
  log_ratio = 0.5 * (
      jax.nn.log_sigmoid(-rank(logsnr_s)) - jax.nn.log_sigmoid(-rank(logsnr_t))
  )
  return jnp.exp(log_ratio) * z_t - alpha_s * jnp.expm1(-h) * estimate


def corrector_step(
    *, z: jax.Array, x: jax.Array, logsnr: jax.Array, delta: float
) -> tuple[jax.Array, jax.Array]:
  """The Langevin corrector at one noise level (paper section 2).

  z <- z - (delta / 2) sigma eps_hat + sqrt(delta) sigma noise
  """
  _, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
  eps = gaussian.eps_from_x(z=z, x=x, logsnr=logsnr)
  return z - 0.5 * delta * sigma * eps, jnp.sqrt(delta) * sigma


def sample(
    key: jax.Array,
    denoise_fn: guidance.DenoiseFn,
    *,
    shape: tuple[int, ...],
    num_steps: int,
    sampler: str = 'ancestral',
    gamma: float = 0.0,
    eta: float = 0.0,
    corrector_delta: float | None = None,
    known: jax.Array | None = None,
    known_mask: jax.Array | None = None,
    replacement: str = 'marginal',
    logsnr_fn: Callable[[jax.Array], jax.Array] = schedules.cosine_logsnr,
) -> jax.Array:
  """Draws x from the model, over a uniform grid of times from 1 to 0.

  The last step returns x_hat itself, without noise. Where frames are known,
  z^a is replaced at every level, by itself (the paper's baseline) or under
  guidance, whatever denoise_fn is.

  Args:
    key: a typed `jax.random.key`.
    denoise_fn: (z, logsnr [batch]) -> x_hat; eps_hat is always recomputed from
      the x_hat that it returns.
    shape: [batch, time, height, width, channels].
    num_steps: steps; static, one compile per value.
    sampler: 'ancestral' (paper section 2), 'ddim' or 'dpmpp_2m'.
    gamma: of 'ancestral': log-interpolates the variance between its lower (0)
      and upper (1) bound.
    eta: of 'ddim': 0 is deterministic.
    corrector_delta: of the Langevin corrector after each step (the paper:
      0.1), one more network call each; None for none. It is not run at s = 0.
    known: x^a, of the given shape; what it holds outside the mask is not read.
    known_mask: bool [batch or 1, time].
    replacement: 'marginal' draws z^a_s from q(z_s | x^a), 'joint' from
      q(z_s | x^a, z^a_t) (paper section 3.1 names both).
    logsnr_fn: the schedule.

  Returns:
    x, float32 of the given shape; exactly `known` where known_mask.

  Raises:
    ValueError: an unknown sampler or replacement, num_steps below 1, only one
      of known and known_mask, shapes that do not fit, or a mask that leaves no
      frame to draw (seen only where it is not traced).
  """
  _check(shape, num_steps, sampler, replacement, known, known_mask)
  init_key, known_key, step_key = jax.random.split(key, 3)
  draw = lambda key: jax.random.normal(key, shape, jnp.float32)
  batch = shape[0]
  # n / num_steps is exact at both ends, unlike a running subtraction.
  logsnrs = logsnr_fn(jnp.arange(num_steps, -1, -1.0) / num_steps)
  level = lambda i: jnp.broadcast_to(logsnrs[i], (batch,))

  def impose(z, value):
    if known is None:
      return z
    return jnp.where(guidance.frame_mask(known_mask, z), value, z)

  def diffuse_known(key, i):
    if known is None:
      return None
    return gaussian.diffuse(x=known, eps=draw(key), logsnr=level(i))

  def step(carry, i):
    z_t, x_before = carry
    at = dict(logsnr_t=level(i), logsnr_s=level(i + 1))
    keys = jax.random.split(jax.random.fold_in(step_key, i), 3)
    x = denoise_fn(z_t, level(i))
    if sampler == 'ancestral':
      mean, std = ancestral_step(z_t=z_t, x=x, gamma=gamma, **at)
    elif sampler == 'ddim':
      mean, std = ddim_step(z_t=z_t, x=x, eta=eta, **at)
    else:
      mean = dpmpp_2m_step(
          z_t=z_t,
          x=x,
          x_before=jnp.where(i == 0, x, x_before),
          # Any lower level on the first step, whose slope is multiplied by 0.
          logsnr_before=jnp.where(i == 0, level(0) - 1.0, level(i - 1)),
          **at,
      )
      std = None
    z_s = mean if std is None else mean + std * draw(keys[0])
    # One draw of z^a_s, imposed after the step and again after the corrector.
    if known is not None and replacement == 'joint':
      mean, std = ancestral_step(z_t=z_t, x=known, gamma=0.0, **at)
      known_s = mean + std * draw(keys[1])
    else:
      known_s = diffuse_known(keys[1], i + 1)
    z_s = impose(z_s, known_s)
    if corrector_delta is not None:
      x_s = denoise_fn(z_s, level(i + 1))
      mean, std = corrector_step(
          z=z_s, x=x_s, logsnr=level(i + 1), delta=corrector_delta
      )
      z_s = impose(mean + std * draw(keys[2]), known_s)
    return (z_s, x), None

  z = impose(draw(init_key), diffuse_known(known_key, 0))
  (z, _), _ = jax.lax.scan(
      step, (z, jnp.zeros_like(z)), jnp.arange(num_steps - 1)
  )
  return impose(denoise_fn(z, level(num_steps - 1)), known)


def _check(shape, num_steps, sampler, replacement, known, known_mask):
  if sampler not in SAMPLERS:
    raise ValueError(f'sampler is {sampler!r}; it must be one of {SAMPLERS}.')
  if replacement not in REPLACEMENTS:
    raise ValueError(
        f'replacement is {replacement!r}; it must be one of {REPLACEMENTS}.'
    )
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; it must be at least 1.')
  if (known is None) != (known_mask is None):
    raise ValueError('known and known_mask belong together: pass both or none.')
  if known is None:
    return
  if tuple(known.shape) != tuple(shape):
    raise ValueError(
        f'known has shape {tuple(known.shape)}; it must be {tuple(shape)}.'
    )
  if known_mask.shape not in ((1, shape[1]), (shape[0], shape[1])):
    raise ValueError(
        f'known_mask has shape {tuple(known_mask.shape)}; it must be '
        f'[{shape[0]} or 1, {shape[1]}].'
    )
  traced = isinstance(known_mask, jax.core.Tracer)
  if not traced and np.asarray(known_mask).all():
    raise ValueError(
        'known_mask is True for every frame; there is nothing left to draw.'
    )
