import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import sampling


def gaussian_denoiser(mean, std):
  """E[x | z] where x ~ N(mean, std^2) in every element, in closed form."""

  def denoise(z, logsnr):
    alpha, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
    gain = std**2 * alpha / (std**2 * alpha**2 + sigma**2)
    return mean + gain * (z - alpha * mean)

  return denoise


@pytest.mark.parametrize(
    'options',
    [
        dict(sampler='ancestral', gamma=0.0),
        dict(sampler='ancestral', gamma=1.0),
        dict(sampler='ancestral', gamma=0.3),
        dict(sampler='ddim'),
        dict(sampler='ddim', eta=1.0),
    ],
)
def test_draws_the_gaussian_it_was_given(options):
  x = sampling.sample(
      jax.random.key(0),
      gaussian_denoiser(0.3, 0.2),
      shape=(64, 4, 8, 8, 3),
      num_steps=256,
      **options,
  )
  n = x.size
  # The discretisation error at 256 steps is a few per cent of the spread.
  np.testing.assert_allclose(x.mean(), 0.3, atol=5 * 0.2 / np.sqrt(n) + 2e-3)
  np.testing.assert_allclose(x.std(), 0.2, rtol=0.05)


def test_a_known_video_is_returned_exactly():
  want = jnp.linspace(-1, 1, 2 * 3 * 4 * 4 * 3).reshape(2, 3, 4, 4, 3)
  for sampler in sampling.SAMPLERS:
    got = sampling.sample(
        jax.random.key(0),
        lambda z, logsnr: want,
        shape=want.shape,
        num_steps=7,
        sampler=sampler,
    )
    np.testing.assert_array_equal(got, want)


def test_ddim_with_eta_one_is_the_ancestral_step():
  z, x = (jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in (0, 1))
  logsnrs = dict(
      logsnr_t=jnp.array([-1.0, 2.0]), logsnr_s=jnp.array([0.0, 5.0])
  )
  key = jax.random.key(2)
  one = sampling.ddim_step(key, z_t=z, x=x, eta=1.0, **logsnrs)
  other = sampling.ancestral_step(key, z_t=z, x=x, gamma=0.0, **logsnrs)
  np.testing.assert_allclose(one, other, atol=2e-6)


def test_number_of_network_calls_and_their_logsnrs():
  calls = []

  def denoise(z, logsnr):
    jax.debug.callback(lambda x: calls.append(float(x[0])), logsnr)
    return z * 0

  sampling.sample(
      jax.random.key(0), denoise, shape=(2, 1, 1, 1, 1), num_steps=4
  )
  jax.effects_barrier()
  want = [-20.0, -1.76261877, 0.0, 1.76261877]
  np.testing.assert_allclose(sorted(calls), want, atol=1e-5)


def test_eps_models_need_clipping_and_get_it():
  """An untrained eps network (output 0): x_hat = z / alpha explodes."""

  def denoise(z, logsnr):
    return gaussian.x_from_eps(z=z, eps=jnp.zeros_like(z), logsnr=logsnr)

  x = sampling.sample(
      jax.random.key(0),
      guidance.clip(denoise),
      shape=(1, 2, 4, 4, 3),
      num_steps=16,
  )
  assert np.all(np.isfinite(x)) and np.abs(x).max() <= 1


@pytest.mark.parametrize(
    'options, named',
    [(dict(sampler='euler', num_steps=2), 'euler'), (dict(num_steps=0), '0')],
)
def test_bad_options(options, named):
  call = functools.partial(sampling.sample, jax.random.key(0), None)
  with pytest.raises(ValueError, match=named):
    call(shape=(1, 1, 1, 1, 1), **options)
