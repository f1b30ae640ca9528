import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from video_diffusion.training import optimizer

ADAM = dict(beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0, clip_norm=1.0)


def learning_rate(**fields):
  options = dict(lr=2.0, warmup_steps=4, schedule='constant', decay_steps=0)
  return optimizer.make_learning_rate(**(options | fields))


def test_learning_rates():
  np.testing.assert_allclose(
      [learning_rate()(i) for i in range(6)], [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
  )
  cosine = learning_rate(schedule='cosine', decay_steps=24)
  np.testing.assert_allclose(
      [cosine(i) for i in (3, 4, 14, 24, 30)], [2, 2, 1, 0, 0], atol=1e-6
  )
  assert learning_rate(warmup_steps=0)(0) == 2.0


def test_bad_schedules():
  with pytest.raises(ValueError, match='^schedule is'):
    learning_rate(schedule='linear')
  with pytest.raises(ValueError, match='^decay_steps is'):
    learning_rate(schedule='cosine', decay_steps=4)
  with pytest.raises(ValueError, match='^rule is'):
    optimizer.make_ema_decay(decay=0.9, rule='none')


def test_adam_by_hand_with_clip_and_decoupled_decay():
  fields = ADAM | dict(weight_decay=0.1)
  opt = optimizer.make_optimizer(lambda _: 0.01, **fields)
  params = jnp.array([1.0, -2.0])
  state = opt.init(params)
  m = v = np.zeros(2)
  want = np.array(params)
  for i, grad in enumerate(([3.0, 4.0], [0.1, -0.2], [0.0, 5.0])):
    updates, state = opt.update(jnp.array(grad), state, params)
    params = params + updates
    g = np.array(grad) / max(1.0, np.linalg.norm(grad))
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    step = (m / (1 - 0.9 ** (i + 1))) / (
        np.sqrt(v / (1 - 0.99 ** (i + 1))) + 1e-8
    )
    want = want - 0.01 * (step + 0.1 * want)
    np.testing.assert_allclose(params, want, rtol=1e-5)


def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam():
  rng = np.random.default_rng(0)
  shapes = {
      'conv/kernel': (3, 3, 4, 8),  # 36 inputs, 8 outputs
      'qkv/kernel': (6, 3, 2, 4),  # 6 inputs, 24 outputs
      'out/kernel': (2, 4, 6),  # 8 inputs, 6 outputs
      # The first has the size of another's transpose, the second of another.
      'mid/conv/kernel': (1, 1, 8, 36),
      'mid/out/kernel': (4, 2, 6),
      'norm/scale': (5,),
      'relative_keys': (7, 2, 4),
  }
  params = {}
  for path, shape in shapes.items():
    params[path] = jnp.asarray(rng.standard_normal(shape), jnp.float32)
  nested = flax.traverse_util.unflatten_dict(params, sep='/')
  grads = jax.tree.map(lambda p: 0.01 * jnp.cos(9 * p), nested)

  def first_update(name):
    chain = optimizer.make_optimizer(lambda _: 1.0, name=name, **ADAM)
    updates, state = chain.update(grads, chain.init(nested), nested)
    assert optimizer.updates_done(state) == 1
    return flax.traverse_util.flatten_dict(updates, sep='/')

  muon = first_update('muon')
  flat = flax.traverse_util.flatten_dict(grads, sep='/')
  for name, inputs in {
      'conv': 36, 'qkv': 6, 'out': 8, 'mid/conv': 8, 'mid/out': 8,
  }.items():
    path = f'{name}/kernel'
    matrix = np.asarray(muon[path]).reshape(inputs, -1)
    # Its singular values are near one, after the scale that gives the update
    # the root mean square of Adam's.
    singular = np.linalg.svd(matrix, compute_uv=False)
    singular = singular / (0.2 * np.sqrt(max(matrix.shape)))
    assert 0.4 < singular.min() and singular.max() < 1.4, (name, singular)
    assert np.vdot(muon[path], flat[path]) < 0  # downhill
    # Together with others it becomes what it becomes by itself.
    alone = optax.contrib.scale_by_muon()
    gradient = flat[path].reshape(inputs, -1)
    want, _ = alone.update(gradient, alone.init(gradient))
    want = -0.2 * np.sqrt(max(matrix.shape)) * np.asarray(want)
    np.testing.assert_allclose(matrix, want, atol=2e-4)
  for path in ('norm/scale', 'relative_keys'):
    # Adam's first moment and one step ahead, both corrected for their start.
    ahead = 0.9 * 0.1 / (1 - 0.9**2) + 0.1 / (1 - 0.9)
    np.testing.assert_allclose(
        muon[path], -ahead * np.sign(flat[path]), rtol=1e-3
    )


def test_muon_takes_matrices_of_a_size_together():
  def products(count):
    params = {f'{i}/kernel': jnp.ones((3, 3, 4, 8)) for i in range(count)}
    chain = optimizer.make_optimizer(lambda _: 1.0, name='muon', **ADAM)
    return str(jax.make_jaxpr(chain.update)(
        params, chain.init(params), params
    )).count('dot_general')

  assert products(5) == products(1) > 0


def test_ema_rules():
  assert optimizer.make_ema_decay(decay=0.99, rule='constant')(0) == 0.99
  ramp = optimizer.make_ema_decay(decay=0.99, rule='ramp')
  np.testing.assert_allclose(ramp(0), 0.1)
  np.testing.assert_allclose(ramp(90), 0.91)
  np.testing.assert_allclose(ramp(10_000), 0.99)
