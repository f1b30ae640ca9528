"""The objectives of students, by hand."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import distillation
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import schedules
from video_diffusion.models import conditioning
from video_diffusion.models import unet3d
from video_diffusion.training import distill
from video_diffusion.training import step as step_lib

K, LARGEST = 1, 4.0
COMMON = dict(
    num_images=K, prediction='v', logsnr_fn=schedules.cosine_logsnr,
    cond_drop=0.5,
)


@pytest.fixture(scope='module')
def made(random_params):
  """(network that takes w, parameters, others, a batch)."""
  model = conditioning.ConditionalUNet(
      unet3d.UNet3D(
          base_channels=4, channel_mults=(1,), num_blocks=1,
          attention_resolutions=(), head_dim=4, emb_dim=8,
      ),
      conditioning.LabelEncoder(4, (3,)),
      max_guidance_weight=LARGEST,
  )
  rng = np.random.default_rng(0)
  batch = {
      'video': rng.integers(0, 256, (4, 3, 4, 4, 3), np.uint8),
      'labels': rng.integers(0, 3, (4, 1 + K, 1)).astype(np.int32),
  }
  params = random_params(
      model, step_lib.to_float(jnp.asarray(batch['video'])), jnp.zeros((4, 3)),
      condition={'labels': batch['labels']}, num_images=K,
  )['params']
  return model, params, jax.tree.map(lambda p: 0.9 * p, params), batch


@functools.partial(jax.jit, static_argnames='model')
def apply(model, params, batch, z, logsnr, keep, guidance_weight=0.0):
  return model.apply(
      {'params': params}, z, logsnr, condition={'labels': batch['labels']},
      keep=keep, num_images=K, guidance_weight=guidance_weight,
  )


def seen(known, video, z, logsnr):
  """z with clean known frames, and their log-SNR."""
  mask = np.reshape(known, (*known.shape, 1, 1, 1))
  return jnp.where(mask, video, z), jnp.where(known, 20.0, logsnr)


def unknown_mean(losses, known):
  """The mean over examples of the mean over their frames that are unknown."""
  return np.mean([
      own[~mask].mean()
      for own, mask in zip(np.asarray(losses), np.asarray(known), strict=True)
  ])


def test_one_network_learns_what_two_calls_give(made):
  """(1 + w) x_hat(c) - w x_hat(0) of a teacher in eps, clipped, in v.

  Reconstruction guidance by known frames, which the student sees clean, is
  between the two.
  """
  model, params, teacher, data = made
  draw_noise, loss_fn = distill.make_guided_loss(
      model, teacher_prediction='eps', reconstruction_weight=2.0, **COMMON
  )
  batch = draw_noise(jax.random.key(5), data)
  weight, logsnr = batch['guidance_weight'], batch['logsnr']
  video = step_lib.to_float(batch['video'])
  z = gaussian.diffuse(x=video, eps=batch['eps'], logsnr=logsnr)

  def guided(z, logsnr):
    given, null = (
        gaussian.x_from_eps(
            z=z, logsnr=logsnr,
            eps=apply(model, teacher, batch, z, logsnr, keep),
        ) for keep in (batch['keep'], np.zeros(4, bool))
    )
    w = weight.reshape(4, 1, 1, 1, 1)
    return (1 + w) * given - w * null

  known = batch['known']
  assert known.any() and not known.all() and not known[:, -K:].any()
  x = jnp.clip(guidance.reconstruction(
      guided, known=video, known_mask=known, weight=2.0
  )(z, logsnr), -1, 1)
  output = apply(
      model, params, batch, *seen(known, video, z, logsnr), batch['keep'],
      weight,
  )
  error = np.mean(
      (output - gaussian.v_from_x(z=z, x=x, logsnr=logsnr)) ** 2, (2, 3, 4)
  )
  weights = np.maximum(np.exp(logsnr), 1) / (1 + np.exp(logsnr))
  want = unknown_mean(weights * error, known)
  (got, metrics), gradient = jax.jit(
      jax.value_and_grad(loss_fn, has_aux=True)
  )(params, batch, None, teacher)
  np.testing.assert_allclose(got, want, rtol=1e-3)
  np.testing.assert_allclose(metrics['bucket_count'].sum(), np.sum(~known))
  np.testing.assert_allclose(
      metrics['bucket_sum'].sum(), np.sum(np.where(known, 0, error)), rtol=1e-3
  )
  assert np.abs(gradient['guidance']['layer_1']['kernel']).max() > 0


def test_the_weight_is_uniform_and_each_example_has_its_own(made):
  model, *_, data = made
  draw_noise, _ = distill.make_guided_loss(
      model, teacher_prediction='v', **COMMON
  )
  draw = jax.jit(lambda key: draw_noise(key, data)['guidance_weight'])
  weight = np.ravel([draw(jax.random.key(i)) for i in range(500)])
  assert 0 <= weight.min() < 0.05 and LARGEST - 0.05 < weight.max() <= LARGEST
  np.testing.assert_allclose(weight.mean(), LARGEST / 2, atol=0.1)  # 4 sigma
  np.testing.assert_allclose(weight.std(), LARGEST / 12**0.5, atol=0.08)


def test_the_weight_and_known_frames_do_not_depend_on_the_noise(made):
  """Each draw has a key of its own."""
  model, *_ = made
  b = 4000
  data = {
      'video': np.zeros((b, 3, 1, 1, 1), np.uint8),
      'labels': np.zeros((b, 1 + K, 1), np.int32),
  }
  for make, level in (
      (functools.partial(distill.make_loss, num_steps=4), 'index'),
      (functools.partial(distill.make_guided_loss, teacher_prediction='v'),
       'logsnr'),
  ):
    draw_noise, _ = make(model, reconstruction_weight=2.0, **COMMON)
    noisy = draw_noise(jax.random.key(0), data)
    drawn = [
        noisy['guidance_weight'], noisy['known'].any(1), noisy['keep'],
        noisy[level][:, 0], np.ravel(noisy['eps'])[:b],
    ]
    found = np.corrcoef(np.stack(drawn).astype(float))
    np.testing.assert_allclose(found, np.eye(5), atol=0.08)  # 5 sigma


def test_unguided_halving_draws_as_before(made):
  """The keys of level, noise and dropped conditions are split(key, 3)."""
  model, *_, data = made
  draw_noise, _ = distill.make_loss(
      model.clone(max_guidance_weight=0.0), num_steps=4, **COMMON
  )
  key = jax.random.key(5)
  noisy = draw_noise(key, data)
  keys = jax.random.split(key, 3)
  np.testing.assert_array_equal(noisy['index'], distillation.draw_index(
      keys[0], batch=4, num_frames=2, num_images=K, num_steps=4
  ))
  np.testing.assert_array_equal(
      noisy['eps'], jax.random.normal(keys[1], data['video'].shape)
  )
  np.testing.assert_array_equal(
      noisy['keep'], jax.random.bernoulli(keys[2], 0.5, (4,))
  )
  assert noisy.keys() == {*data, 'index', 'eps', 'keep'}


def test_a_network_without_a_weight_is_not_guided(made):
  """Its target is the teacher's x_hat in another prediction."""
  model, params, teacher, data = made
  model = model.clone(max_guidance_weight=0.0)
  draw_noise, loss_fn = distill.make_guided_loss(
      model, teacher_prediction='v', **COMMON | {'cond_drop': 0.0}
  )
  batch = draw_noise(jax.random.key(1), data)
  assert batch.keys() == {'video', 'labels', 'logsnr', 'eps'}
  logsnr, video = batch['logsnr'], step_lib.to_float(batch['video'])
  z = gaussian.diffuse(x=video, eps=batch['eps'], logsnr=logsnr)
  output, v = (
      apply(model, p, batch, z, logsnr, None) for p in (params, teacher)
  )
  x = jnp.clip(gaussian.x_from_v(z=z, v=v, logsnr=logsnr), -1, 1)
  wanted = gaussian.v_from_x(z=z, x=x, logsnr=logsnr)
  weights = np.maximum(np.exp(logsnr), 1) / (1 + np.exp(logsnr))
  want = np.mean(weights * np.mean((output - wanted) ** 2, (2, 3, 4)))
  got, _ = jax.jit(loss_fn)(params, batch, None, teacher)
  np.testing.assert_allclose(got, want, rtol=1e-3)


def test_a_halving_teacher_has_the_weight_and_known_frames_of_its_student(made):
  model, params, teacher, data = made
  draw_noise, loss_fn = distill.make_loss(
      model, num_steps=4, reconstruction_weight=2.0, **COMMON
  )
  batch = draw_noise(jax.random.key(5), data)
  weight = batch['guidance_weight']
  assert np.all((0 <= weight) & (weight <= LARGEST))
  assert len(np.unique(weight)) == 4
  levels = distillation.levels(batch['index'], 4, schedules.cosine_logsnr)
  video, known = step_lib.to_float(batch['video']), batch['known']
  assert known.any()
  z = gaussian.diffuse(x=video, eps=batch['eps'], logsnr=levels[0])

  def x_hat(z, logsnr):
    z, logsnr = seen(known, video, z, logsnr)
    output = apply(model, teacher, batch, z, logsnr, batch['keep'], weight)
    return gaussian.x_from_v(z=z, v=output, logsnr=logsnr)

  x = distillation.target(
      x_hat, z_t=z, logsnr_t=levels[0], logsnr_m=levels[1], logsnr_s=levels[2]
  )
  v = gaussian.v_from_x(z=z, x=x, logsnr=levels[0])
  output = apply(
      model, params, batch, *seen(known, video, z, levels[0]), batch['keep'],
      weight,
  )
  error = np.mean((output - v) ** 2, (2, 3, 4))
  weights = distillation.weight(levels[0], prediction='v')
  got, _ = jax.jit(loss_fn)(params, batch, None, teacher)
  np.testing.assert_allclose(
      got, unknown_mean(weights * error, known), rtol=1e-3
  )
