import dataclasses
import math
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import ROOT
from video_diffusion.checkpoints import t5_weights
from video_diffusion.models import t5

T5 = ROOT.parent / 'shared' / 'data' / 't5'
GATED = t5.T5Config(
    vocab_size=50,
    dim=12,
    num_layers=2,
    num_heads=3,
    head_dim=5,
    mlp_dim=20,
    gated=True,
    activation='gelu_new',
    num_buckets=8,
    max_distance=20,
)
PLAIN = dataclasses.replace(GATED, gated=False, activation='relu')
IDS = np.random.default_rng(0).integers(2, 50, (3, 30)).astype(np.int32)
MASK = np.arange(30) < np.array([[30], [7], [1]])


@pytest.fixture(scope='module', params=[GATED, PLAIN], ids=['gated', 'plain'])
def model(request, random_params):
  params = random_params(t5.T5Encoder(request.param), IDS, MASK)['params']
  return request.param, params


def encode_by_hand(config, params, ids):
  """One sequence without padding, in float64 and loops, by the paper."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  n = len(ids)

  def norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

  def bucket(distance):
    half, exact = config.num_buckets // 2, config.num_buckets // 4
    size = abs(distance)
    if size >= exact:
      log = math.log(size / exact) / math.log(config.max_distance / exact)
      size = min(exact + int(log * (half - exact) + 1e-9), half - 1)
    return size + half * (distance > 0)

  encoder = params['encoder']
  table = encoder['relpos_bias']['rel_embedding']
  x = params['token_embedder']['embedding'][ids]
  for i in range(config.num_layers):
    layer = encoder[f'layers_{i}']
    y = norm(x, layer['pre_attention_layer_norm']['scale'])
    q, k, v = (
        y @ layer['attention'][name]['kernel']
        for name in ('query', 'key', 'value')
    )
    heads = []
    for h in range(config.num_heads):
      part = slice(h * config.head_dim, (h + 1) * config.head_dim)
      logits = q[:, part] @ k[:, part].T
      for a in range(n):
        for b in range(n):
          logits[a, b] += table[h, bucket(b - a)]
      weights = np.exp(logits - logits.max(-1, keepdims=True))
      heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    x = x + np.concatenate(heads, -1) @ layer['attention']['out']['kernel']
    y = norm(x, layer['pre_mlp_layer_norm']['scale'])
    mlp = {name: leaf['kernel'] for name, leaf in layer['mlp'].items()}
    if config.gated:
      y, gate = y @ mlp['wi_0'], y @ mlp['wi_1']
      cube = math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)
      y = 0.5 * y * (1 + np.tanh(cube)) * gate
    else:
      y = np.maximum(y @ mlp['wi'], 0)
    x = x + y @ mlp['wo']
  return norm(x, encoder['encoder_norm']['scale'])


def test_equals_the_paper_by_hand(model):
  config, params = model
  tokens = t5.make_encode(config, params)(IDS, MASK)
  assert tokens.dtype == np.float32 and tokens.shape == (3, 30, 12)
  for row, ids, mask in zip(tokens, IDS, MASK, strict=True):
    expected = encode_by_hand(config, params, ids[mask])
    np.testing.assert_allclose(row[mask], expected, atol=1e-5)


def test_padding_changes_nothing(model):
  config, params = model
  encode = t5.make_encode(config, params)
  tokens = encode(IDS, MASK)
  others = encode(np.where(MASK, IDS, 49 - IDS % 7), MASK)
  np.testing.assert_array_equal(others[MASK], tokens[MASK])
  short = encode(IDS[1:2, :9], MASK[1:2, :9])
  np.testing.assert_allclose(short[0, :7], tokens[1, :7], atol=1e-5)
  assert np.all(np.isfinite(tokens))


def test_all_products_are_float32_at_the_highest_precision(model):
  config, params = model
  encode = jax.jit(t5.T5Encoder(config).apply)
  program = encode.lower({'params': params}, IDS, MASK).as_text()
  products = [line for line in program.splitlines() if 'dot_general' in line]
  # Query, key, value, logits, their use, out, and the MLP's.
  assert len(products) == 2 * (6 + (3 if config.gated else 2))
  for line in products:
    assert 'precision = [HIGHEST, HIGHEST]' in line and 'bf16' not in line


def test_bfloat16_is_near(model):
  config, params = model
  exact = t5.make_encode(config, params)(IDS, MASK)[MASK]
  rough = t5.make_encode(config, params, jnp.bfloat16)(IDS, MASK)[MASK]
  error = np.sqrt(np.mean((rough - exact) ** 2) / np.mean(exact**2))
  assert 0 < error < 0.05


SHARED = '''
import pickle, sys
import jax
from video_diffusion.models import t5
config, params, ids, mask = pickle.load(open(sys.argv[1], 'rb'))
encode = t5.make_encode(config, params)
tokens = encode(ids, mask)
table = max(jax.live_arrays(), key=lambda x: x.size)
print(jax.device_count(), table.shape, table.sharding.shard_shape(table.shape))
pickle.dump(tokens, open(sys.argv[1], 'wb'))
'''


def test_devices_share_the_batch_and_the_large_arrays(random_params, tmp_path):
  config = dataclasses.replace(GATED, vocab_size=8192)
  params = random_params(t5.T5Encoder(config), IDS, MASK)['params']
  params = jax.tree.map(np.asarray, params)
  file = tmp_path / 'file'
  # Three captions, which four devices cannot share evenly.
  file.write_bytes(pickle.dumps((config, params, IDS, MASK)))
  run = subprocess.run(
      [sys.executable, '-c', SHARED, file], cwd=ROOT, capture_output=True,
      env=os.environ | {'JAX_NUM_CPU_DEVICES': '4'}, text=True,
  )
  assert run.stdout == '4 (8192, 12) (2048, 12)\n', run.stderr
  got = pickle.loads(file.read_bytes())
  expected = t5.make_encode(config, params)(IDS, MASK)
  assert got.shape == expected.shape
  np.testing.assert_allclose(got[MASK], expected[MASK], atol=1e-5)


def test_erf_and_tanh_gelu_differ(random_params):
  other = dataclasses.replace(GATED, activation='gelu')
  params = random_params(t5.T5Encoder(GATED), IDS, MASK)['params']
  a, b = (t5.make_encode(c, params)(IDS, MASK)[MASK] for c in (GATED, other))
  assert 1e-5 < np.abs(a - b).max() < 1e-2


@pytest.mark.skipif(not T5.exists(), reason='no reference of T5X')
@pytest.mark.parametrize(
    'name', ['test_t5_tiny.checkpoint_0', 't5x_zarr_tiny/checkpoint_0']
)
def test_equals_t5x_on_its_own_checkpoint(name):
  expected = np.load(T5 / 't5_tiny_expected.npz')
  ids = expected['token_ids']
  mask = ids > 0
  encode = t5.make_encode(*t5_weights.load_t5(T5 / name))
  np.testing.assert_allclose(
      encode(ids, mask)[mask], expected['encoder_out'][mask], atol=1e-5
  )
