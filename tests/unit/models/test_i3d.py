"""I3D beside the original graph, run in TensorFlow on weights by a rule."""
import jax
import numpy as np
import pytest

from benchmarks import i3d as bench
from tests.support import i3d_files
from video_diffusion.models import i3d

LIMIT = 1e-4  # of logits up to 27


@pytest.fixture(scope='module')
def sixteen_frames():
  """Endpoints of four clips: noise, and -1, 0 and 1 everywhere."""
  weights, noise = i3d_files.rule_weights(), bench.noise(16)
  clips = [noise[0], *(np.full_like(noise[0], x) for x in (-1, 0, 1))]
  run = jax.jit(i3d.endpoints)
  return jax.tree.map(np.asarray, run(weights.params, np.stack(clips)))


@i3d_files.needs_data
@pytest.mark.parametrize('frames', [9, 10, 12, 17])
def test_logits_of_noise(frames):
  params, clips = i3d_files.rule_weights().params, bench.noise(frames)
  expected = i3d_files.expected()
  np.testing.assert_array_equal(
      clips.ravel()[:8], expected[f'input_check_noise_T{frames}']
  )
  run = jax.jit(lambda params, x: i3d.I3D().apply({'params': params}, x))
  want = expected[f'logits_noise_T{frames}']
  # One clip tells whether frames are padded rightly; two are the same again.
  np.testing.assert_allclose(run(params, clips[:1]), want[:1], rtol=0,
                             atol=LIMIT)


@i3d_files.needs_data
def test_logits_of_noise_and_of_constants(sixteen_frames):
  expected = i3d_files.expected()
  want = np.concatenate([
      expected['logits_noise_T16'][:1],
      *(expected[f'logits_const{x}_T16'] for x in (-1, 0, 1)),
  ])
  np.testing.assert_allclose(sixteen_frames['Mean'], want, rtol=0, atol=LIMIT)


@i3d_files.needs_data
def test_all_endpoints(sixteen_frames):
  expected = i3d_files.expected()
  names = [x.partition(':')[2] for x in expected if x.startswith('ep_shape:')]
  assert len(names) == 19 and set(sixteen_frames) == set(names)
  for name in names:
    x = sixteen_frames[name][:1]
    assert list(x.shape) == list(expected[f'ep_shape:{name}'])
    places = np.random.RandomState(7).randint(0, x.size, 64)
    np.testing.assert_allclose(
        x.ravel()[places], expected[f'ep_sample:{name}'], rtol=0, atol=LIMIT,
        err_msg=name,
    )
    x = x.astype(np.float64)
    np.testing.assert_allclose(
        [x.mean(), x.std(), abs(x).max()], expected[f'ep_stats:{name}'],
        rtol=1e-5, atol=1e-6, err_msg=name,
    )


def test_names_and_sizes_are_those_of_the_checkpoint():
  # Without data: 230 arrays of 12,704,544 numbers.
  clips = jax.ShapeDtypeStruct((1, 9, 224, 224, 3), np.float32)
  params = jax.eval_shape(i3d.I3D().init, jax.random.key(0), clips)
  assert set(params) == {'params'}
  leaves = jax.tree.leaves(params)
  assert len(leaves) == 230
  assert 4 * sum(x.size for x in leaves) == 50_818_176
  branch = params['params']['Mixed_5b']['Branch_2']
  assert branch['Conv3d_0a_3x3']['conv_3d']['w'].shape == (3, 3, 3, 32, 128)
