import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import distillation
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import loss
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.diffusion import schedules

VARIANCE = 0.3  # of the data, N(0, VARIANCE)


def denoise(z, logsnr):
  """The exact E[x | z] of such data."""
  alpha, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
  return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * z


def at(index, num_steps):
  names = ('logsnr_t', 'logsnr_m', 'logsnr_s')
  found = distillation.levels(index, num_steps, schedules.cosine_logsnr)
  return dict(zip(names, found, strict=True))


@pytest.mark.parametrize('num_steps', [1, 2, 8, 512])
def test_one_step_of_the_target_is_two_of_the_teacher(num_steps):
  index = jnp.array([1, max(1, num_steps // 2), num_steps])
  z = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 3))
  levels = at(index, num_steps)
  x = distillation.target(denoise, z_t=z, **levels)
  got, _ = samplers.ddim_step(
      z_t=z, x=x, logsnr_t=levels['logsnr_t'], logsnr_s=levels['logsnr_s'],
      eta=0.0,
  )
  want = z
  for before, after in (('logsnr_t', 'logsnr_m'), ('logsnr_m', 'logsnr_s')):
    want, _ = samplers.ddim_step(
        z_t=want, x=denoise(want, levels[before]),
        logsnr_t=levels[before], logsnr_s=levels[after], eta=0.0,
    )
  np.testing.assert_allclose(got, want, atol=1e-5)
  assert np.isfinite(x).all()


def scale(level):
  """alpha and sigma in float64, by their definition."""
  return 1 / np.sqrt(1 + np.exp(-level)), 1 / np.sqrt(1 + np.exp(level))


def factor(before, after):
  """What a DDIM step of the exact denoiser multiplies z by."""
  (alpha, sigma), (alpha_s, sigma_s) = scale(before), scale(after)
  slope = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
  return alpha_s * slope + sigma_s / sigma * (1 - alpha * slope)


@pytest.mark.parametrize('num_steps', [2, 8])
def test_the_exact_student_of_an_exact_teacher(num_steps):
  """It is linear in z, by the two-step product of the teacher in float64."""
  for index in range(1, num_steps + 1):
    levels = at(jnp.array([index]), num_steps)
    t, m, s = (np.float64(level[0]) for level in levels.values())
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scale(t), scale(s)
    ratio = sigma_s / sigma_t
    want = (factor(t, m) * factor(m, s) - ratio) / (alpha_s - ratio * alpha_t)
    z = jnp.full((1, 1, 1, 1, 1), 2.0)
    got = distillation.target(denoise, z_t=z, **levels)
    np.testing.assert_allclose(got, 2.0 * want, rtol=1e-5)


def test_a_student_that_knows_the_answer_samples_as_its_teacher():
  num_steps = 4

  def student(z, logsnr):
    times = jnp.arange(1, num_steps + 1)
    grid = distillation.levels(times, num_steps, schedules.cosine_logsnr)
    index = times[jnp.argmin(jnp.abs(grid[0] - logsnr[:1]))]
    return distillation.target(
        denoise, z_t=z, **at(jnp.broadcast_to(index, logsnr.shape), num_steps)
    )

  kwargs = dict(shape=(2, 3, 2, 2, 3), sampler='ddim', eta=0.0)
  key = jax.random.key(3)
  got = sampling.sample(key, student, num_steps=num_steps, **kwargs)
  want = sampling.sample(key, denoise, num_steps=2 * num_steps, **kwargs)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_perfect_teacher_is_its_own_student_at_a_point():
  """Data that are one point: both of the teacher's x_hat are that point."""
  point = jnp.full((2, 1, 2, 2, 3), 0.7)
  levels = at(jnp.array([1, 3]), 3)
  z = jax.random.normal(jax.random.key(1), point.shape)
  got = distillation.target(lambda z, logsnr: point, z_t=z, **levels)
  np.testing.assert_allclose(got, point, rtol=1e-6)


def test_steps_are_drawn_alike_and_images_have_their_own():
  draw = lambda share: np.asarray(distillation.draw_index(
      jax.random.key(0), batch=4000, num_frames=3, num_images=2, num_steps=4,
      share=share,
  ))
  index = draw(False)
  assert index.shape == (4000, 5)
  assert np.all(index[:, :3] == index[:, :1])
  for frame in (0, 3, 4):
    counts = np.bincount(index[:, frame], minlength=6)
    assert counts[[0, 5]].sum() == 0
    np.testing.assert_allclose(counts[1:5], 1000, atol=120)  # 4.4 sigma
  assert abs(np.corrcoef(index[:, 0], index[:, 3])[0, 1]) < 0.07
  assert np.all(draw(True) == draw(True)[:, :1])


def test_known_frames_are_the_first_the_last_anywhere_or_every_kth():
  known = np.asarray(distillation.draw_known(
      jax.random.key(0), batch=8000, num_frames=4
  ))
  patterns, counts = np.unique(known, axis=0, return_counts=True)
  share = {
      ''.join('.K'[frame] for frame in pattern): count / 8000
      for pattern, count in zip(1 * patterns, counts, strict=True)
  }
  # Half have none, and an eighth each kind. The first, the last and those at
  # random places are one, two or three; every second or third is known.
  any_of = {1: 1 / 4, 2: 1 / 6, 3: 1 / 4}
  want = {'....': 1 / 2}
  for code in range(1, 15):
    pattern = f'{code:04b}'.replace('0', '.').replace('1', 'K')
    n = pattern.count('K')
    kinds = (
        (pattern == 'K' * n + '.' * (4 - n)) / 3,
        (pattern == '.' * (4 - n) + 'K' * n) / 3,
        any_of[n] / 3,
        (pattern in ('K.K.', 'K..K')) / 2,
    )
    want[pattern] = sum(kinds) / 8
  assert share.keys() == want.keys()
  for pattern, part in want.items():
    np.testing.assert_allclose(share[pattern], part, atol=0.02)
  short = distillation.draw_known(jax.random.key(0), batch=64, num_frames=2)
  assert np.all(short.sum(1) <= 1)


@pytest.mark.parametrize('prediction', loss.PREDICTIONS)
def test_the_weight_is_that_of_x_hat(prediction):
  """max(SNR, 1) (x error)^2 = weight (error of the prediction)^2."""
  logsnr = jnp.linspace(-10.0, 10.0, 9)
  z, x, error = jnp.ones((3, 9, 1, 1, 1, 1)) * jnp.array(
      [0.5, 0.2, 0.1]
  ).reshape(3, 1, 1, 1, 1, 1)
  change, before = (
      distillation.output_of(
          z=z, x=x_hat, logsnr=logsnr, prediction=prediction
      ) for x_hat in (x + error, x)
  )
  np.testing.assert_allclose(
      loss.x_hat(z=z, output=before, logsnr=logsnr, prediction=prediction), x,
      rtol=2e-3,
  )
  change = change - before
  got = distillation.weight(logsnr, prediction=prediction) * (
      change.reshape(-1) ** 2
  )
  want = np.maximum(np.exp(logsnr), 1.0) * 0.1**2
  np.testing.assert_allclose(got, want, rtol=2e-3)


@pytest.mark.parametrize('prediction', ['v', 'x'])
def test_at_continuous_times_no_noise_level_has_all_of_the_weight(prediction):
  logsnr = schedules.cosine_logsnr((jnp.arange(10**5) + 0.5) / 10**5)
  weight = distillation.guided_weight(logsnr, prediction=prediction)
  assert weight.mean() < 50
  assert weight[:1000].sum() < 0.3 * weight.sum()  # t < 0.01
  small = jnp.where(logsnr < 6, logsnr, 0.0)
  np.testing.assert_array_equal(
      distillation.guided_weight(small, prediction=prediction),
      distillation.weight(small, prediction=prediction),
  )


def test_the_v_of_a_teacher_that_predicts_eps():
  """An exact one gives v exactly; at t = 1 an error of eps stays bounded."""
  logsnr = jnp.array([-20.0, -6.0, 0.0, 6.0])
  z = jnp.full((4, 1, 1, 1, 1), 0.4)
  alpha, sigma = (
      np.reshape(a, z.shape) for a in scale(np.float64(logsnr))
  )
  scaled = np.float64(z) / (alpha**2 * VARIANCE + sigma**2)

  def v_of(error):
    clipped = guidance.clip(lambda z, logsnr: loss.x_hat(
        z=z, output=jnp.float32(sigma * scaled) + error, logsnr=logsnr,
        prediction='eps',
    ))
    return distillation.output_of(
        z=z, x=clipped(z, logsnr), logsnr=logsnr, prediction='v'
    )

  exact = alpha * sigma * (1 - VARIANCE) * scaled
  np.testing.assert_allclose(v_of(0.0)[1:], exact[1:], atol=1e-5)
  np.testing.assert_allclose(v_of(0.0)[0], exact[0], atol=2e-3)
  # x_hat is 1e-3 / alpha = 22 off before it is clipped.
  np.testing.assert_allclose(v_of(1e-3)[0], 1.0, atol=1e-4)
