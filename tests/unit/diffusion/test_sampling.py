import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import gaussian_truth
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.diffusion import schedules

# Two frames that go together; the standard deviations of the modes of the
# covariance are 0.2 and 0.62.
TRUTH = gaussian_truth.Truth([0.3, -0.2], [[0.21, 0.17], [0.17, 0.21]])


def recursion(truth, num_steps, sampler, delta=None, **options):
  """Exact mean [T] and covariance [T, T] of the sampler's output, float64."""
  n = len(truth.mean)
  with gaussian_truth.float64():
    logsnrs = schedules.cosine_logsnr(
        jnp.arange(num_steps, -1, -1.0) / num_steps
    )

    def denoise(z, logsnr):
      return truth.denoise_fn(z.reshape(1, n, 1, 1, 1), logsnr).ravel()

    def body(carry, i):
      mean, cov = carry  # of (z, x_before) together
      lt, ls = logsnrs[i], logsnrs[i + 1]
      before = jnp.where(i == 0, lt - 1.0, logsnrs[i - 1])
      at = dict(logsnr_t=lt, logsnr_s=ls)
      zero = jnp.zeros(n)
      if sampler == 'ancestral':
        step = functools.partial(samplers.ancestral_step, **at, **options)
        std = step(z_t=zero, x=zero)[1]
      elif sampler == 'ddim':
        step = functools.partial(samplers.ddim_step, **at, **options)
        std = step(z_t=zero, x=zero)[1]
      elif sampler == 'annealed_langevin':
        step = functools.partial(
            samplers.annealed_langevin_step, **at, **options
        )
        std = step(z_t=zero, x=zero)[1]
      else:
        std = 0.0

      def move(state):
        z, x_before = state[:n], state[n:]
        x = denoise(z, lt)
        if sampler == 'dpmpp_2m':
          z = samplers.dpmpp_2m_step(
              z_t=z, x=x, x_before=jnp.where(i == 0, x, x_before),
              logsnr_before=before, **at,
          )
        else:
          z = step(z_t=z, x=x)[0]
        return jnp.concatenate([z, x])

      noise = jnp.concatenate([jnp.broadcast_to(std, n) ** 2, zero])
      matrix, offset = gaussian_truth.affine(move, 2 * n)
      mean = matrix @ mean + offset
      cov = matrix @ cov @ matrix.T + jnp.diag(noise)
      if delta is not None:
        correct = functools.partial(
            samplers.corrector_step, logsnr=ls, delta=delta
        )

        def langevin(state):
          z = correct(z=state[:n], x=denoise(state[:n], ls))[0]
          return jnp.concatenate([z, state[n:]])

        matrix, offset = gaussian_truth.affine(langevin, 2 * n)
        std = correct(z=zero, x=zero)[1]
        noise = jnp.concatenate([jnp.broadcast_to(std, n) ** 2, zero])
        mean = matrix @ mean + offset
        cov = matrix @ cov @ matrix.T + jnp.diag(noise)
      return (mean, cov), None

    @jax.jit
    def run():
      start = jnp.diag(jnp.concatenate([jnp.ones(n), jnp.zeros(n)]))
      (mean, cov), _ = jax.lax.scan(
          body, (jnp.zeros(2 * n), start), jnp.arange(num_steps - 1)
      )
      matrix, offset = gaussian_truth.affine(
          lambda z: denoise(z, logsnrs[num_steps - 1]), n
      )
      return matrix @ mean[:n] + offset, matrix @ cov[:n, :n] @ matrix.T

    return jax.device_get(run())


def errors(sampler, steps, **options):
  """Errors of the standard deviations of the two modes, [steps, 2]."""
  want = np.sqrt(np.linalg.eigvalsh(TRUTH.cov))
  found = [recursion(TRUTH, n, sampler, **options)[1] for n in steps]
  return np.array([np.sqrt(np.linalg.eigvalsh(c)) - want for c in found])


@pytest.mark.parametrize(
    'sampler, options, low, high',
    [
        ('ancestral', dict(gamma=0.0), 0.9, 1.1),
        ('ancestral', dict(gamma=1.0), 0.9, 1.1),
        ('ddim', dict(eta=0.0), 0.9, 1.1),
        ('ddim', dict(eta=1.0), 0.9, 1.1),
        ('dpmpp_2m', {}, 1.7, 2.1),
    ],
)
def test_order_of_convergence(sampler, options, low, high):
  error = np.abs(errors(sampler, (512, 2048), **options))
  slope = np.log2(error[0] / error[1]) / 2
  assert np.all((low <= slope) & (slope <= high)), slope


def test_means_are_right_down_to_the_start_of_the_schedule():
  # z_1 ~ N(0, I) instead of N(alpha(1) mean, .): alpha(1) = 4.5e-5.
  for sampler, options in (
      ('ancestral', dict(gamma=0.0)), ('ddim', dict(eta=0.0)), ('dpmpp_2m', {})
  ):
    mean, _ = recursion(TRUTH, 256, sampler, **options)
    floor = np.exp(-10) * np.linalg.norm(TRUTH.mean)
    assert np.abs(mean - TRUTH.mean).max() <= floor


def test_gamma_bounds_the_variance():
  low, middle, high = (
      errors('ancestral', (128,), gamma=gamma)[0] for gamma in (0.0, 0.3, 1.0)
  )
  assert np.all(low < middle) and np.all(middle < high)
  assert np.all(low < 0)


@pytest.mark.parametrize('logsnr', [-8.0, -1.0, 0.0, 3.0, 8.0])
def test_the_corrector_keeps_the_true_distribution_up_to_delta(logsnr):
  """N(alpha m, V): V' - V = (delta sigma^2)^2 / 4 V^-1, exactly."""
  delta = 0.1
  with gaussian_truth.float64():
    alpha, sigma = gaussian.alpha_sigma(jnp.float64(logsnr))
    cov = alpha**2 * TRUTH.cov + sigma**2 * np.eye(2)
    mean = alpha * TRUTH.mean

    def move(z):
      x = TRUTH.denoise_fn(z.reshape(1, 2, 1, 1, 1), jnp.float64(logsnr))
      return samplers.corrector_step(
          z=z, x=x.ravel(), logsnr=jnp.float64(logsnr), delta=delta
      )[0]

    matrix, offset = gaussian_truth.affine(move, 2)
    after = matrix @ cov @ matrix.T + delta * sigma**2 * np.eye(2)
    error = (delta * sigma**2) ** 2 / 4 * np.linalg.inv(cov)
    np.testing.assert_allclose(after, cov + error, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(matrix @ mean + offset, mean, atol=1e-12)


def test_the_corrector_brings_ancestral_samples_nearer():
  plain = np.abs(errors('ancestral', (64,), gamma=0.0))
  corrected = np.abs(errors('ancestral', (64,), gamma=0.0, delta=0.1))
  assert np.all(corrected < plain)


@pytest.mark.parametrize(
    'options',
    [
        dict(sampler='ancestral', gamma=0.0),
        dict(sampler='ancestral', gamma=0.3, corrector_delta=0.1),
        dict(sampler='ddim'),
        dict(sampler='ddim', eta=1.0),
        dict(sampler='dpmpp_2m'),
        dict(sampler='annealed_langevin'),
    ],
)
def test_samples_have_the_mean_and_covariance_of_the_recursion(options):
  n, steps = 40_000, 32
  x = jax.jit(
      functools.partial(
          sampling.sample,
          denoise_fn=TRUTH.denoise_fn,
          shape=(n, 2, 1, 1, 1),
          num_steps=steps,
          **options,
      )
  )(jax.random.key(0))
  rest = {
      'ancestral': {'gamma': 0.0}, 'ddim': {'eta': 0.0}, 'dpmpp_2m': {},
      'annealed_langevin': {'langevin_step': 0.1},
  }
  renamed = {k: v for k, v in options.items() if k in ('gamma', 'eta')}
  mean, cov = recursion(
      TRUTH, steps, options['sampler'], options.get('corrector_delta'),
      **(rest[options['sampler']] | renamed),
  )
  x = np.asarray(x, np.float64).reshape(n, 2)
  spread = np.sqrt(np.diag(cov))
  np.testing.assert_allclose(x.mean(0), mean, atol=5 * spread.max() / n**0.5)
  # The sampling error of a covariance is about sqrt(2 / n) of the variances.
  tolerance = 5 * np.sqrt(2 / n) * spread.max() ** 2
  np.testing.assert_allclose(np.cov(x.T), cov, atol=tolerance)


def test_annealed_langevin_needs_small_steps_and_many_of_them():
  of = lambda steps, size: np.abs(
      errors('annealed_langevin', (steps,), langevin_step=size)
  ).max()
  assert of(4096, 0.02) < 0.5 * of(256, 0.1)
  # The whole way to x_hat at every level: what is rare is lost.
  assert of(256, 1.0) > 3 * of(256, 0.1)


def test_a_known_video_is_returned_exactly():
  want = jnp.linspace(-1, 1, 2 * 3 * 4 * 4 * 3).reshape(2, 3, 4, 4, 3)
  for sampler in samplers.SAMPLERS:
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
  one = samplers.ddim_step(z_t=z, x=x, eta=1.0, **logsnrs)
  other = samplers.ancestral_step(z_t=z, x=x, gamma=0.0, **logsnrs)
  for a, b in zip(one, other, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize('delta, count', [(None, 4), (0.1, 7)])
def test_number_of_network_calls_and_their_logsnrs(delta, count):
  calls = []

  def denoise(z, logsnr):
    jax.debug.callback(lambda x: calls.append(float(x[0])), logsnr)
    return z * 0

  sampling.sample(
      jax.random.key(0),
      denoise,
      shape=(2, 1, 1, 1, 1),
      num_steps=4,
      corrector_delta=delta,
  )
  jax.effects_barrier()
  # The corrector runs at the new level of each step, and not at s = 0.
  levels = [-20.0, -1.76261877, 0.0, 1.76261877]
  want = levels if delta is None else levels + levels[1:]
  assert len(calls) == count
  np.testing.assert_allclose(sorted(calls), sorted(want), atol=1e-5)


def test_eps_models_need_clipping_and_get_it():
  """An untrained eps network (output 0): x_hat = z / alpha explodes."""

  def denoise(z, logsnr):
    return gaussian.x_from_eps(z=z, eps=jnp.zeros_like(z), logsnr=logsnr)

  for sampler in samplers.SAMPLERS:
    x = sampling.sample(
        jax.random.key(0),
        guidance.clip(denoise),
        shape=(1, 2, 4, 4, 3),
        num_steps=16,
        sampler=sampler,
    )
    assert np.all(np.isfinite(x)) and np.abs(x).max() <= 1


@pytest.mark.parametrize('sampler', samplers.SAMPLERS)
@pytest.mark.parametrize('replacement', sampling.REPLACEMENTS)
def test_known_frames_are_exact_and_nothing_outside_the_mask_is_read(
    sampler, replacement
):
  known = jnp.full((2, 3, 2, 2, 1), 0.25)
  mask = jnp.array([[True, False, False], [False, True, True]])
  run = lambda known: sampling.sample(
      jax.random.key(0),
      lambda z, logsnr: jnp.tanh(z),
      shape=known.shape,
      num_steps=5,
      sampler=sampler,
      known=known,
      known_mask=mask,
      replacement=replacement,
      corrector_delta=0.1,
  )
  x = run(known)
  wide = guidance.frame_mask(mask, known)
  np.testing.assert_array_equal(x[np.asarray(mask)], 0.25)
  other = run(jnp.where(wide, known, 7.0))
  np.testing.assert_array_equal(x, other)


@pytest.mark.parametrize('replacement', sampling.REPLACEMENTS)
def test_replaced_latents_have_the_marginal_of_the_known_frames(replacement):
  """At every level z^a ~ N(alpha x^a, sigma^2), either way."""
  seen = {}

  def denoise(z, logsnr):
    def keep(logsnr, z):
      seen[float(logsnr[0])] = np.asarray(z[:, 0])
    jax.debug.callback(keep, logsnr, z)
    return z * 0

  n = 20_000
  sampling.sample(
      jax.random.key(0),
      denoise,
      shape=(n, 2, 1, 1, 1),
      num_steps=5,
      known=jnp.full((n, 2, 1, 1, 1), 0.8),
      known_mask=jnp.array([[True, False]]),
      replacement=replacement,
  )
  jax.effects_barrier()
  assert len(seen) == 5
  for logsnr, z in seen.items():
    alpha, sigma = gaussian.alpha_sigma(logsnr)
    tolerance = 5 * sigma / np.sqrt(n)
    np.testing.assert_allclose(z.mean(), 0.8 * alpha, atol=tolerance)
    np.testing.assert_allclose(z.std(), sigma, rtol=5 / np.sqrt(2 * n))


@pytest.mark.parametrize(
    'options, named',
    [
        (dict(sampler='euler', num_steps=2), 'euler'),
        (dict(num_steps=0), '0'),
        (dict(num_steps=1, replacement='none'), 'none'),
        (dict(num_steps=1, known=jnp.zeros((1, 1, 1, 1, 1))), 'both'),
        (
            dict(num_steps=1, known=jnp.zeros((1, 2, 1, 1, 1)),
                 known_mask=jnp.ones((1, 1), bool)),
            r'known has shape \(1, 2',
        ),
        (
            dict(num_steps=1, known=jnp.zeros((1, 1, 1, 1, 1)),
                 known_mask=jnp.ones((1, 3), bool)),
            'known_mask has shape',
        ),
        (
            dict(
                num_steps=1,
                known=np.zeros((1, 1, 1, 1, 1)),
                known_mask=np.ones((1, 1), bool),
            ),
            'nothing left to draw',
        ),
    ],
)
def test_bad_options(options, named):
  call = functools.partial(sampling.sample, jax.random.key(0), None)
  with pytest.raises(ValueError, match=named):
    call(shape=(1, 1, 1, 1, 1), **options)
