import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import schedules

LOGSNRS = [-20.0, -7.0, 0.0, 1.76261877, 20.0]


def draw(seed, shape=(2, 3, 4, 4, 3)):
  return jax.random.normal(jax.random.key(seed), shape)


def test_alpha_sigma():
  alpha, sigma = gaussian.alpha_sigma(jnp.array(LOGSNRS))
  want = 1 / (1 + np.exp(-np.array(LOGSNRS)))
  np.testing.assert_allclose(alpha**2, want, rtol=3e-6)
  np.testing.assert_allclose(sigma**2, 1 - want, rtol=3e-6)
  np.testing.assert_allclose(alpha[3] ** 2, 0.85353734, rtol=1e-6)


@pytest.mark.parametrize('logsnr', LOGSNRS)
def test_conversions_invert_each_other(logsnr):
  logsnr = jnp.full((2, 3), logsnr)
  x, eps = draw(0), draw(1)
  z = gaussian.diffuse(x=x, eps=eps, logsnr=logsnr)
  alpha, sigma = gaussian.alpha_sigma(logsnr[0, 0])
  v = alpha * eps - sigma * x
  # Where one of x and eps hardly enters z, float32 cannot return it.
  close = lambda got, want, gain: np.testing.assert_allclose(
      got, want, atol=1e-6 * max(1.0, gain)
  )
  close(gaussian.x_from_eps(z=z, eps=eps, logsnr=logsnr), x, 1 / alpha)
  close(gaussian.eps_from_x(z=z, x=x, logsnr=logsnr), eps, 1 / sigma)
  close(gaussian.x_from_v(z=z, v=v, logsnr=logsnr), x, 1)
  close(gaussian.eps_from_v(z=z, v=v, logsnr=logsnr), eps, 1)
  close(gaussian.v_from_x(z=z, x=x, logsnr=logsnr), v, 1 / sigma)


def test_frames_may_have_their_own_noise_level():
  logsnr = jnp.array([[-3.0, 0.0, 3.0], [1.0, 2.0, -1.0]])
  x, eps = draw(0), draw(1)
  z = gaussian.diffuse(x=x, eps=eps, logsnr=logsnr)
  for b in range(2):
    for f in range(3):
      alone = gaussian.diffuse(
          x=x[b : b + 1, f], eps=eps[b : b + 1, f], logsnr=logsnr[b, f : f + 1]
      )
      np.testing.assert_allclose(z[b, f], alone[0], rtol=1e-6)


def test_posterior_known_values():
  lt, ls = (schedules.cosine_logsnr(jnp.array([t])) for t in (0.5, 0.25))
  zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
  args = dict(logsnr_t=lt, logsnr_s=ls)
  of_z, low = gaussian.posterior(z_t=one, x=zero, gamma=0.0, **args)
  of_x, high = gaussian.posterior(z_t=zero, x=one, gamma=1.0, **args)
  np.testing.assert_allclose(of_z, [[0.22419744]], rtol=1e-6)
  np.testing.assert_allclose(of_x, [[0.76533931]], rtol=1e-6)
  np.testing.assert_allclose(np.exp(low), [[0.12133041]], rtol=1e-6)
  np.testing.assert_allclose(np.exp(high), [[0.41420255]], rtol=1e-6)
  for gamma, std in ((0.1, 0.37037955), (0.3, 0.41876589)):
    _, logvar = gaussian.posterior(z_t=one, x=zero, gamma=gamma, **args)
    np.testing.assert_allclose(np.exp(0.5 * logvar), [[std]], rtol=1e-6)


@pytest.mark.parametrize('t, s', [(1.0, 0.999), (0.5, 0.4999), (0.01, 0.0)])
def test_posterior_is_bayes(t, s):
  """q(z_s | z_t, x) from the two-variable Gaussian, in float64."""
  lt, ls = (
      np.float64(schedules.cosine_logsnr(jnp.float32(u))) for u in (t, s)
  )
  sig = lambda u: 1 / (1 + np.exp(-u))
  at, as_ = np.sqrt(sig(lt)), np.sqrt(sig(ls))
  st2, ss2 = sig(-lt), sig(-ls)
  ratio = at / as_  # z_t = ratio z_s + noise of variance r2
  r2 = -np.expm1(lt - ls) * st2
  precision = 1 / ss2 + ratio**2 / r2
  x, z = 0.7, -1.3
  mean, logvar = gaussian.posterior(
      z_t=jnp.array([[z]]),
      x=jnp.array([[x]]),
      logsnr_t=jnp.array([lt], jnp.float32),
      logsnr_s=jnp.array([ls], jnp.float32),
      gamma=0.0,
  )
  want = (as_ * x / ss2 + ratio * z / r2) / precision
  np.testing.assert_allclose(mean[0, 0], want, rtol=2e-5)
  np.testing.assert_allclose(np.exp(logvar[0, 0]), 1 / precision, rtol=2e-4)
