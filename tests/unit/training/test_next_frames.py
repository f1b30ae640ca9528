import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import schedules
from video_diffusion.training import distill
from video_diffusion.training import next_frames
from video_diffusion.training import step

T, K, J = 4, 2, 3


def batch(size=64):
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (size, T + K, 2, 2, 3), np.uint8)
  return {'video': jnp.asarray(video)}


def test_an_example_ends_with_frames_of_its_own_video():
  data = batch()
  append = lambda key: next_frames.appended(
      jax.random.key(key), data, num_frames=T, next_frames=J
  )
  video, places = append(0)['video'], append(0)['places']
  np.testing.assert_array_equal(video[:, : T + K], data['video'])
  for i in range(J):
    np.testing.assert_array_equal(
        video[:, T + K + i], data['video'][np.arange(64), places[:, i]]
    )
  # The first frame has none before it, and images are of other videos.
  assert set(np.unique(places)) == {1, 2, 3}
  assert np.any(append(1)['places'] != places)
  assert next_frames.appended(
      jax.random.key(0), data, num_frames=T, next_frames=0
  ) is data


class Network:
  """Stands in for the network: it notes what it is asked."""

  max_guidance_weight = 0.0

  class context:
    frames = 2

  def condition_of(self, batch):
    del batch
    return None

  def apply(self, variables, z, logsnr, *, num_images, previous, **options):
    self.asked = dict(logsnr=logsnr, num_images=num_images, previous=previous)
    return variables['params'] * z


def loss_of_next(noisy):
  """The loss of the stand-in on the last J frames, by its definition."""
  x = step.to_float(noisy['video'][:, -J:])
  alpha, sigma = (
      scale[:, -J:, None, None, None]
      for scale in gaussian.alpha_sigma(noisy['logsnr'])
  )
  eps = noisy['eps'][:, -J:]
  z = alpha * x + sigma * eps
  return jnp.mean((0.1 * z - (alpha * eps - sigma * x)) ** 2)


def test_they_have_noise_of_their_own_and_clean_frames_before():
  network, data = Network(), batch()
  common = dict(
      num_images=K, prediction='v', logsnr_fn=schedules.cosine_logsnr,
      next_frames=J,
  )
  for made, more in (
      (step.make_loss(network, **common), {}),
      (distill.make_loss(network, num_steps=4, **common), {'teacher': 0.5}),
      (distill.make_guided_loss(
          network, teacher_prediction='eps', **common
      ), {'teacher': 0.5}),
  ):
    draw_noise, loss_fn = made
    noisy = draw_noise(jax.random.key(0), data)
    loss, metrics = loss_fn(0.1, noisy, None, **more)
    assert np.isfinite(loss) and metrics['bucket_count'].sum() == 64 * (
        T + K + J
    )
    own = next_frames.mean_loss([metrics, metrics])['loss_next']
    assert metrics['next_count'] == 64 * J and own > 0
    if not more:
      np.testing.assert_allclose(own, loss_of_next(noisy), rtol=1e-5)
    level, (frames, mask) = network.asked['logsnr'], network.asked['previous']
    assert level.shape == (64, T + K + J)
    assert network.asked['num_images'] == K + J
    assert np.all(level[:, :T] == level[:, :1])
    for i in range(T, T + K + J):
      same = np.mean(level[:, i : i + 1] == np.delete(level, i, axis=1), axis=0)
      assert same.max() < 0.6  # the students' levels are a few
    for row in range(64):
      for i, place in enumerate(noisy['places'][row]):
        before = data['video'][row, max(0, place - 2) : place]
        assert mask[row, i].sum() == len(before)
        np.testing.assert_array_equal(
            frames[row, i, -len(before) :], step.to_float(before)
        )


def test_they_are_never_known():
  network, data = Network(), batch()
  common = dict(
      num_images=K, prediction='v', logsnr_fn=schedules.cosine_logsnr,
      next_frames=J, reconstruction_weight=2.0,
  )
  for draw_noise, _ in (
      distill.make_loss(network, num_steps=4, **common),
      distill.make_guided_loss(network, teacher_prediction='v', **common),
  ):
    known = draw_noise(jax.random.key(0), data)['known']
    assert known.shape == (64, T + K + J)
    assert known[:, :T].any() and not known[:, T:].any()
