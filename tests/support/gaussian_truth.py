"""A linear-Gaussian world: x ~ N(mean, cov) over frames, all in closed form.

Videos are [batch, time, 1, 1, 1]; every function is linear in z, so means and
covariances of a sampler follow by exact recursion.
"""
import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import schedules


@contextlib.contextmanager
def float64():
  """JAX computes in float64 within it; jax.enable_x64 needs JAX 0.8."""
  before = jax.config.jax_enable_x64
  jax.config.update('jax_enable_x64', True)
  try:
    yield
  finally:
    jax.config.update('jax_enable_x64', before)


class Truth:
  """x ~ N(mean [T], cov [T, T]) and what follows from it."""

  def __init__(self, mean, cov):
    self.mean = np.asarray(mean, np.float64)
    self.cov = np.asarray(cov, np.float64)

  def gain(self, logsnr):
    """K [T, T] of E[x | z] = mean + K (z - alpha mean)."""
    alpha, sigma = gaussian.alpha_sigma(logsnr)
    inner = alpha**2 * self.cov + sigma**2 * jnp.eye(len(self.mean))
    return alpha * jnp.linalg.solve(inner, jnp.asarray(self.cov)).T

  def denoise_fn(self, z, logsnr):
    """E[x | z]; z [batch, T, 1, 1, 1], one log-SNR for the batch."""
    level = logsnr.ravel()[0]
    alpha, _ = gaussian.alpha_sigma(level)
    mean = jnp.asarray(self.mean, z.dtype)
    flat = z.reshape(len(z), -1) - alpha * mean
    x = mean + flat @ self.gain(level).T.astype(z.dtype)
    return x.reshape(z.shape)


def affine(fn, size):
  """(matrix [n, size], offset [n]) of an affine function of a vector."""
  offset = fn(jnp.zeros(size))
  matrix = jnp.stack(
      [fn(row) - offset for row in jnp.eye(size)], axis=1
  )
  return matrix, offset


def column(values):
  """[n, T] -> [n, T, 1, 1, 1]."""
  return jnp.asarray(values)[..., None, None, None]


def posterior(truth, known, mask):
  """(mean, cov) of x^b | x^a, float64; b are the frames outside the mask."""
  a, b = np.flatnonzero(mask), np.flatnonzero(~np.asarray(mask))
  s = truth.cov
  to_a = s[np.ix_(b, a)] @ np.linalg.inv(s[np.ix_(a, a)])
  mean = truth.mean[b] + to_a @ (known[a] - truth.mean[a])
  return mean, s[np.ix_(b, b)] - to_a @ s[np.ix_(a, b)]


def exact_conditional(truth, known, mask):
  """The denoise function E[x^b | x^a, z^b], x^a itself at the known frames."""
  inner = Truth(*posterior(truth, known, mask))
  b = np.flatnonzero(~np.asarray(mask))

  def denoise_fn(z, logsnr):
    x = jnp.broadcast_to(column(jnp.asarray(known, z.dtype)[None]), z.shape)
    return x.at[:, b].set(inner.denoise_fn(z[:, b], logsnr))

  return denoise_fn


def guided(truth, known, mask, weight):
  """Reconstruction guidance of the exact denoiser; 0 is the denoiser itself."""
  return guidance.reconstruction(
      truth.denoise_fn,
      known=column(jnp.asarray(known)[None]),
      known_mask=jnp.asarray(mask)[None],
      weight=weight,
  )


def approach(logsnrs):
  """d log |x_tilde^b - E[x^b | x^a, z^b]| / d logsnr, between levels."""
  truth = Truth([0.3, -0.2, 0.1], 0.3 + 0.7 * np.eye(3))
  known, mask = np.array([0.9, 0.0, 0.0]), np.array([True, False, False])
  found = []
  with float64():
    for logsnr in logsnrs:
      alpha, sigma = gaussian.alpha_sigma(jnp.float64(logsnr))
      z = np.array([0.9, -0.4, 0.2]) * alpha + np.array([0.5, -1, 1]) * sigma
      at = column(z[None]), jnp.full((1,), logsnr)
      got = guided(truth, known, mask, 1.0)(*at)
      want = exact_conditional(truth, known, mask)(*at)
      found.append(np.abs(got - want)[:, ~mask].max())
  return np.diff(np.log(found)) / np.diff(logsnrs)


def conditional_recursion(truth, known, mask, denoise_fn, *, num_steps):
  """Exact (mean [T], cov [T, T]) of what replacement draws with denoise_fn.

  The ancestral sampler with gamma 0 and the 'marginal' replacement.
  """
  n = len(truth.mean)
  with float64():
    logsnrs = schedules.cosine_logsnr(
        jnp.arange(num_steps, -1, -1.0) / num_steps
    )
    mask, given = jnp.asarray(mask), jnp.asarray(known)
    x_of = lambda z, level: denoise_fn(column(z[None]), level[None]).ravel()

    def impose(mean, cov, level):
      alpha, sigma = gaussian.alpha_sigma(level)
      free = ~mask
      cov = cov * free[:, None] * free[None]
      return (
          jnp.where(mask, alpha * given, mean),
          cov + jnp.diag(jnp.where(mask, sigma**2, 0.0)),
      )

    def body(carry, i):
      mean, cov = carry
      at = dict(logsnr_t=logsnrs[i], logsnr_s=logsnrs[i + 1])
      step = functools.partial(samplers.ancestral_step, gamma=0.0, **at)
      zero = jnp.zeros(n)
      matrix, offset = affine(
          lambda z: step(z_t=z, x=x_of(z, logsnrs[i]))[0], n
      )
      std = step(z_t=zero, x=zero)[1]
      mean = matrix @ mean + offset
      cov = matrix @ cov @ matrix.T + std**2 * jnp.eye(n)
      return impose(mean, cov, logsnrs[i + 1]), None

    @jax.jit
    def run():
      start = impose(jnp.zeros(n), jnp.eye(n), logsnrs[0])
      (mean, cov), _ = jax.lax.scan(body, start, jnp.arange(num_steps - 1))
      matrix, offset = affine(lambda z: x_of(z, logsnrs[num_steps - 1]), n)
      return matrix @ mean + offset, matrix @ cov @ matrix.T

    return jax.device_get(run())


CONDITION = dict(
    truth=Truth([0.0, 0.0, 0.0], 0.6 + 0.4 * np.eye(3)),
    known=np.array([1.0, 0.0, 0.0]),
    mask=np.array([True, False, False]),
)
