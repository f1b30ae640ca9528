import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import gaussian_truth
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Heun(samplers.Sampler):
  """Deterministic steps with two calls of the denoiser, on a coarser grid."""

  power: float = 2.0

  def logsnrs(self, logsnr_fn, num_steps):
    t = (jnp.arange(num_steps, -1, -1.0) / num_steps) ** self.power
    return logsnr_fn(t)

  def step(self, denoise_fn, z_t, state, *, logsnr_t, logsnr_s, noise):
    at = dict(logsnr_t=logsnr_t, logsnr_s=logsnr_s)
    x = denoise_fn(z_t, logsnr_t)
    z_s, _ = samplers.ddim_step(z_t=z_t, x=x, eta=0.0, **at)
    x = 0.5 * (x + denoise_fn(z_s, logsnr_s))
    return samplers.ddim_step(z_t=z_t, x=x, eta=0.0, **at)[0], state


@pytest.fixture
def heun():
  samplers.register('heun')(Heun)
  yield
  del samplers.SAMPLERS['heun']


def test_a_new_sampler_calls_the_denoiser_twice_on_a_grid_of_its_own(heun):
  calls = []

  def denoise(z, logsnr):
    jax.debug.callback(lambda x: calls.append(float(x[0])), logsnr)
    return 0.5 * z

  x = sampling.sample(
      jax.random.key(0), denoise, shape=(1, 1, 1, 1, 1), num_steps=3,
      sampler='heun',
  )
  jax.effects_barrier()
  grid = Heun().logsnrs(sampling.schedules.cosine_logsnr, 3)
  # Two steps of two calls; the last step is the denoiser itself.
  want = [grid[0], grid[1], grid[1], grid[2], grid[2]]
  np.testing.assert_allclose(sorted(calls), want, rtol=1e-6)
  assert np.isfinite(x).all()
  assert samplers.options()['power'] == 2.0


def test_heun_is_nearer_to_the_solution_than_one_call_a_step(heun):
  """N(0, v) data: the flow scales z by sqrt(alpha^2 v + sigma^2) exactly."""
  variance = 0.1

  def denoise(z, logsnr):
    alpha, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
    return alpha * variance / (alpha**2 * variance + sigma**2) * z

  key, shape = jax.random.key(1), (1, 1, 4, 4, 1)
  run = lambda sampler, steps: sampling.sample(
      key, denoise, shape=shape, num_steps=steps, sampler=sampler
  )
  exact = run(samplers.DDIM(), 4096)
  errors = [
      float(jnp.abs(run(s, 48) - exact).max())
      for s in (Heun(power=1.0), samplers.DDIM())
  ]
  assert errors[0] < 0.5 * errors[1]


def test_a_sampler_is_made_by_name_with_the_options_that_it_has():
  both = dict(gamma=0.3, eta=0.5, langevin_step=0.2)
  assert samplers.make('ancestral', **both) == samplers.Ancestral(0.3)
  assert samplers.make('ddim', **both) == samplers.DDIM(0.5)
  assert samplers.make('dpmpp_2m', **both) == samplers.DPMPP2M()
  assert samplers.make('annealed_langevin', **both) == (
      samplers.AnnealedLangevin(0.2)
  )
  assert samplers.options() == dict(gamma=0.0, eta=0.0, langevin_step=0.1)
  assert samplers.Ancestral.name == 'ancestral'
  with pytest.raises(ArgumentError, match="sampler is 'euler'; it must be one"):
    samplers.make('euler')
  with pytest.raises(ArgumentError, match='eta is 2; it must be from 0 to 1'):
    samplers.DDIM(eta=2)


@pytest.mark.parametrize(
    'name, options',
    [
        ('ancestral', dict(gamma=0.4)), ('ddim', dict(eta=0.7)),
        ('dpmpp_2m', {}), ('annealed_langevin', {}),
    ],
)
def test_name_and_object_give_the_same_samples(name, options):
  run = lambda sampler, **more: sampling.sample(
      jax.random.key(3), lambda z, logsnr: jnp.tanh(z), shape=(1, 2, 2, 2, 1),
      num_steps=4, sampler=sampler, **more,
  )
  np.testing.assert_array_equal(
      run(name, **options), run(samplers.make(name, **options))
  )


@pytest.mark.parametrize('logsnr', [-8.0, -1.0, 0.0, 3.0, 8.0])
def test_annealed_langevin_at_one_level_ends_near_the_truth(logsnr):
  """A mode of variance v ends at (v + rho^2) (2 - step) / (2 - step c).

  Here c = rho^2 / (v + rho^2), in z / alpha: the variance is too small by a
  share of about step / 2 (1 - c), and vanishes with it.
  """
  step, truth = 0.1, gaussian_truth.Truth(
      [0.3, -0.2], [[0.21, 0.17], [0.17, 0.21]]
  )
  with gaussian_truth.float64():
    level = jnp.float64(logsnr)
    alpha, sigma = gaussian.alpha_sigma(level)
    rho2 = (sigma / alpha) ** 2

    def move(z):
      x = truth.denoise_fn(z.reshape(1, 2, 1, 1, 1), level)
      return samplers.annealed_langevin_step(
          z_t=z, x=x.ravel(), logsnr_t=level, logsnr_s=level,
          langevin_step=step,
      )

    matrix, offset = gaussian_truth.affine(lambda z: move(z)[0], 2)
    fresh = move(jnp.zeros(2))[1] ** 2 * np.eye(2)
    np.testing.assert_allclose(
        matrix @ (alpha * truth.mean) + offset, alpha * truth.mean, atol=1e-12
    )
    v, modes = np.linalg.eigh(truth.cov)
    c = rho2 / (v + rho2)
    end = alpha**2 * (v + rho2) * (2 - step) / (2 - step * c)
    cov = modes @ np.diag(end) @ modes.T
    np.testing.assert_allclose(
        matrix @ cov @ matrix.T + fresh, cov, rtol=1e-9, atol=1e-12
    )


def test_annealed_langevin_of_step_zero_is_ddim():
  z, x = (jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in (0, 1))
  levels = jnp.array([-1.0, 2.0]), jnp.array([0.0, 5.0])
  at = dict(z_t=z, x=x, logsnr_t=levels[0], logsnr_s=levels[1])
  ddim, _ = samplers.ddim_step(**at, eta=0.0)
  mean, std = samplers.annealed_langevin_step(**at, langevin_step=0.0)
  np.testing.assert_allclose(mean, ddim, atol=2e-6)
  np.testing.assert_array_equal(std, jnp.zeros_like(std))
  # With 1, nothing of the noise of z is left.
  mean, std = samplers.annealed_langevin_step(**at, langevin_step=1.0)
  alpha, sigma = gaussian.alpha_sigma(levels[1])
  np.testing.assert_allclose(mean, alpha[:, None, None] * x, atol=2e-6)
  np.testing.assert_allclose(std.ravel(), sigma, rtol=1e-6)
