"""Attention pooling, the table, and captions as a U-Net's condition."""
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.models import conditioning
from video_diffusion.models import text_pooling
from video_diffusion.models import unet3d


def test_pooling_is_softmax_attention_by_its_definition(random_params):
  rng = np.random.default_rng(0)
  tokens = rng.standard_normal((2, 3, 5, 12)).astype(np.float32)
  mask = np.arange(5) < np.array([[1, 3, 5], [2, 4, 0]])[..., None]
  module = text_pooling.AttentionPooling(16)
  params = random_params(module, tokens, mask)
  got = module.apply(params, tokens, mask)
  p = params['params']
  x = np.where(mask[..., None], tokens, 0)
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * p['norm']['scale'] + p['norm']['bias']
  want, pooled = np.zeros((2, 3, 16)), np.zeros((2, 3, 8, 2))
  for i, j in np.ndindex(2, 3):
    n = mask[i, j].sum()
    for h in range(8 if n else 0):
      keys, values = (
          x[i, j, :n] @ p[name]['kernel'][:, h] for name in ('key', 'value')
      )
      logits = keys @ p['query'][h] / np.sqrt(2)
      weights = np.exp(logits) / np.exp(logits).sum()
      pooled[i, j, h] = weights @ values
    y = pooled[i, j].ravel()
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * p['norm_out']['scale']
    want[i, j] = (n > 0) * (y @ p['out']['kernel'])
  np.testing.assert_allclose(got, want, atol=1e-5)
  assert not np.any(got[1, 2])  # no token: exactly zero


def test_padding_has_no_effect_even_where_it_is_not_finite(random_params):
  tokens = np.ones((1, 2, 4, 8), np.float32)
  mask = np.array([[[True, True, False, False], [True] * 4]])
  module = text_pooling.AttentionPooling(8)
  params = random_params(module, tokens, mask)
  before = module.apply(params, tokens, mask)
  tokens[0, 0, 2:] = np.nan
  np.testing.assert_array_equal(module.apply(params, tokens, mask), before)


def make(random_params):
  unet = unet3d.UNet3D(
      base_channels=8, channel_mults=(1,), num_blocks=1,
      attention_resolutions=(), head_dim=8, emb_dim=16,
  )
  model = conditioning.ConditionalUNet(
      unet,
      conditioning.TextEncoder(8, length=4, token_dim=6, max_pieces=10),
  )
  z = jax.random.normal(jax.random.key(0), (1, 5, 4, 4, 3))
  condition = {
      'tokens': jnp.array([[[3, 4, 1, 0], [4, 3, 1, 0], [5, 1, 0, 0]]]),
      'mask': jnp.array([[[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]], bool),
  }
  logsnr = jnp.zeros((1, 5))
  params = random_params(model, z, logsnr, condition=condition, num_images=2)

  @jax.jit
  def apply(condition, keep=None):
    return model.apply(
        params, z, logsnr, condition=condition, keep=keep, num_images=2
    )

  return apply, condition, params


def test_captions_reach_their_own_frames_and_their_order_counts(random_params):
  apply, condition, params = make(random_params)
  assert params['params']['encoder']['table']['pieces'].shape == (10, 6)
  before = apply(condition)

  def changed(i, tokens):
    other = condition | {
        'tokens': condition['tokens'].at[0, i].set(jnp.array(tokens))
    }
    frames = np.asarray(before != apply(other))[0]
    return np.any(frames, axis=(1, 2, 3)).tolist()

  assert changed(0, [4, 3, 1, 0]) == [True, True, True, False, False]
  assert changed(2, [6, 1, 0, 0]) == [False] * 4 + [True]
  assert changed(2, [5, 1, 7, 8]) == [False] * 5  # behind the mask


def test_a_dropped_and_an_absent_caption_are_the_null_condition(random_params):
  apply, condition, _ = make(random_params)
  null = apply(None)
  np.testing.assert_array_equal(apply(condition, jnp.array([False])), null)
  absent = condition | {'mask': jnp.zeros_like(condition['mask'])}
  np.testing.assert_array_equal(apply(absent), null)
  assert np.all(np.any(np.asarray(apply(condition) != null), axis=(2, 3, 4)))
