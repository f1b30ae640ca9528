"""Samplers: one step function each, with its options, registered by name.

`sampling.sample` walks down a grid of noise levels and asks a sampler for each
step from z_t to the less noisy z_s. To add a sampler, write a frozen dataclass
of its options with the methods of `Sampler` and decorate it with `register`.
"""
from collections.abc import Callable
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion.guidance import DenoiseFn
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

SAMPLERS: dict[str, type['Sampler']] = {}


def register(name: str) -> Callable[[type], type]:
  """Returns a class decorator that registers a sampler under a name."""

  def add(sampler):
    sampler.name = name
    SAMPLERS[name] = sampler
    return sampler

  return add


def options() -> dict[str, float]:
  """Returns the options of all samplers with their defaults.

  Samplers that name an option alike share it, as they share a config field.
  """
  return {
      field.name: field.default
      for sampler in SAMPLERS.values()
      for field in dataclasses.fields(sampler)
  }


def make(name: str, **given: float) -> 'Sampler':
  """Returns the sampler of a name.

  Args:
    name: a key of SAMPLERS.
    **given: values of options; those that this sampler lacks are left out, so
      that one set of options can serve them all.

  Raises:
    ArgumentError: the name is unknown, or an option is out of its range.
  """
  if name not in SAMPLERS:
    raise ArgumentError(
        Argument('sampler'),
        f' is {name!r}; it must be one of {tuple(SAMPLERS)}.',
    )
  known = {field.name for field in dataclasses.fields(SAMPLERS[name])}
  return SAMPLERS[name](**{k: v for k, v in given.items() if k in known})


@dataclasses.dataclass(frozen=True)
class Sampler:
  """The base of all samplers: a uniform grid of times and no state.

  Attributes:
    name: the name under which the sampler is registered.
  """

  name: ClassVar[str] = ''

  def logsnrs(
      self, logsnr_fn: Callable[[jax.Array], jax.Array], num_steps: int
  ) -> jax.Array:
    """Returns the noise levels, float32 [num_steps + 1], noisiest first.

    The first level is that of z_1; the last one, of the data, is not visited,
    since the last step returns x_hat.
    """
    # n / num_steps is exact at both ends, unlike a running subtraction.
    return logsnr_fn(jnp.arange(num_steps, -1, -1.0) / num_steps)

  def init(self, z: jax.Array, logsnr: jax.Array) -> Any:
    """Returns the state that the first step is given, a tree of arrays."""
    del z, logsnr
    return ()

  def step(
      self,
      denoise_fn: DenoiseFn,
      z_t: jax.Array,
      state: Any,
      *,
      logsnr_t: jax.Array,
      logsnr_s: jax.Array,
      noise: Callable[[], jax.Array],
  ) -> tuple[jax.Array, Any]:
    """Returns (z_s, the state of the next step).

    Args:
      denoise_fn: (z, logsnr) -> x_hat. A step may call it more than once.
      z_t: [batch, time, height, width, channels].
      state: the state that `init` or the step before has returned.
      logsnr_t: [batch], of z_t.
      logsnr_s: [batch], of z_s; larger.
      noise: draws standard normal noise of z_t's shape, the same at each call.
    """
    raise NotImplementedError


def _require_share(name: str, value: float) -> None:
  if not 0 <= value <= 1:
    raise ArgumentError(
        Argument(name), f' is {value}; it must be from 0 to 1.'
    )


@register('ancestral')
@dataclasses.dataclass(frozen=True)
class Ancestral(Sampler):
  """z_s ~ N(mean, var_low^(1-gamma) var_high^gamma) (paper section 2).

  Attributes:
    gamma: log-interpolates the variance between its lower (0) and its upper (1)
      bound.
  """

  gamma: float = 0.0

  def __post_init__(self):
    _require_share('gamma', self.gamma)

  def step(self, denoise_fn, z_t, state, *, logsnr_t, logsnr_s, noise):
    x = denoise_fn(z_t, logsnr_t)
    mean, std = ancestral_step(
        z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s, gamma=self.gamma
    )
    return mean + std * noise(), state


@register('ddim')
@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
  """DDIM (arXiv 2010.02502).

  Attributes:
    eta: 0 is deterministic; 1 is the ancestral step at gamma = 0.
  """

  eta: float = 0.0

  def __post_init__(self):
    _require_share('eta', self.eta)

  def step(self, denoise_fn, z_t, state, *, logsnr_t, logsnr_s, noise):
    x = denoise_fn(z_t, logsnr_t)
    mean, std = ddim_step(
        z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s, eta=self.eta
    )
    return mean + std * noise(), state


@register('dpmpp_2m')
@dataclasses.dataclass(frozen=True)
class DPMPP2M(Sampler):
  """The deterministic second-order multistep DPM-Solver++(2M) (2211.01095).

  The state holds x_hat and the log-SNR of the step before.
  """

  def init(self, z, logsnr):
    # On the first step the slope is zero, whatever lower level stands here.
    return {
        'x': jnp.zeros_like(z),
        'logsnr': logsnr - 1.0,
        'first': jnp.array(True),
    }

  def step(self, denoise_fn, z_t, state, *, logsnr_t, logsnr_s, noise):
    del noise
    x = denoise_fn(z_t, logsnr_t)
    z_s = dpmpp_2m_step(
        z_t=z_t,
        x=x,
        x_before=jnp.where(state['first'], x, state['x']),
        logsnr_before=state['logsnr'],
        logsnr_t=logsnr_t,
        logsnr_s=logsnr_s,
    )
    return z_s, {'x': x, 'logsnr': logsnr_t, 'first': jnp.array(False)}


@register('annealed_langevin')
@dataclasses.dataclass(frozen=True)
class AnnealedLangevin(Sampler):
  """Annealed Langevin dynamics (no sampler of the paper; docs/summary.md).

  At each level z moves towards x_hat, and noise is added.

  Attributes:
    langevin_step: the part of the way to x_hat that a step goes, from 0 (DDIM
      with eta 0) to 1 (all noise of z is replaced).
  """

  langevin_step: float = 0.1

  def __post_init__(self):
    _require_share('langevin_step', self.langevin_step)

  def step(self, denoise_fn, z_t, state, *, logsnr_t, logsnr_s, noise):
    x = denoise_fn(z_t, logsnr_t)
    mean, std = annealed_langevin_step(
        z_t=z_t, x=x, logsnr_t=logsnr_t, logsnr_s=logsnr_s,
        langevin_step=self.langevin_step,
    )
    return mean + std * noise(), state


def ancestral_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    gamma: float,
) -> tuple[jax.Array, jax.Array]:
  """q(z_s | z_t, x) with the variance var_low^(1-gamma) var_high^gamma.

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
  """N(alpha_s x + sqrt(sigma_s^2 - v) eps_hat, v), where v = eta^2 var_low.

  Returns:
    (mean of z_t's shape, std broadcastable to it).
  """
  rank = lambda logsnr: gaussian.broadcast_to_rank(logsnr, z_t)
  alpha_s, sigma_s = gaussian.alpha_sigma(rank(logsnr_s))
  eps = gaussian.eps_from_x(z=z_t, x=x, logsnr=logsnr_t)
  fresh = -(eta**2) * jnp.expm1(rank(logsnr_t) - rank(logsnr_s))
  mean = alpha_s * x + sigma_s * jnp.sqrt(1.0 - fresh) * eps
  return mean, sigma_s * jnp.sqrt(fresh)


def annealed_langevin_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    langevin_step: float,
) -> tuple[jax.Array, jax.Array]:
  """A step towards x and fresh noise, from the level of t to that of s.

  In u = z / alpha = x + rho noise, where rho = sigma / alpha:

    u <- u + step (x_hat - u)     so that (1 - step) rho_t of its noise is left
    u <- u + fresh noise          as much as brings it to rho_s

  At a level that stays the same it is a Langevin step of size delta = 2 step
  but for terms of step^2. Noise of the whole of rho_s, added again and again,
  would leave u noisier than the level that the network is told (this project's
  choice). Where the level falls by more than the step, u moves as far as the
  level does, and no noise is added.

  Returns:
    (mean of z_t's shape, std broadcastable to it).
  """
  rank = lambda logsnr: gaussian.broadcast_to_rank(logsnr, z_t)
  alpha_s, sigma_s = gaussian.alpha_sigma(rank(logsnr_s))
  eps = gaussian.eps_from_x(z=z_t, x=x, logsnr=logsnr_t)
  # rho_t / rho_s >= 1 in logs.
  ratio = jnp.exp(0.5 * (rank(logsnr_s) - rank(logsnr_t)))
  kept = jnp.minimum((1.0 - langevin_step) * ratio, 1.0)
  return alpha_s * x + sigma_s * kept * eps, sigma_s * jnp.sqrt(1.0 - kept**2)


def dpmpp_2m_step(
    *,
    z_t: jax.Array,
    x: jax.Array,
    x_before: jax.Array,
    logsnr_before: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
) -> jax.Array:
  """One step of DPM-Solver++(2M).

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

  Returns:
    (mean of z's shape, std broadcastable to it).
  """
  _, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
  eps = gaussian.eps_from_x(z=z, x=x, logsnr=logsnr)
  return z - 0.5 * delta * sigma * eps, jnp.sqrt(delta) * sigma
