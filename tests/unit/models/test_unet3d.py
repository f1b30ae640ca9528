import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.models import unet3d

TINY = dict(
    base_channels=8,
    channel_mults=(1, 2),
    num_blocks=1,
    attention_resolutions=(4,),
    head_dim=8,
    emb_dim=16,
)


@pytest.fixture(scope='module', params=['bias', 'shaw_exact'])
def net(random_params, request):
  """(apply(z, logsnr, num_images), parameters, fields of the network)."""
  fields = {**TINY, 'position': request.param}
  model = unet3d.UNet3D(**fields)
  params = random_params(model, *draw(2))['params']

  def apply(z, logsnr, num_images=0):
    return model.apply({'params': params}, z, logsnr, num_images=num_images)

  return jax.jit(apply, static_argnums=2), params, fields


def draw(t, k=0, batch=1):
  """(z, log-SNR) in numpy, where indexing compiles nothing."""
  z = np.random.default_rng(2).standard_normal((batch, t + k, 8, 8, 3))
  logsnr = np.linspace(-4.0, 4.0, batch * (t + k)).reshape(batch, t + k)
  return z.astype(np.float32), logsnr.astype(np.float32)


def changed(z, i):
  """z with another frame i."""
  z = z.copy()
  z[:, i] += 1.0
  return z


# The tests of `net` share their shapes, of which each is compiled once: eight
# frames of video, and eight images.
def test_changing_an_image_changes_no_other_frame(net):
  apply, _, _ = net
  t, k = 8, 8
  z, logsnr = draw(t, k)
  before = np.asarray(apply(z, logsnr, k))
  for i in range(t + k):
    after = np.asarray(apply(changed(z, i), logsnr, k))
    change = np.any(before != after, axis=(0, 2, 3, 4))
    want = np.zeros(t + k, bool)
    want[:t] = i < t  # a video frame reaches the whole video, no image
    want[i] = True
    np.testing.assert_array_equal(change, want)


def test_identity_mask_is_the_image_model(net):
  """All frames as images = each frame alone as a video of one frame."""
  apply, _, _ = net
  z, logsnr = draw(0, 4)
  together = np.asarray(apply(z, logsnr, 4))
  for i in range(4):
    alone = apply(z[:, i : i + 1], logsnr[:, i : i + 1], 0)
    np.testing.assert_allclose(together[:, i : i + 1], alone, atol=2e-5)


def test_the_video_of_a_joint_batch_is_the_video_alone(net):
  apply, _, _ = net
  z, logsnr = draw(8, 8)
  joint = np.asarray(apply(z, logsnr, 8))[:, :8]
  np.testing.assert_allclose(
      joint, apply(z[:, :8], logsnr[:, :8], 0), atol=2e-5
  )


@pytest.mark.parametrize('t', [1, 8, 16])
@pytest.mark.parametrize('k', [0, 8])
def test_one_set_of_parameters_serves_any_length(net, t, k):
  apply, _, _ = net
  z, logsnr = draw(t, k)
  y = apply(z, logsnr, k)
  assert y.shape == z.shape and np.all(np.isfinite(y))


def position_tables(model, z, logsnr):
  """{path: table} of a new network; nothing else of it is compiled."""

  @jax.jit
  def init():
    params = model.init(jax.random.key(1), z, logsnr)['params']
    flat = flax.traverse_util.flatten_dict(params)
    return {k: v for k, v in flat.items() if k[-1].startswith('relative_')}

  return init()


@pytest.mark.parametrize('position', ['bias', 'shaw_exact'])
def test_only_unequal_tables_tell_the_past_from_the_future(
    random_params, position
):
  """position_stddev = 0 starts as a network that commutes with reversal."""
  z, logsnr = draw(5)
  logsnr = np.broadcast_to(logsnr[:, :1], logsnr.shape)
  apply = jax.jit(unet3d.UNet3D(**TINY, position=position).apply)
  gaps = []
  for stddev in (0.0, 1.0):
    model = unet3d.UNet3D(
        **TINY, position=position, position_stddev=stddev
    )
    # What starts at zero would hide the rest, so all but the tables is drawn.
    params = random_params(model, z, logsnr)['params']
    tables = position_tables(model, z, logsnr)
    assert tables
    for value in tables.values():
      np.testing.assert_allclose(value.std(), stddev, atol=0.2 * stddev)
    flat = flax.traverse_util.flatten_dict(params)
    assert tables.keys() < flat.keys()
    params = flax.traverse_util.unflatten_dict(flat | tables)
    played = np.asarray(apply({'params': params}, z, logsnr))
    backwards = np.asarray(apply({'params': params}, z[:, ::-1], logsnr))
    gaps.append(np.abs(played[:, ::-1] - backwards).max())
  assert gaps[0] < 2e-5 < 1e-3 < gaps[1], gaps


def test_no_parameter_depends_on_the_length(net):
  _, params, fields = net
  model = unet3d.UNet3D(**fields)
  z = jax.ShapeDtypeStruct((1, 19, 8, 8, 3), jnp.float32)
  other = jax.eval_shape(
      lambda z: model.init(
          jax.random.key(0), z, jnp.zeros((1, 19)), num_images=3
      ),
      z,
  )['params']
  shapes = lambda tree: jax.tree.map(lambda p: p.shape, tree)
  assert shapes(params) == shapes(other)


def test_logsnr_per_video_equals_logsnr_per_frame(net):
  apply, _, _ = net
  z, _ = draw(8, batch=2)
  logsnr = np.array([-1.0, 2.0], np.float32)
  np.testing.assert_allclose(
      apply(z, logsnr), apply(z, np.tile(logsnr[:, None], 8)), atol=1e-5
  )


def test_a_batch_is_its_examples(net):
  apply, _, _ = net
  z, logsnr = draw(8, batch=2)
  both = np.asarray(apply(z, logsnr))
  for i in range(2):
    one = apply(z[i : i + 1], logsnr[i : i + 1])
    np.testing.assert_allclose(both[i : i + 1], one, atol=2e-5)


def test_the_last_layer_of_a_new_network_is_zero():
  model = unet3d.UNet3D(**TINY)
  z, logsnr = draw(2)
  names = ('conv_out', 'down_0_0', 'conv_in')

  @jax.jit
  def init():  # no others are compiled
    params = model.lazy_init(jax.random.key(0), z, logsnr)['params']
    return {name: params[name] for name in names}

  params = init()
  for name in ('conv_out', 'down_0_0'):
    tree = params[name]
    kernel = (tree if name == 'conv_out' else tree['residual']['conv_2'])[
        'kernel'
    ]
    assert not np.any(kernel)
  assert np.any(params['conv_in']['kernel'])


def test_remat_changes_nothing_and_bfloat16_little(net):
  _, params, fields = net
  z, logsnr = draw(3, 1)

  def loss(p, **changes):
    model = unet3d.UNet3D(**fields, **changes)
    y = model.apply({'params': p}, z, logsnr, num_images=1)
    assert y.dtype == jnp.float32
    return (y**2).mean()

  step = lambda **changes: jax.jit(
      jax.value_and_grad(functools.partial(loss, **changes))
  )(params)
  plain, grad = step()
  again, regrad = step(remat=(8, 4, 16))
  np.testing.assert_allclose(plain, again, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(regrad), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3)
  half = jax.jit(functools.partial(loss, dtype=jnp.bfloat16))(params)
  np.testing.assert_allclose(half, plain, rtol=0.05)


def test_dropout_is_of_training_alone(net):
  _, params, fields = net
  model = unet3d.UNet3D(**fields, dropout=0.5)
  z, logsnr = draw(2)
  @functools.partial(jax.jit, static_argnums=0)
  def run(train, seed):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply({'params': params}, z, logsnr, train=train, rngs=rngs)

  np.testing.assert_array_equal(run(False, 0), run(False, 1))
  assert np.any(run(True, 0) != run(True, 1))


@pytest.mark.parametrize(
    'fields', [{'temporal_resolutions': (8,)}, {'temporal_input': True}]
)
def test_attention_over_frames_alone(fields, random_params):
  """It is added where it is asked for, and its images stay apart."""
  plain, more = unet3d.UNet3D(**TINY), unet3d.UNet3D(**TINY, **fields)
  z, logsnr = draw(3, 2)
  params = random_params(more, z, logsnr)['params']
  names = lambda tree: set(flax.traverse_util.flatten_dict(tree, sep='/'))
  old = names(random_params(plain, z, logsnr)['params'])
  new = names(params) - old
  assert old < names(params)
  if 'temporal_input' in fields:
    assert {name.split('/')[0] for name in new} == {'temporal_in'}
  else:
    assert {name.split('/')[1] for name in new} == {'temporal'}
    # All blocks at full resolution, on the way down and up.
    assert {name.split('/')[0] for name in new} == {
        'down_0_0', 'up_0_0', 'up_0_1'
    }
  apply = jax.jit(lambda z: more.apply({'params': params}, z, logsnr, None, 2))
  change = np.asarray(apply(changed(z, 4))) != np.asarray(apply(z))
  np.testing.assert_array_equal(
      np.any(change, axis=(0, 2, 3, 4)), [False, False, False, False, True]
  )


def test_patches_are_channels_of_the_same_network(random_params):
  """A network on patches is the plain one on their pixels as channels."""
  z, logsnr = draw(3, 2)
  patches = unet3d.to_patches(z, 2)
  assert patches.shape == (1, 5, 4, 4, 12)
  # The pixels of a patch are side by side, by rows.
  np.testing.assert_array_equal(
      patches[0, 1, 3, 2], z[0, 1, 6:8, 4:6].reshape(-1)
  )
  np.testing.assert_array_equal(unet3d.from_patches(patches, 2), z)
  plain = unet3d.UNet3D(**TINY)
  params = random_params(plain, patches, logsnr)
  apply = lambda model: jax.jit(functools.partial(model.apply, num_images=2))
  want = apply(plain)(params, patches, logsnr)
  got = apply(unet3d.UNet3D(**TINY, patch_size=2))(params, z, logsnr)
  np.testing.assert_array_equal(got, unet3d.from_patches(want, 2))


def test_full_convolutions_keep_images_apart(random_params):
  model = unet3d.UNet3D(**TINY, conv='full_3d')
  z, logsnr = draw(3, 2)
  params = random_params(model, z, logsnr)

  @functools.partial(jax.jit, static_argnums=2)
  def apply(z, logsnr, num_images=0):
    return model.apply(params, z, logsnr, num_images=num_images)

  before = np.asarray(apply(z, logsnr, 2))
  for i in range(5):
    after = np.asarray(apply(changed(z, i), logsnr, 2))
    change = np.any(after != before, axis=(0, 2, 3, 4))
    np.testing.assert_array_equal(change, [i < 3] * 3 + [i == 3, i == 4])
  close = functools.partial(np.testing.assert_allclose, atol=2e-5)
  close(before[:, :3], apply(z[:, :3], logsnr[:, :3]))
  # An image is a video of one frame, and so is each frame where all are images.
  images = np.asarray(apply(z, logsnr, 5))
  close(images[:, 3:], before[:, 3:])
  for i in range(5):
    close(images[:, i : i + 1], apply(z[:, i : i + 1], logsnr[:, i : i + 1]))


def test_images_may_have_a_head_of_their_own(random_params):
  """Each head has its frames; the video's keeps the names of the shared one."""
  shared = unet3d.UNet3D(**TINY)
  separate = unet3d.UNet3D(**TINY, heads='separate')
  z, logsnr = draw(3, 2)
  params = random_params(separate, z, logsnr, num_images=2)['params']
  old = random_params(shared, z, logsnr, num_images=2)['params']
  assert params.keys() - old.keys() == {'norm_out_images', 'conv_out_images'}
  assert old.keys() < params.keys()

  @functools.partial(jax.jit, static_argnums=(0, 2))
  def compiled(model, params, num_images):
    return model.apply({'params': params}, z, logsnr, num_images=num_images)

  apply = lambda model, params, num_images=2: np.asarray(
      compiled(model, params, num_images)
  )
  got = apply(separate, params)
  of_video = {name: params[name] for name in old}
  of_images = of_video | {
      name: params[f'{name}_images'] for name in ('norm_out', 'conv_out')
  }
  for frames, head in ((slice(3), of_video), (slice(3, 5), of_images)):
    np.testing.assert_allclose(
        got[:, frames], apply(shared, head)[:, frames], atol=2e-5
    )
  assert np.abs(got - apply(shared, of_video))[:, 3:].max() > 1e-2
  # Without images, as in sampling, the head of the video alone is there.
  np.testing.assert_array_equal(
      apply(separate, params, 0), apply(shared, of_video, 0)
  )


def test_attention_over_space_and_time_at_once(random_params):
  """The same parameters; a change is seen elsewhere in other frames."""
  plain = unet3d.UNet3D(**TINY)
  z, logsnr = draw(3, 2)
  params = random_params(plain, z, logsnr)
  whole = unet3d.UNet3D(**TINY, spacetime_resolutions=(4,))
  same = jax.tree.map(jnp.shape, random_params(whole, z, logsnr))
  assert same == jax.tree.map(jnp.shape, params)

  @functools.partial(jax.jit, static_argnums=2)
  def compiled(z, logsnr, num_images):
    return whole.apply(params, z, logsnr, num_images=num_images)

  apply = lambda *args: np.asarray(compiled(*args))
  before = apply(z, logsnr, 2)
  for i in range(5):
    change = np.any(apply(changed(z, i), logsnr, 2) != before, (0, 2, 3, 4))
    np.testing.assert_array_equal(
        change, [i < 3] * 3 + [i == 3, i == 4]
    )
  # Images alone are videos of one frame.
  images = apply(z, logsnr, 5)
  for i in range(5):
    alone = apply(z[:, i : i + 1], logsnr[:, i : i + 1], 0)
    np.testing.assert_allclose(images[:, i : i + 1], alone, atol=2e-5)
