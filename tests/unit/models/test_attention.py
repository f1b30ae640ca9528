import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.models import attention
from video_diffusion.models import blocks


def test_joint_mask():
  want = [
      [1, 1, 1, 0, 0],
      [1, 1, 1, 0, 0],
      [1, 1, 1, 0, 0],
      [0, 0, 0, 1, 0],
      [0, 0, 0, 0, 1],
  ]
  np.testing.assert_array_equal(attention.joint_mask(3, 2), want)
  np.testing.assert_array_equal(attention.joint_mask(0, 3), np.eye(3))
  np.testing.assert_array_equal(attention.joint_mask(2, 0), np.ones((2, 2)))


def test_relative_buckets():
  buckets = attention.relative_buckets(300)
  assert buckets.min() == 0 and buckets.max() == 31
  # Exact to distance 7 on either side, then coarser, then one for all.
  np.testing.assert_array_equal(buckets[7::-1, 0][:8], np.arange(7, -1, -1))
  np.testing.assert_array_equal(buckets[0, 1:8], 16 + np.arange(1, 8))
  assert buckets[8, 0] == 8 and buckets[127, 0] == buckets[299, 0] == 15
  assert np.all(np.diff(buckets[:, 0]) >= 0)
  # Of the distance alone: no absolute frame index.
  np.testing.assert_array_equal(buckets[5, 5:50], buckets[100, 100:145])
  np.testing.assert_array_equal(
      attention.relative_buckets(9), buckets[:9, :9]
  )


def test_attend_is_softmax_attention():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 4, 8))
  bias = jax.random.normal(jax.random.key(1), (4, 5, 5))
  got = attention.attend(q, k, v, bias)
  for n in range(2):
    for h in range(4):
      logits = np.asarray(q[n, :, h] @ k[n, :, h].T) / np.sqrt(8) + bias[h]
      weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
      np.testing.assert_allclose(got[n, :, h], weights @ v[n, :, h], atol=1e-5)


@pytest.mark.parametrize('num_frames, num_images', [(4, 0), (4, 3), (0, 3)])
def test_temporal_attention_equals_full_attention_under_joint_mask(
    num_frames, num_images, random_params
):
  module = attention.TemporalAttention(head_dim=4, dtype=jnp.float32)
  f = num_frames + num_images
  x = jax.random.normal(jax.random.key(2), (2, f, 3, 3, 8))
  params = random_params(module, x, num_images)
  got = module.apply(params, x, num_images)

  def masked_attend(q, k, v, bias):
    """All frames under the mask; the bias of the video reaches only itself."""
    mask = attention.joint_mask(num_frames, num_images)
    return attention.attend(q, k, v, jnp.where(mask, bias, -1e30))

  p = params['params']

  class Reference(nn.Module):

    @nn.compact
    def __call__(self, x):
      b, f, h, w, c = x.shape
      y = blocks.GroupNorm(jnp.float32, name='norm')(x)
      y = jnp.swapaxes(y.reshape(b, f, h * w, c), 1, 2)
      qkv = nn.DenseGeneral((3, 2, 4), name='qkv')(y)
      table = self.param('relative_bias', nn.initializers.zeros, (32, 2))
      bias = jnp.moveaxis(table[attention.relative_buckets(f)], -1, 0)
      y = masked_attend(qkv[..., 0, :, :], qkv[..., 1, :, :],
                        qkv[..., 2, :, :], bias)
      y = nn.DenseGeneral(c, axis=(-2, -1), name='out')(y)
      return x + jnp.swapaxes(y, 1, 2).reshape(b, f, h, w, c)

  want = Reference().apply({'params': p}, x)
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_clipped_distances():
  index = attention.clipped_distances(40)
  assert index.min() == 0 and index.max() == 32
  # Exact to 16 on either side, then one for all.
  np.testing.assert_array_equal(index[0, :17], 16 + np.arange(17))
  np.testing.assert_array_equal(index[:17, 0], 16 - np.arange(17))
  assert np.all(index[0, 16:] == 32) and np.all(index[16:, 0] == 0)
  np.testing.assert_array_equal(attention.clipped_distances(9), index[:9, :9])


@pytest.mark.parametrize('position', ['shaw', 'shaw_exact'])
def test_which_distances_share_a_vector(position, random_params):
  """Frames that share one can trade places without the first one's notice."""
  module = attention.TemporalAttention(
      head_dim=4, dtype=jnp.float32, position=position
  )
  x = jax.random.normal(jax.random.key(2), (1, 20, 2, 2, 8))
  params = random_params(module, x, 0)
  before = module.apply(params, x, 0)[:, 0]

  def notices(i, j):
    order = np.arange(20)
    order[[i, j]] = j, i
    after = module.apply(params, x[:, order], 0)[:, 0]
    return np.abs(after - before).max() > 1e-4

  alike = [(8, 11), (12, 15)] if position == 'shaw' else [(16, 17), (16, 19)]
  assert not any(notices(i, j) for i, j in alike)
  assert notices(6, 7) and notices(7, 8)
  assert notices(8, 11) == (position == 'shaw_exact')


@pytest.mark.parametrize('num_frames, num_images', [(4, 0), (4, 3), (0, 3)])
@pytest.mark.parametrize('position', ['shaw', 'shaw_exact', 'both'])
def test_shaw_attention_equals_its_equations(
    position, num_frames, num_images, random_params
):
  module = attention.TemporalAttention(
      head_dim=4, dtype=jnp.float32, position=position
  )
  f = num_frames + num_images
  x = jax.random.normal(jax.random.key(2), (2, f, 2, 2, 8))
  params = random_params(module, x, num_images)
  got = module.apply(params, x, num_images)
  p = jax.tree.map(np.asarray, params['params'])
  y = blocks.GroupNorm(jnp.float32).apply({'params': p['norm']}, x)
  qkv = np.einsum('bfhwc,cnad->bfhwnad', y, p['qkv']['kernel'])
  q, k, v = np.moveaxis(qkv + p['qkv']['bias'], 4, 0)
  mask = attention.joint_mask(num_frames, num_images)
  index = {
      'shaw': attention.relative_buckets,
      'shaw_exact': attention.clipped_distances,
      'both': attention.clipped_distances,
  }[position](f)
  out = np.zeros_like(v)
  for i in range(f):
    logits = np.full((f, *q.shape[:1], *q.shape[2:5]), -np.inf)
    for j in np.flatnonzero(mask[i]):
      key = k[:, j] + p['relative_keys'][index[i, j]]
      logits[j] = (q[:, i] * key).sum(-1) / 2
      if position == 'both':
        logits[j] += p['relative_bias'][index[i, j]]
    weights = np.exp(logits - logits.max(0))
    weights /= weights.sum(0)
    for j in range(f):
      value = v[:, j] + p['relative_values'][index[i, j]]
      out[:, i] += weights[j][..., None] * value
  want = x + p['out']['bias']
  want += np.einsum('bfhwad,adc->bfhwc', out, p['out']['kernel'])
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_relative_bias_matters_and_starts_at_zero(random_params):
  module = attention.TemporalAttention(head_dim=4, dtype=jnp.float32)
  x = jax.random.normal(jax.random.key(2), (1, 5, 2, 2, 8))
  params = module.init(jax.random.key(0), x, 0)
  assert not np.any(params['params']['relative_bias'])
  np.testing.assert_array_equal(module.apply(params, x, 0), x)
  params = random_params(module, x, 0)
  other = jax.tree.map(lambda p: p, params)
  other['params']['relative_bias'] = -params['params']['relative_bias']
  change = module.apply(params, x, 0) - module.apply(other, x, 0)
  assert np.abs(change).max() > 1e-3


def test_spatial_attention_keeps_frames_apart(random_params):
  module = attention.SpatialAttention(head_dim=4, dtype=jnp.float32)
  x = jax.random.normal(jax.random.key(2), (1, 3, 4, 4, 8))
  params = random_params(module, x)
  changed = module.apply(params, x.at[:, 1].add(1.0)[:, :])
  before = module.apply(params, x)
  assert np.all(changed[:, [0, 2]] == before[:, [0, 2]])
  assert np.any(changed[:, 1] != before[:, 1])


def test_spacetime_attention_by_its_definition(random_params):
  """Each position attends to all of the video; images to their own frame."""
  t, k, h, w, c = 2, 2, 2, 3, 8
  x = jax.random.normal(jax.random.key(0), (2, t + k, h, w, c))
  module = attention.SpatialAttention(8, jnp.float32, spacetime=True)
  params = random_params(module, x)
  got = module.apply(params, x, k) - x
  p = params['params']
  norm = blocks.GroupNorm(jnp.float32).apply({'params': p['norm']}, x)
  qkv = jnp.einsum('bfhwc,cind->bfhwind', norm, p['qkv']['kernel'])
  qkv = (qkv + p['qkv']['bias']).reshape(2, -1, 3, 1, 8)

  def turned(frames, positions):
    return attention.rotate(positions, frames, h, w)

  for first, frames in ((0, t), (t, 1), (t + 1, 1)):
    part = slice(first * h * w, (first + frames) * h * w)
    q, keys, v = jnp.moveaxis(turned(frames, qkv[:, part])[:, :, :, 0], 2, 0)
    weights = jax.nn.softmax(jnp.einsum('bqd,bkd->bqk', q, keys) / 8**0.5)
    want = jnp.einsum('bqk,bkd,dc->bqc', weights, v, p['out']['kernel'][0])
    np.testing.assert_allclose(
        got[:, first : first + frames].reshape(want.shape),
        want + p['out']['bias'], atol=2e-5,
    )


def test_rotary_logits_depend_on_distances_alone():
  """Equal queries and keys everywhere: one logit for each distance."""
  q, k = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
  frames, h, w = 3, 4, 5
  qkv = np.broadcast_to(
      np.stack([q, k, k])[:, None], (1, frames * h * w, 3, 1, 16)
  )
  turned = np.asarray(attention.rotate(jnp.asarray(qkv), frames, h, w))
  np.testing.assert_array_equal(turned[:, :, 2], qkv[:, :, 2])
  q, k = (turned[0, :, i, 0].reshape(frames, h, w, 16) for i in range(2))
  logits = np.einsum('abcd,xyzd->abcxyz', q, k)
  np.testing.assert_allclose(
      logits[1:, 1:, 1:, 1:, 1:, 1:], logits[:-1, :-1, :-1, :-1, :-1, :-1],
      atol=1e-5,
  )
  # Each axis tells one side from the other, and near from far.
  for axis in range(3):
    row = np.moveaxis(logits[1, 1, 1], axis, 0)[:, 1, 1]
    assert len(set(row.round(4))) == len(row)
