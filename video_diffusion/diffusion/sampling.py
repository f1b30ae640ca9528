"""Samplers: one `lax.scan` from z_1 ~ N(0, I) to x."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import schedules

SAMPLERS = ('ancestral', 'ddim')


def ancestral_step(
    key: jax.Array,
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    gamma: float,
) -> jax.Array:
  """z_s ~ N(mean, var_low^(1-gamma) var_high^gamma) (paper section 2)."""
  mean, logvar = gaussian.posterior(
      z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s, gamma=gamma
  )
  noise = jax.random.normal(key, z_t.shape, z_t.dtype)
  return mean + jnp.exp(0.5 * logvar) * noise


def ddim_step(
    key: jax.Array,
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    eta: float,
) -> jax.Array:
  """z_s = alpha_s x + sqrt(sigma_s^2 - eta^2 var_low) eps_hat + eta noise.

  eta = 0 is the deterministic DDIM; eta = 1 is the ancestral step at gamma = 0.
  """
  rank = lambda logsnr: gaussian.broadcast_to_rank(logsnr, z_t)
  alpha_s, sigma_s = gaussian.alpha_sigma(rank(logsnr_s))
  eps = gaussian.eps_from_x(z=z_t, x=x, logsnr=logsnr_t)
  if eta == 0.0:
    return alpha_s * x + sigma_s * eps
  fresh = -(eta**2) * jnp.expm1(rank(logsnr_t) - rank(logsnr_s))
  noise = jax.random.normal(key, z_t.shape, z_t.dtype)
  return alpha_s * x + sigma_s * (
      jnp.sqrt(1.0 - fresh) * eps + jnp.sqrt(fresh) * noise
  )


def sample(
    key: jax.Array,
    denoise_fn: guidance.DenoiseFn,
    *,
    shape: tuple[int, ...],
    num_steps: int,
    sampler: str = 'ancestral',
    gamma: float = 0.0,
    eta: float = 0.0,
    logsnr_fn: Callable[[jax.Array], jax.Array] = schedules.cosine_logsnr,
) -> jax.Array:
  """Draws x from the model, over a uniform grid of times from 1 to 0.

  The last step returns x_hat itself, without noise.

  Args:
    key: a typed `jax.random.key`.
    denoise_fn: (z, logsnr [batch]) -> x_hat; eps_hat is always recomputed from
      the x_hat that it returns.
    shape: [batch, time, height, width, channels].
    num_steps: network evaluations; static, one compile per value.
    sampler: 'ancestral' (paper section 2) or 'ddim'.
    gamma: of 'ancestral': log-interpolates the variance between its lower (0)
      and upper (1) bound.
    eta: of 'ddim': 0 is deterministic.
    logsnr_fn: the schedule.

  Returns:
    x, float32 of the given shape.

  Raises:
    ValueError: an unknown sampler, or num_steps below 1.
  """
  if sampler not in SAMPLERS:
    raise ValueError(f'sampler is {sampler!r}; it must be one of {SAMPLERS}.')
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; it must be at least 1.')
  init_key, step_key = jax.random.split(key)
  z = jax.random.normal(init_key, shape, jnp.float32)
  batch = shape[0]
  # n / num_steps is exact at both ends, unlike a running subtraction.
  logsnrs = logsnr_fn(jnp.arange(num_steps, -1, -1.0) / num_steps)

  def step(z_t, i):
    logsnr_t = jnp.broadcast_to(logsnrs[i], (batch,))
    logsnr_s = jnp.broadcast_to(logsnrs[i + 1], (batch,))
    x = denoise_fn(z_t, logsnr_t)
    step_args = dict(z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s)
    noise_key = jax.random.fold_in(step_key, i)
    if sampler == 'ancestral':
      z_s = ancestral_step(noise_key, **step_args, gamma=gamma)
    else:
      z_s = ddim_step(noise_key, **step_args, eta=eta)
    return z_s, None

  z, _ = jax.lax.scan(step, z, jnp.arange(num_steps - 1))
  return denoise_fn(z, jnp.broadcast_to(logsnrs[num_steps - 1], (batch,)))
