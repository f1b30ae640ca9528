import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.models import blocks


def apply(module, *args):
  return module.apply(module.init(jax.random.key(0), *args), *args)


def test_resampling():
  x = jnp.arange(16.0).reshape(1, 1, 4, 4, 1)
  down = blocks.downsample(x)[0, 0, :, :, 0]
  np.testing.assert_array_equal(down, [[2.5, 4.5], [10.5, 12.5]])
  up = blocks.upsample(x)
  np.testing.assert_array_equal(up, x.repeat(2, 2).repeat(2, 3))
  np.testing.assert_array_equal(blocks.downsample(up), x)


def test_a_new_block_is_its_shortcut():
  x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 8))
  emb = jax.random.normal(jax.random.key(2), (2, 1, 16))
  for resample, want in (
      ('none', x),
      ('down', blocks.downsample(x)),
      ('up', blocks.upsample(x)),
  ):
    block = blocks.ResidualBlock(8, resample, 'add', 0.0, jnp.float32)
    np.testing.assert_array_equal(apply(block, x, emb, False), want)


@pytest.mark.parametrize('injection', blocks.INJECTIONS)
def test_the_embedding_reaches_the_output(injection):
  block = blocks.ResidualBlock(8, 'none', injection, 0.0, jnp.float32)
  x = jax.random.normal(jax.random.key(1), (2, 3, 4, 4, 8))
  emb = jax.random.normal(jax.random.key(2), (2, 3, 16))
  params = block.init(jax.random.key(0), x, emb, False)
  params['params']['conv_2']['kernel'] += 0.1
  before = block.apply(params, x, emb, False)
  after = block.apply(params, x, emb.at[0, 1].add(1.0), False)
  changed = np.any(np.asarray(before != after), axis=(2, 3, 4))
  np.testing.assert_array_equal(
      changed, [[False, True, False], [False, False, False]]
  )


@pytest.mark.parametrize('channels', [6, 48, 64])
def test_the_norm_is_flax_groupnorm_over_each_frame(random_params, channels):
  x = 3 + 2 * jax.random.normal(jax.random.key(1), (2, 3, 4, 4, channels))
  shift = jax.random.normal(jax.random.key(2), (2, 1, channels))
  groups = {6: 6, 48: 24, 64: 32}[channels]  # the largest divisor up to 32
  truth = blocks.nn.GroupNorm(num_groups=groups, reduction_axes=(-3, -2, -1))
  ours = blocks.GroupNorm(jnp.float32)
  params = random_params(ours, x)
  np.testing.assert_allclose(
      ours.apply(params, x, shift),
      truth.apply(params, x) + shift[:, :, None, None],
      atol=1e-5,
  )
  # Gradients as well: those of the parameters, sums up to 80, and of x.
  weigh = lambda module: jax.grad(
      lambda p, x: jnp.sum(jnp.sin(module.apply(p, x))), argnums=(0, 1)
  )(params, x)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-5),
      weigh(ours), weigh(truth),
  )


def test_norm_statistics_are_of_each_frame():
  norm = blocks.GroupNorm(jnp.float32)
  x = jax.random.normal(jax.random.key(1), (1, 2, 4, 4, 48))
  scaled = x.at[:, 1].multiply(100.0)
  np.testing.assert_array_equal(
      apply(norm, x)[:, 0], apply(norm, scaled)[:, 0]
  )


def test_logsnr_features_tell_the_whole_range_apart():
  embedding = blocks.Embedding(32, 64, 2, jnp.float32)
  logsnr = jnp.linspace(-20.0, 20.0, 41)[:, None]
  emb = np.asarray(apply(embedding, logsnr, None))[:, 0]
  distance = np.linalg.norm(emb[1:] - emb[:-1], axis=-1)
  # u saturates at both ends, where the noise level hardly changes either.
  assert np.all(distance[8:-8] > 1e-2)
  assert np.all(np.isfinite(emb))


def test_a_zero_condition_is_no_condition():
  embedding = blocks.Embedding(32, 64, 3, jnp.float32)
  logsnr, cond = jnp.zeros((2, 1)), jnp.ones((2, 1, 8))
  params = embedding.init(jax.random.key(0), logsnr, cond)
  none = embedding.apply(params, logsnr, None)
  np.testing.assert_array_equal(
      embedding.apply(params, logsnr, 0 * cond), none
  )
  assert np.any(embedding.apply(params, logsnr, cond) != none)
  layers = [name for name in params['params'] if name.startswith('layer_')]
  assert len(layers) == 3


@pytest.mark.parametrize('zero', [False, True])
def test_the_convolution_is_flax_conv_of_each_frame(zero, random_params):
  """Values, gradients and first parameters, alone and in a scan."""
  x = jax.random.normal(jax.random.key(1), (2, 3, 6, 4, 5))
  ours = blocks.SpaceConv(7, jnp.float32, zero=zero)
  inits = blocks.nn.initializers
  init = inits.zeros if zero else inits.lecun_normal()
  truth = blocks.nn.Conv(7, (3, 3), kernel_init=init)
  jax.tree.map(
      np.testing.assert_array_equal,
      ours.init(jax.random.key(0), x), truth.init(jax.random.key(0), x[:, 0]),
  )
  params = random_params(ours, x)

  def loss(module, params, x):
    flat = x.reshape(6, 6, 4, 5) if module is truth else x
    return jnp.sum(jnp.sin(module.apply(params, flat)))

  def scanned(params, x):
    return jax.lax.scan(
        lambda total, _: (total + loss(ours, params, x) / 4, None), 0.0,
        length=4,
    )[0]

  close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5)
  want = jax.value_and_grad(lambda *a: loss(truth, *a), (0, 1))(params, x)
  got = jax.value_and_grad(lambda *a: loss(ours, *a), (0, 1))(params, x)
  jax.tree.map(close, got, want)
  jax.tree.map(close, jax.jit(jax.value_and_grad(scanned, (0, 1)))(params, x),
               want)


@pytest.mark.parametrize('zero', [False, True])
def test_the_full_convolution_is_flax_conv_of_the_video(zero, random_params):
  """Values, gradients and first parameters; images are videos of one frame."""
  x = jax.random.normal(jax.random.key(1), (2, 6, 6, 4, 5))
  ours = blocks.Conv3D(7, jnp.float32, zero=zero)
  inits = blocks.nn.initializers
  init = inits.zeros if zero else inits.lecun_normal()
  truth = blocks.nn.Conv(7, (3, 3, 3), kernel_init=init)
  jax.tree.map(
      np.testing.assert_array_equal,
      ours.init(jax.random.key(0), x), truth.init(jax.random.key(0), x),
  )
  params = random_params(ours, x)

  def want(params, x):
    parts = [x[:, :4], x[:, 4:5], x[:, 5:]]
    return [truth.apply(params, part) for part in parts]

  def got(params, x):
    y = ours.apply(params, x, 2)
    return [y[:, :4], y[:, 4:5], y[:, 5:]]

  def outcome(fn):
    loss = lambda *args: sum(jnp.sum(jnp.sin(y)) for y in fn(*args))
    return fn(params, x), jax.grad(loss, (0, 1))(params, x)

  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
      jax.jit(lambda: outcome(got))(), jax.jit(lambda: outcome(want))(),
  )


def test_in_a_loop_on_a_cpu_convolutions_are_of_the_fast_layout():
  """Gradients too: XLA's other CPU convolution takes several times as long."""
  if jax.default_backend() != 'cpu':
    pytest.skip('the layout is that of CPUs')
  x = jnp.ones((2, 8, 8, 4))
  kernel = jnp.ones((3, 3, 4, 4))

  def run(x, kernel):
    def step(carry, _):
      x, kernel = carry
      grads = jax.grad(
          lambda *a: jnp.sum(jnp.sin(blocks.conv_3x3(*a))), (0, 1)
      )(x, kernel)
      return grads, None

    return jax.lax.scan(step, (x, kernel), length=3)[0]

  hlo = jax.jit(run).lower(x, kernel).compile().as_text()
  found = set(re.findall(r' convolution\(.*dim_labels=(\S+?),? ', hlo))
  assert found == {'b01f_01io->b01f'}
