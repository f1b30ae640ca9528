import jax
import jax.numpy as jnp
import numpy as np
import optax

from video_diffusion.diffusion import rng
from video_diffusion.diffusion import schedules
from video_diffusion.models import conditioning
from video_diffusion.models import unet3d
from video_diffusion.training import optimizer
from video_diffusion.training import state as state_lib
from video_diffusion.training import step as step_lib

K = 1


def model():
  return conditioning.ConditionalUNet(
      unet3d.UNet3D(
          base_channels=4,
          channel_mults=(1,),
          num_blocks=1,
          attention_resolutions=(),
          head_dim=4,
          emb_dim=8,
      ),
      conditioning.LabelEncoder(4, (3,)),
  )


def batch():
  rng = np.random.default_rng(0)
  return {
      'video': rng.integers(0, 256, (2, 3 + K, 4, 4, 3), np.uint8),
      'labels': rng.integers(0, 3, (2, 1 + K, 1)).astype(np.int32),
  }


def test_streams_and_steps_have_their_own_keys():
  keys = [
      rng.stream_key(seed, stream, step)
      for seed in (0, 1)
      for stream in rng.STREAMS
      for step in (0, 1)
  ]
  data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
  assert len(data) == len(keys)


def test_to_float():
  x = step_lib.to_float(jnp.array([0, 51, 255], jnp.uint8))
  np.testing.assert_allclose(x, [-1.0, -0.6, 1.0], rtol=1e-6)


def test_logsnr_buckets():
  got = step_lib.logsnr_bucket(
      jnp.array([-20.0, -10.1, -9.9, 0.1, 19.0, 20.0]), -20.0, 20.0
  )
  np.testing.assert_array_equal(got.argmax(-1), [0, 0, 1, 2, 3, 3])
  np.testing.assert_array_equal(got.sum(-1), np.ones(6))


def test_init_compiles_no_forward_pass():
  shapes = jax.eval_shape(lambda: batch())
  init = jax.jit(lambda: state_lib.init_params(
      model(), shapes, num_images=K, seed=0
  ))
  text = init.lower().as_text()
  assert 'convolution' not in text and 'dot_general' not in text


def test_a_step_by_hand(random_params):
  """Loss, gradient, update, EMA and step against their definitions."""
  net, data = model(), batch()
  params = random_params(
      net, step_lib.to_float(jnp.asarray(data['video'])), jnp.zeros((2, 4)),
      condition={'labels': data['labels']}, num_images=K,
  )['params']
  draw_noise, loss_fn = step_lib.make_loss(
      net,
      num_images=K,
      prediction='v',
      logsnr_fn=schedules.cosine_logsnr,
      cond_drop=0.5,
      train=True,
  )
  sgd = optax.chain(optax.scale_by_schedule(lambda _: -0.1))
  step = jax.jit(
      step_lib.make_train_step(
          draw_noise,
          loss_fn,
          sgd,
          learning_rate=lambda _: 0.1,
          ema_decay=lambda n: 0.75,
          seed=7,
      )
  )
  state = state_lib.init_state(params, sgd)
  state = state.replace(step=jnp.int32(5))
  after, metrics = step(state, data)
  key = rng.stream_key(7, 'train', 5)
  noise_key, dropout_key = jax.random.split(key)
  (loss, _), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
      params, draw_noise(noise_key, data), dropout_key
  )
  assert after.step == 6
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(
      metrics['grad_norm'], optax.tree.norm(grads), rtol=1e-4
  )
  for old, grad, new, ema in zip(
      *map(jax.tree.leaves, (params, grads, after.params, after.ema_params)),
      strict=True,
  ):
    np.testing.assert_allclose(new, old - 0.1 * grad, atol=1e-5)
    np.testing.assert_allclose(ema, 0.75 * old + 0.25 * new, atol=1e-6)
  # The buckets are a split of the loss of all frames.
  np.testing.assert_allclose(metrics['bucket_count'].sum(), 2 * (3 + K))
  np.testing.assert_allclose(
      metrics['bucket_sum'].sum() / (2 * (3 + K)), loss, rtol=1e-5
  )
  _, again = step(state, data)
  assert again['loss'] == metrics['loss']
  _, later = step(state.replace(step=jnp.int32(6)), data)
  assert later['loss'] != metrics['loss']


def test_skipped_updates_hold_back_the_learning_rate_and_the_ema_decay():
  """What is logged is what the parameters and their average show."""
  learning_rate = optimizer.make_learning_rate(
      lr=0.8, warmup_steps=8, schedule='constant', decay_steps=0
  )
  # With betas of zero an update is the rate times the sign of the gradient.
  chain = optimizer.make_optimizer(
      learning_rate, beta1=0.0, beta2=0.0, eps=0.0, weight_decay=0.0,
      clip_norm=1e9,
  )
  decay = optimizer.make_ema_decay(decay=0.999, rule='ramp')
  step = jax.jit(
      step_lib.make_train_step(
          lambda key, batch: batch,
          lambda params, batch, key: ((params['w'] * batch['x']).sum(), {}),
          chain,
          learning_rate=learning_rate,
          ema_decay=decay,
          seed=0,
      )
  )
  state = state_lib.init_state({'w': jnp.zeros(3)}, chain)
  applied = 0
  for x in (1.0, np.nan, 2.0, np.inf, np.nan, 3.0, 1.0):
    before = state
    state, metrics = step(state, {'x': jnp.full(3, x)})
    moved = before.params['w'] - state.params['w']
    assert bool(metrics['skipped']) == (not np.isfinite(x))
    if metrics['skipped']:
      np.testing.assert_array_equal(moved, 0)
      np.testing.assert_array_equal(
          state.ema_params['w'], before.ema_params['w']
      )
      continue
    applied += 1
    np.testing.assert_allclose(moved, metrics['learning_rate'], rtol=1e-5)
    np.testing.assert_allclose(moved, 0.1 * applied, rtol=1e-5)
    share = (state.ema_params['w'] - before.ema_params['w']) / (
        state.params['w'] - before.ema_params['w']
    )
    np.testing.assert_allclose(share, 1 - applied / (9 + applied), rtol=1e-4)
  assert state.step == 7 and applied == 4
