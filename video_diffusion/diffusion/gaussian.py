"""The Gaussian diffusion process: q(z_t|x), q(z_s|z_t,x), conversions.

Variance preserving: alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr).
Everything is elementwise and keyword-only; `_s` is the less noisy time.
"""
import jax
import jax.numpy as jnp


def broadcast_to_rank(logsnr: jax.Array, x: jax.Array) -> jax.Array:
  """Appends axes of size one to `logsnr` until it has the rank of `x`."""
  logsnr = jnp.asarray(logsnr)
  return logsnr.reshape(logsnr.shape + (1,) * (x.ndim - logsnr.ndim))


def alpha_sigma(logsnr: jax.Array) -> tuple[jax.Array, jax.Array]:
  """alpha = sqrt(sigmoid(logsnr)), sigma = sqrt(sigmoid(-logsnr)).

  Args:
    logsnr: any shape.

  Returns:
    (alpha, sigma), each of logsnr's shape, alpha^2 + sigma^2 = 1. Taken as
    exp of half a log-sigmoid, so that 4.5e-5 at the ends keeps its precision.
  """
  alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))
  sigma = jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))
  return alpha, sigma


def diffuse(
    *, x: jax.Array, eps: jax.Array, logsnr: jax.Array
) -> jax.Array:
  """z = alpha x + sigma eps, a draw from q(z_t|x) where eps ~ N(0, I)."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, x))
  return alpha * x + sigma * eps


def x_from_eps(
    *, z: jax.Array, eps: jax.Array, logsnr: jax.Array
) -> jax.Array:
  """x_hat = (z - sigma eps) / alpha."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, z))
  return (z - sigma * eps) / alpha


def x_from_v(*, z: jax.Array, v: jax.Array, logsnr: jax.Array) -> jax.Array:
  """x_hat = alpha z - sigma v."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, z))
  return alpha * z - sigma * v


def eps_from_x(*, z: jax.Array, x: jax.Array, logsnr: jax.Array) -> jax.Array:
  """eps_hat = (z - alpha x) / sigma."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, z))
  return (z - alpha * x) / sigma


def v_from_x(*, z: jax.Array, x: jax.Array, logsnr: jax.Array) -> jax.Array:
  """v_hat = (alpha z - x) / sigma, equal to alpha eps_hat - sigma x."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, z))
  return (alpha * z - x) / sigma


def eps_from_v(*, z: jax.Array, v: jax.Array, logsnr: jax.Array) -> jax.Array:
  """eps_hat = sigma z + alpha v."""
  alpha, sigma = alpha_sigma(broadcast_to_rank(logsnr, z))
  return sigma * z + alpha * v


def posterior(
    *,
    z_t: jax.Array,
    x: jax.Array,
    logsnr_t: jax.Array,
    logsnr_s: jax.Array,
    gamma: float,
) -> tuple[jax.Array, jax.Array]:
  """The ancestral step z_s ~ N(mean, exp(logvar)), s < t (paper section 2).

  With r = e^{lambda_t - lambda_s}:
    mean     = r (alpha_s / alpha_t) z_t + (1 - r) alpha_s x
    var_low  = (1 - r) sigma_s^2      the posterior q(z_s | z_t, x)
    var_high = (1 - r) sigma_t^2
    logvar   = (1 - gamma) log var_low + gamma log var_high

  Args:
    z_t: latents at the noisier time.
    x: the data or its prediction x_hat, of z_t's shape.
    logsnr_t: [batch] or [batch, time].
    logsnr_s: likewise, larger than logsnr_t.
    gamma: in [0, 1]; 0 is the lower bound of the variance, 1 the upper.

  Returns:
    (mean of z_t's shape, logvar broadcastable to it).
  """
  logsnr_t = broadcast_to_rank(logsnr_t, z_t)
  logsnr_s = broadcast_to_rank(logsnr_s, z_t)
  # 1 - r by expm1: r tends to 1 as steps shrink, where 1 - exp loses digits.
  one_minus_r = -jnp.expm1(logsnr_t - logsnr_s)
  # r alpha_s / alpha_t in logs: alpha_t alone is 4.5e-5 at t = 1.
  log_coef = (
      (logsnr_t - logsnr_s)
      + 0.5 * jax.nn.log_sigmoid(logsnr_s)
      - 0.5 * jax.nn.log_sigmoid(logsnr_t)
  )
  alpha_s, _ = alpha_sigma(logsnr_s)
  mean = jnp.exp(log_coef) * z_t + one_minus_r * alpha_s * x
  log_sigma2 = (1.0 - gamma) * jax.nn.log_sigmoid(
      -logsnr_s
  ) + gamma * jax.nn.log_sigmoid(-logsnr_t)
  return mean, jnp.log(one_minus_r) + log_sigma2
