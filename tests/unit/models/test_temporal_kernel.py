import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from video_diffusion.models import attention
from video_diffusion.models import temporal_kernel


def plain(qkv, bias):
  swap = lambda a: jnp.swapaxes(a, 1, 2)
  q, k, v = (swap(qkv[:, :, :, i]) for i in range(3))
  return swap(attention.attend(q, k, v, bias))


@pytest.mark.parametrize('frames, positions', [(16, 8), (8, 64), (4, 16)])
def test_the_kernel_is_attention_and_so_is_its_gradient(frames, positions):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  qkv = draw(2, frames, positions, 3, 2, 16)
  bias = draw(2, frames, frames)
  weight = draw(2, frames, positions, 2, 16)
  assert temporal_kernel.fits(frames, positions, 16)

  def loss(fn):
    return lambda qkv, bias: jnp.sum(weight * jnp.sin(fn(qkv, bias)))

  ours = lambda qkv, bias: temporal_kernel.attend(qkv, bias, True)
  np.testing.assert_allclose(ours(qkv, bias), plain(qkv, bias), atol=1e-5)
  got = jax.grad(loss(ours), argnums=(0, 1))(qkv, bias)
  want = jax.grad(loss(plain), argnums=(0, 1))(qkv, bias)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_what_does_not_fit():
  assert not temporal_kernel.fits(9, 64, 64)
  assert not temporal_kernel.fits(16, 6, 64)
  assert not temporal_kernel.fits(16, 64, 48)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from video_diffusion.parallel import sharding
from video_diffusion.models import temporal_kernel
qkv = jax.random.normal(jax.random.key(0), (8, 16, 4, 3, 2, 16))
bias = jax.random.normal(jax.random.key(1), (2, 16, 16))
kernel = lambda qkv, bias: temporal_kernel.attend(qkv, bias, True)
loss = lambda fn: lambda *args: jnp.sum(jnp.sin(fn(*args)))
grad = lambda fn: jax.jit(jax.grad(loss(fn), argnums=(0, 1)))
want = grad(kernel)(qkv, bias)
for model in (1, 2):
  mesh = sharding.make_mesh(model=model)
  sharded = jax.device_put(qkv, sharding.batch_sharding(mesh))
  with jax.set_mesh(mesh):
    mapped = sharding.map_batch(kernel, model_axes=(4, 0, 3))
    got = grad(mapped)(sharded, bias)
    out = jax.jit(mapped)(sharded, bias)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  # [batch, frames, positions, heads, head_dim] on each device.
  rows, _, _, heads, _ = out.addressable_shards[0].data.shape
  assert (rows, heads) == ((2, 2) if model == 1 else (4, 1))
  assert len(got[0].sharding.device_set) == jax.device_count() == 4
"""


def test_each_device_runs_it_on_its_own_rows_and_heads():
  environment = os.environ | {'JAX_NUM_CPU_DEVICES': '4'}
  done = subprocess.run(
      [sys.executable, '-c', SHARDED], env=environment, cwd=ROOT,
      capture_output=True, text=True, timeout=LIMIT,
  )
  assert done.returncode == 0, done.stderr
