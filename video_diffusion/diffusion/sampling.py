"""Sampling: one `lax.scan` from z_1 ~ N(0, I) to x, by any sampler."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import schedules

REPLACEMENTS = ('marginal', 'joint')


def sample(
    key: jax.Array,
    denoise_fn: guidance.DenoiseFn,
    *,
    shape: tuple[int, ...],
    num_steps: int,
    sampler: str | samplers.Sampler = 'ancestral',
    gamma: float = 0.0,
    eta: float = 0.0,
    corrector_delta: float | None = None,
    known: jax.Array | None = None,
    known_mask: jax.Array | None = None,
    replacement: str = 'marginal',
    logsnr_fn: Callable[[jax.Array], jax.Array] = schedules.cosine_logsnr,
    on_step: Callable[[jax.Array], None] | None = None,
) -> jax.Array:
  """Samples x, over the sampler's grid of noise levels.

  The last step returns x_hat itself, without noise. Where frames are known,
  z^a is replaced at every level, by itself (the paper's baseline) or under
  guidance, whatever denoise_fn is.

  Args:
    key: a typed `jax.random.key`.
    denoise_fn: (z, logsnr [batch]) -> x_hat; eps_hat is always recomputed from
      the x_hat that it returns.
    shape: [batch, time, height, width, channels].
    num_steps: steps; static, one compile per value.
    sampler: a name of `samplers.SAMPLERS`, for which gamma and eta are options,
      or a sampler with its own options.
    gamma: see `samplers.Ancestral`.
    eta: see `samplers.DDIM`.
    corrector_delta: of the Langevin corrector after each step (the paper:
      0.1), one more network call each; None for none. It is not run at s = 0.
    known: x^a, of the given shape; what it holds outside the mask is not read.
    known_mask: bool [batch or 1, time].
    replacement: 'marginal' draws z^a_s from q(z_s | x^a), 'joint' from
      q(z_s | x^a, z^a_t) (paper section 3.1 names both).
    logsnr_fn: the schedule.
    on_step: called inside the scan with the number of finished steps, for a
      callback to the host. None compiles nothing for it.

  Returns:
    x, float32 of the given shape; exactly `known` where known_mask.

  Raises:
    ValueError: an unknown sampler or replacement, num_steps below 1, only one
      of known and known_mask, shapes that do not fit, or a mask that leaves no
      frame to draw (seen only where it is not traced).
  """
  _check(shape, num_steps, replacement, known, known_mask)
  if isinstance(sampler, str):
    sampler = samplers.make(sampler, gamma=gamma, eta=eta)
  init_key, known_key, step_key = jax.random.split(key, 3)
  draw = lambda key: jax.random.normal(key, shape, jnp.float32)
  batch = shape[0]
  logsnrs = sampler.logsnrs(logsnr_fn, num_steps)
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
    z_t, state = carry
    if on_step is not None:
      on_step(i)
    at = dict(logsnr_t=level(i), logsnr_s=level(i + 1))
    keys = jax.random.split(jax.random.fold_in(step_key, i), 3)
    z_s, state = sampler.step(
        denoise_fn, z_t, state, noise=lambda: draw(keys[0]), **at
    )
    # One draw of z^a_s, imposed after the step and again after the corrector.
    if known is not None and replacement == 'joint':
      mean, std = samplers.ancestral_step(z_t=z_t, x=known, gamma=0.0, **at)
      known_s = mean + std * draw(keys[1])
    else:
      known_s = diffuse_known(keys[1], i + 1)
    z_s = impose(z_s, known_s)
    if corrector_delta is not None:
      x_s = denoise_fn(z_s, level(i + 1))
      mean, std = samplers.corrector_step(
          z=z_s, x=x_s, logsnr=level(i + 1), delta=corrector_delta
      )
      z_s = impose(mean + std * draw(keys[2]), known_s)
    return (z_s, state), None

  z = impose(draw(init_key), diffuse_known(known_key, 0))
  (z, _), _ = jax.lax.scan(
      step, (z, sampler.init(z, level(0))), jnp.arange(num_steps - 1)
  )
  return impose(denoise_fn(z, level(num_steps - 1)), known)


def _check(shape, num_steps, replacement, known, known_mask):
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
