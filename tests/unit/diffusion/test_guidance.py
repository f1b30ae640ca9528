import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import gaussian_truth
from tests.support.gaussian_truth import column
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import sampling

# The test rows of the paper notes: prior covariance, x^a = 1, z = (0.3, -0.8).
ROWS = [
    (6.0, -0.7873, -0.7792, -0.7791),
    (2.0, -0.4977, -0.2435, -0.1234),
    (0.0, -0.3023, 0.0252, 0.5757),
]
PAIR = gaussian_truth.Truth([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])


def random_truth(frames=5, seed=0):
  rng = np.random.default_rng(seed)
  root = rng.standard_normal((frames, frames)) / np.sqrt(frames)
  return gaussian_truth.Truth(rng.standard_normal(frames), root @ root.T)


@pytest.mark.parametrize('logsnr, unguided, guided, exact', ROWS)
def test_the_rows_of_the_notes(logsnr, unguided, guided, exact):
  with gaussian_truth.float64():
    known, mask = column(np.array([[1.0, 0.0]])), jnp.array([[True, False]])
    z = column(np.array([[0.3, -0.8]]))
    level = jnp.full((1,), logsnr)
    plain = PAIR.denoise_fn(z, level).ravel()
    fn = guidance.reconstruction(
        PAIR.denoise_fn, known=known, known_mask=mask, weight=1.0
    )
    got = fn(z, level).ravel()
    np.testing.assert_allclose(plain[1], unguided, atol=5e-5)
    np.testing.assert_allclose(got[1], guided, atol=5e-5)
    np.testing.assert_array_equal(got[0], plain[0])
    conditional = gaussian_truth.exact_conditional(
        PAIR, np.array([1.0, 0.0]), [True, False]
    )
    np.testing.assert_allclose(
        conditional(z, level).ravel(), [1.0, exact], atol=5e-5
    )


@pytest.mark.parametrize('logsnr, unguided, guided, exact', ROWS)
def test_a_denoiser_that_sees_known_frames_clean_is_exact(
    logsnr, unguided, guided, exact
):
  """The exact one of PAIR, with a log-SNR for each frame."""
  del unguided, guided

  def denoise(z, levels):
    alpha, sigma = gaussian.alpha_sigma(levels[0])
    inner = alpha[:, None] * PAIR.cov * alpha + jnp.diag(sigma**2)
    x = PAIR.cov * alpha @ jnp.linalg.solve(inner, z.ravel())
    return x.reshape(z.shape)

  with gaussian_truth.float64():
    fn = guidance.clean_known(
        denoise, known=column(np.array([[1.0, 9.0]])),
        known_mask=jnp.array([[True, False]]), logsnr_max=20.0,
    )
    got = fn(column(np.array([[0.3, -0.8]])), jnp.full((1,), logsnr))
    np.testing.assert_allclose(got.ravel(), [1.0, exact], atol=5e-5)


@pytest.mark.parametrize('logsnr', [-6.0, 0.0, 5.0])
@pytest.mark.parametrize(
    'mask', [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 1], [1, 1, 1, 1, 0]]
)
def test_reconstruction_is_the_closed_form(logsnr, mask):
  """x_hat^b + w alpha K_ab^T (x^a - x_hat^a), K the gain of the denoiser."""
  truth, weight = random_truth(), 3.0
  rng = np.random.default_rng(1)
  mask = np.array(mask, bool)
  z, known = rng.standard_normal((2, 4, 5))
  fn = guidance.reconstruction(
      truth.denoise_fn,
      known=column(known.astype(np.float32)),
      known_mask=jnp.asarray(mask)[None],
      weight=weight,
  )
  got = fn(column(z.astype(np.float32)), jnp.full((4,), logsnr))
  got = np.asarray(got).reshape(4, 5)
  gain = np.asarray(truth.gain(logsnr), np.float64)
  alpha = float(gaussian.alpha_sigma(logsnr)[0])
  x = truth.mean + (z - alpha * truth.mean) @ gain.T
  want = x + weight * alpha * (np.where(mask, known - x, 0)) @ gain
  want = np.where(mask, x, want)
  np.testing.assert_allclose(got, want, atol=1e-5)


def images(seed, n=3, frames=2, side=4):
  rng = np.random.default_rng(seed)
  return rng.standard_normal((n, frames, side, side, 1)).astype(np.float32)


def linear_denoiser(seed=0, size=2 * 4 * 4):
  """x_hat = z W + w0 over all pixels of a video, at every level."""
  rng = np.random.default_rng(seed)
  matrix = rng.standard_normal((size, size)).astype(np.float32) / size**0.5
  offset = rng.standard_normal(size).astype(np.float32)

  def denoise(z, logsnr):
    flat = z.reshape(len(z), -1)
    return (flat @ matrix + offset).reshape(z.shape)

  return denoise, matrix, offset


def test_super_resolution_is_the_closed_form_for_a_random_linear_downsample():
  """x_hat + w alpha W D (x^a - D x_hat)."""
  denoise, matrix, offset = linear_denoiser()
  rng = np.random.default_rng(5)
  down = rng.standard_normal((32, 6)).astype(np.float32) / 6
  z, low, weight, logsnr = images(1), rng.standard_normal((3, 6)), 2.0, 0.7
  fn = guidance.super_resolution(
      denoise,
      low_res=jnp.asarray(low, jnp.float32),
      weight=weight,
      downsample=lambda x: x.reshape(len(x), -1) @ down,
  )
  got = np.asarray(fn(z, jnp.full((3,), logsnr))).reshape(3, -1)
  alpha = float(gaussian.alpha_sigma(logsnr)[0])
  x = z.reshape(3, -1).astype(np.float64) @ matrix + offset
  want = x + weight * alpha * (low - x @ down) @ down.T @ matrix.T
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_both_terms_in_one_pass_are_the_sum_of_both_moves():
  denoise, _, _ = linear_denoiser()
  z, known, low = images(1), images(2), images(3, side=2)
  mask, level = jnp.array([[True, False]]), jnp.full((3,), 0.3)
  low_mask = jnp.array([[True, False]])
  known_frames = dict(known=known, known_mask=mask, weight=2.0)
  small_frames = dict(
      low_res=low, weight=3.0, downsample=guidance.area(2),
      low_res_mask=low_mask,
  )
  one = guidance.reconstruction(denoise, **known_frames)
  other = guidance.super_resolution(denoise, **small_frames)
  both = guidance.super_resolution(one, **small_frames)
  assert both.denoise_fn is denoise and len(both.terms) == 2
  x = denoise(z, level)
  moves = [fn(z, level) - x for fn in (both, one, other)]
  # The known frame is held, whichever term would move it.
  want = moves[1] + jnp.where(guidance.frame_mask(mask, x), 0.0, moves[2])
  np.testing.assert_allclose(moves[0], want, atol=1e-5)
  without = guidance.reconstruction(denoise, **known_frames | {'weight': 0.0})
  assert not without.terms
  np.testing.assert_array_equal(without(z, level), x)
  # A frame without a low-resolution partner does not count.
  errors = [
      guidance.low_res_error(video, guidance.area(2), low_mask)(x)
      for video in (low, jnp.asarray(low).at[:, 1].add(9.0))
  ]
  np.testing.assert_array_equal(*errors)


@pytest.mark.parametrize('kind', ['reconstruction', 'super_resolution'])
def test_a_batch_of_n_is_n_batches_of_one(kind):
  def denoise(z, logsnr):  # not linear, so that gradients depend on z
    return jnp.tanh(z + 0.5 * z.mean(axis=(1, 2, 3, 4), keepdims=True))

  z, known, low = images(1), images(2), images(3, side=2)
  level = jnp.array([-1.0, 0.0, 2.0])

  def guided(rows):
    if kind == 'reconstruction':
      fn = guidance.reconstruction(
          denoise,
          known=known[rows],
          known_mask=jnp.array([[True, False]]),
          weight=5.0,
      )
    else:
      fn = guidance.super_resolution(
          denoise, low_res=low[rows], weight=5.0, downsample=guidance.area(2)
      )
    return fn(z[rows], level[rows])

  together = guided(slice(0, 3))
  for i in range(3):
    alone = guided(slice(i, i + 1))
    np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-6)


def test_classifier_free():
  cond, uncond = (lambda z, logsnr: 2 * z), (lambda z, logsnr: z - 1)
  z, level = images(1), jnp.array([-1.0, 0.0, 2.0])
  assert guidance.classifier_free(cond, uncond, weight=0.0) is cond
  got = guidance.classifier_free(cond, uncond, weight=1.5)(z, level)
  # In eps, as the paper writes it.
  eps = lambda x: gaussian.eps_from_x(z=z, x=x, logsnr=level)
  want = 2.5 * eps(cond(z, level)) - 1.5 * eps(uncond(z, level))
  np.testing.assert_allclose(eps(got), want, atol=2e-4)


def test_clipping():
  z = jnp.array([[-3.0, -0.5, 0.5, 2.0], [-0.5, 0.1, 0.2, 0.5]])
  plain = lambda z, logsnr: z
  clip = lambda **options: guidance.clip(plain, **options)(z, None)
  want = [[-1, -0.5, 0.5, 1], [-0.5, 0.1, 0.2, 0.5]]
  np.testing.assert_allclose(clip(), want)
  np.testing.assert_array_equal(clip(method='none'), z)
  dynamic = clip(method='dynamic', percentile=100.0)
  np.testing.assert_allclose(dynamic, [z[0] / 3.0, z[1]])
  # Two thirds of the way from the third to the fourth of (0.5, 0.5, 2, 3).
  some = clip(method='dynamic', percentile=50.0)
  np.testing.assert_allclose(some[0], [-1.0, -0.4, 0.4, 1.0], rtol=1e-6)
  with pytest.raises(ValueError, match='clipping'):
    guidance.clip(plain, method='soft')


def test_downsampling():
  x = np.arange(16.0, dtype=np.float32).reshape(1, 1, 4, 4, 1)
  want = [[2.5, 4.5], [10.5, 12.5]]
  np.testing.assert_allclose(guidance.area(2)(x)[0, 0, :, :, 0], want)
  np.testing.assert_allclose(guidance.bilinear(2)(x)[0, 0, :, :, 0], want)
  assert guidance.area(4)(x).shape == guidance.bilinear(4)(x).shape
  # By four, bilinear reads the two by two pixels in the middle.
  x = np.random.default_rng(0).random((1, 1, 4, 4, 1)).astype(np.float32)
  np.testing.assert_allclose(
      guidance.bilinear(4)(x).ravel(), x[0, 0, 1:3, 1:3].mean(), rtol=1e-6
  )


def test_guidance_tends_to_the_exact_conditional_as_noise_vanishes():
  """With w_r = 1 the difference falls as e^(-5/2 lambda).

  x^a - x_hat^a is O(e^(-lambda / 2)) and enters x_hat^b by O(e^-lambda), which
  guidance takes away to first order.
  """
  slopes = gaussian_truth.approach((4.0, 6.0, 8.0, 10.0))
  assert np.all(slopes < -2.3), slopes


@pytest.mark.parametrize('weight', [0.0, 1.0, 2.0])
def test_conditional_samples_follow_the_recursion(weight):
  truth, known, mask = gaussian_truth.CONDITION.values()
  n, steps = 40_000, 48
  mean, cov = gaussian_truth.conditional_recursion(
      truth, known, mask, gaussian_truth.guided(truth, known, mask, weight),
      num_steps=steps,
  )
  frames = jnp.broadcast_to(column(known[None].astype(np.float32)),
                            (n, 3, 1, 1, 1))
  held = jnp.asarray(mask)[None]
  denoise = guidance.reconstruction(
      truth.denoise_fn, known=frames, known_mask=held, weight=weight
  )
  x = jax.jit(
      lambda key: sampling.sample(
          key, denoise, shape=(n, 3, 1, 1, 1), num_steps=steps, known=frames,
          known_mask=held,
      )
  )(jax.random.key(0))
  x = np.asarray(x, np.float64).reshape(n, 3)[:, 1:]
  spread = np.sqrt(np.diag(cov)[1:]).max()
  np.testing.assert_allclose(x.mean(0), mean[1:], atol=5 * spread / n**0.5)
  np.testing.assert_allclose(
      np.cov(x.T), cov[1:, 1:], atol=5 * np.sqrt(2 / n) * spread**2
  )


def test_guidance_is_nearer_to_the_exact_posterior_than_replacement():
  """The paper's effect, on the exact posterior's mean, 0.6."""
  truth, known, mask = gaussian_truth.CONDITION.values()
  want, _ = gaussian_truth.posterior(truth, known, mask)
  np.testing.assert_allclose(want, 0.6)
  error = {}
  for name, denoise_fn in (
      ('replacement', truth.denoise_fn),
      ('guidance', gaussian_truth.guided(truth, known, mask, 1.0)),
      ('twice', gaussian_truth.guided(truth, known, mask, 2.0)),
      ('exact', gaussian_truth.exact_conditional(truth, known, mask)),
  ):
    mean, _ = gaussian_truth.conditional_recursion(
        truth, known, mask, denoise_fn, num_steps=256
    )
    error[name] = np.abs(mean[1:] - want).max()
  assert error['guidance'] < 0.7 * error['replacement']
  assert error['twice'] < 0.7 * error['guidance']
  assert error['exact'] < 1e-3
