import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import loss
from video_diffusion.diffusion import schedules

SHAPE = (2, 5, 4, 4, 3)


def draw(seed):
  return jax.random.normal(jax.random.key(seed), SHAPE)


def test_logsnr_is_shared_by_the_video_and_own_of_images():
  logsnr = loss.draw_logsnr(
      jax.random.key(0), batch=4, num_frames=3, num_images=2
  )
  assert logsnr.shape == (4, 5)
  assert np.all(logsnr[:, :3] == logsnr[:, :1])
  assert len(np.unique(logsnr)) == 4 * 3


def test_images_may_share_the_noise_of_the_video():
  logsnr = loss.draw_logsnr(
      jax.random.key(0), batch=4, num_frames=3, num_images=2, share=True
  )
  assert logsnr.shape == (4, 5)
  assert np.all(logsnr == logsnr[:, :1])


def test_a_share_of_the_videos_is_pure_noise():
  plain, noisy = (
      loss.draw_logsnr(
          jax.random.key(0), batch=4000, num_frames=3, num_images=2,
          pure_noise=share,
      )
      for share in (0.0, 0.3)
  )
  blind = noisy[:, 0] == -20.0
  assert abs(blind.mean() - 0.3) < 5 * np.sqrt(0.21 / 4000)
  want = np.where(blind[:, None] & (np.arange(5) < 3), -20.0, plain)
  np.testing.assert_array_equal(noisy, want)


def test_times_are_uniform():
  logsnr = loss.draw_logsnr(
      jax.random.key(0),
      batch=20_000,
      num_frames=1,
      num_images=0,
      logsnr_fn=lambda t: t,
  )
  counts, _ = np.histogram(logsnr, bins=10, range=(0, 1))
  assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize('prediction', loss.PREDICTIONS)
def test_the_exact_answer_has_no_loss_and_zero_has_the_targets(prediction):
  x, eps = draw(0), draw(1)
  logsnr = jnp.linspace(-5.0, 5.0, 10).reshape(2, 5)
  want = loss.target(x=x, eps=eps, logsnr=logsnr, prediction=prediction)
  args = dict(x=x, eps=eps, logsnr=logsnr, prediction=prediction)
  exact = loss.frame_losses(lambda z, logsnr: want, **args)
  np.testing.assert_array_equal(exact, np.zeros((2, 5)))
  zero = loss.frame_losses(lambda z, logsnr: jnp.zeros_like(z), **args)
  np.testing.assert_allclose(zero, (want**2).mean((2, 3, 4)), rtol=1e-6)


def test_the_network_sees_the_diffused_frames():
  x, eps, logsnr = draw(0), draw(1), jnp.linspace(-5.0, 5.0, 10).reshape(2, 5)
  seen = {}

  def network(z, logsnr):
    seen['z'], seen['logsnr'] = z, logsnr
    return z

  loss.frame_losses(network, x=x, eps=eps, logsnr=logsnr, prediction='eps')
  want = gaussian.diffuse(x=x, eps=eps, logsnr=logsnr)
  np.testing.assert_array_equal(seen['z'], want)
  np.testing.assert_array_equal(seen['logsnr'], logsnr)


@pytest.mark.parametrize('prediction', loss.PREDICTIONS)
def test_x_hat_inverts_the_target(prediction):
  x, eps = draw(0), draw(1)
  logsnr = jnp.linspace(-3.0, 3.0, 10).reshape(2, 5)
  z = gaussian.diffuse(x=x, eps=eps, logsnr=logsnr)
  output = loss.target(x=x, eps=eps, logsnr=logsnr, prediction=prediction)
  got = loss.x_hat(z=z, output=output, logsnr=logsnr, prediction=prediction)
  np.testing.assert_allclose(got, x, atol=1e-5)


@pytest.mark.parametrize('prediction', loss.PREDICTIONS)
def test_weights_are_those_of_the_error_of_x_hat(prediction):
  logsnr = jnp.linspace(-19.0, 19.0, 39)
  snr = np.exp(np.asarray(logsnr, np.float64))
  # The error of x_hat over that of what is predicted.
  ratio = {'eps': 1 / snr, 'v': 1 / (1 + snr), 'x': 1}[prediction]

  def weigh(weighting, **options):
    return loss.weight(
        logsnr, prediction=prediction, weighting=weighting, **options
    )

  np.testing.assert_array_equal(weigh('none'), 1)
  np.testing.assert_allclose(
      weigh('min_snr'), np.minimum(snr, 5) * ratio, rtol=1e-4
  )
  # -dlambda/dt of the shifted schedule, up to its constant factor.
  speed = np.cosh((np.log(snr) + 2) / 2)
  np.testing.assert_allclose(
      weigh('sigmoid', bias=-3.0, shift=-2.0),
      speed * ratio / (1 + np.exp(-3) / snr),
      rtol=1e-4,
  )


def test_the_speed_of_the_schedule_is_a_cosh():
  """`loss.weight` takes -dlambda/dt to be that, times a constant."""
  fn = lambda t: schedules.cosine_logsnr(t, shift=-2.0)
  t = jnp.linspace(0.05, 0.95, 19)
  speed = -jax.vmap(jax.grad(fn))(t)
  ratio = speed / jnp.cosh((fn(t) + 2.0) / 2)
  np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
