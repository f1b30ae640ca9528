import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.models import conditioning
from video_diffusion.models import unet3d


def make(random_params, encoder=True, injection='embedding'):
  unet = unet3d.UNet3D(
      base_channels=8,
      channel_mults=(1,),
      num_blocks=1,
      attention_resolutions=(),
      head_dim=8,
      emb_dim=16,
  )
  model = conditioning.ConditionalUNet(
      unet, conditioning.LabelEncoder(8, (3, 4)) if encoder else None,
      injection,
  )
  z = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 3))
  labels = jnp.array([[[0, 1], [2, 3], [1, -1]], [[1, 1], [0, 0], [2, 2]]])
  logsnr = jnp.zeros((2, 5))
  params = random_params(
      model, z, logsnr, condition={'labels': labels}, num_images=2
  )

  @jax.jit
  def apply(labels, keep=None):
    condition = None if labels is None else {'labels': labels}
    return model.apply(
        params, z, logsnr, condition=condition, keep=keep, num_images=2
    )

  return apply, labels


@pytest.mark.parametrize('injection', conditioning.INJECTIONS)
def test_absent_labels_and_dropped_labels_are_the_null_condition(
    random_params, injection
):
  apply, labels = make(random_params, injection=injection)
  null = apply(None)
  np.testing.assert_array_equal(apply(jnp.full_like(labels, -1)), null)
  np.testing.assert_array_equal(apply(labels, jnp.array([False, False])), null)
  half = apply(labels, jnp.array([True, False]))
  np.testing.assert_array_equal(half[1], null[1])
  np.testing.assert_array_equal(half[0], apply(labels)[0])
  assert np.all(np.any(np.asarray(half[0] != null[0]), axis=(1, 2, 3)))


@pytest.mark.parametrize('injection', conditioning.INJECTIONS)
def test_each_image_has_its_own_label_and_the_video_one(
    random_params, injection
):
  apply, labels = make(random_params, injection=injection)
  before = apply(labels)
  frames = lambda after: np.any(np.asarray(before != after), axis=(2, 3, 4))[0]
  video = frames(apply(labels.at[0, 0, 0].set(2)))
  np.testing.assert_array_equal(video, [True, True, True, False, False])
  second = frames(apply(labels.at[0, 2, 0].set(0)))
  np.testing.assert_array_equal(second, [False, False, False, False, True])


def test_added_to_the_output_a_condition_is_a_colour_of_each_frame(
    random_params,
):
  apply, labels = make(random_params, injection='output')
  added = np.asarray(apply(labels) - apply(None))
  np.testing.assert_allclose(
      added, np.broadcast_to(added[:, :, :1, :1], added.shape), atol=1e-5
  )
  assert np.abs(added).max() > 0.1
  # All frames of a video have one condition.
  np.testing.assert_allclose(added[:, 0], added[:, 2], atol=1e-5)


def test_what_is_added_to_the_output_starts_at_zero():
  unet = unet3d.UNet3D(
      base_channels=4, channel_mults=(1,), num_blocks=1,
      attention_resolutions=(), head_dim=4, emb_dim=8,
  )
  model = conditioning.ConditionalUNet(
      unet, conditioning.LabelEncoder(8, (3,)), 'output'
  )
  z, logsnr = jnp.zeros((1, 2, 4, 4, 3)), jnp.zeros((1, 2))
  condition = {'labels': jnp.zeros((1, 1, 1), jnp.int32)}
  params = jax.jit(
      lambda: model.lazy_init(jax.random.key(0), z, logsnr, condition=condition)
  )()['params']
  assert params.keys() == {'unet', 'encoder', 'to_output'}
  np.testing.assert_array_equal(params['to_output']['kernel'], np.zeros((8, 3)))
  assert 'cond' not in params['unet']['embedding']


def test_a_weight_of_guidance_starts_without_effect():
  embed = conditioning.GuidanceEmbedding(8, 4.0)
  weight = jnp.array([0.0, 1.0, 4.0])
  params = jax.jit(embed.init)(jax.random.key(0), weight)
  assert not embed.apply(params, weight).any()
  params['params']['layer_1']['kernel'] = jnp.ones((8, 8))
  vectors = np.asarray(embed.apply(params, weight))
  assert np.abs(np.diff(vectors, axis=0)).max((1, 2)).min() > 0.01


def test_the_weight_of_guidance_does_not_enter_by_the_output(random_params):
  """There it could shift colours alone; each example has its own weight."""
  unet = unet3d.UNet3D(
      base_channels=4, channel_mults=(1,), num_blocks=1,
      attention_resolutions=(), head_dim=4, emb_dim=8,
  )
  model = conditioning.ConditionalUNet(
      unet, conditioning.LabelEncoder(8, (3,)), 'output',
      max_guidance_weight=4.0,
  )
  z = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 3))
  logsnr = jnp.zeros(2)
  condition = {'labels': jnp.array([[[0]], [[1]]])}
  params = random_params(model, z, logsnr, condition=condition)
  apply = jax.jit(lambda weight: model.apply(
      params, z, logsnr, condition=condition, guidance_weight=weight
  ))
  none, one = apply(jnp.zeros(2)), apply(jnp.array([3.0, 0.0]))
  np.testing.assert_array_equal(one[1], none[1])
  assert np.asarray(one[0] - none[0]).std((1, 2)).max() > 1e-3


def test_without_an_encoder_labels_have_no_effect(random_params):
  apply, labels = make(random_params, encoder=False)
  np.testing.assert_array_equal(apply(labels), apply(None))


def test_a_network_takes_its_arrays_out_of_a_batch():
  batch = {
      'video': np.zeros((2, 5, 4, 4, 3), np.uint8),
      'labels': np.arange(12).reshape(2, 3, 2),
      'captions': np.full((2, 3), b'', object),
  }
  encoder = conditioning.LabelEncoder(8, (6, 12))
  net = conditioning.ConditionalUNet(None, encoder)
  inputs = net.inputs_of(batch)
  assert inputs.keys() == {'video', 'labels'}
  assert inputs['labels'].dtype == np.int32
  np.testing.assert_array_equal(inputs['labels'], batch['labels'])
  assert net.condition_of(inputs).keys() == {'labels'}
  none = conditioning.ConditionalUNet(None)
  assert none.inputs_of(batch).keys() == {'video'}
  assert none.condition_of(batch) is None


def test_arrays_of_a_clip_come_flat_and_are_shaped():
  class Maps(conditioning.LabelEncoder):

    def arrays(self):
      return {'maps': jax.ShapeDtypeStruct((2, 3), jnp.float32)}

  net = conditioning.ConditionalUNet(None, Maps(8, ()))
  flat = np.arange(24, dtype=np.float64).reshape(2, 2, 6)
  maps = net.inputs_of({'video': None, 'maps': flat})['maps']
  assert maps.shape == (2, 2, 2, 3) and maps.dtype == np.float32
  np.testing.assert_array_equal(maps.ravel(), flat.ravel())
