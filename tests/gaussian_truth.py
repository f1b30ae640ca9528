"""A linear-Gaussian world: x ~ N(mean, cov) over frames, all in closed form.

Videos are [batch, time, 1, 1, 1]; every function is linear in z, so means and
covariances of a sampler follow by exact recursion.
"""
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import gaussian


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
