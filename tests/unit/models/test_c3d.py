"""C3D against a rewrite in torch, and against values that it gave."""
import numpy as np
import pytest

from tests.support import c3d as narrow
from tests.support import optional
from video_diffusion.checkpoints import c3d_weights
from video_diffusion.errors import UserError
from video_diffusion.models import c3d

# Logits of the narrow network by `in_torch`, torch 2.13.0 on a CPU.
STORED = {
    'squash': [
        [
            84.423, -233.348, 103.668, -332.438, -261.264, -610.213,
            -360.635, 336.403, 53.318, 350.210, 155.010, -227.003,
        ],
        [
            104.421, -181.890, 108.196, -303.340, -246.048, -608.032,
            -396.110, 338.032, 49.744, 376.104, 53.628, -261.507,
        ],
    ],
    'crop': [
        [
            99.559, -210.212, 85.008, -247.784, -228.386, -541.803,
            -314.125, 299.571, 36.066, 327.253, 160.417, -214.953,
        ],
        [
            147.607, -168.375, 98.721, -249.114, -180.243, -537.799,
            -425.928, 230.337, 107.629, 345.804, 21.020, -200.679,
        ],
    ],
}


@pytest.fixture(scope='module')
def params(tmp_path_factory):
  path = tmp_path_factory.mktemp('c3d') / 'weights.npz'
  np.savez(path, **narrow.weights())
  return c3d_weights.load_c3d(path)[0]


@pytest.fixture(scope='module')
def activations(params):
  """Kind of resize -> what the narrow network makes of the two clips."""
  found = {}

  def get(resize):
    if resize not in found:
      run = c3d.make_activations(params, narrow.mean(), resize=resize)
      found[resize] = run(narrow.clips())
    return found[resize]

  return get


def in_torch(torch, weights, mean, clips, resize):
  """(fc7, logits) by torch's own convolutions, pools and interpolation."""
  functional = torch.nn.functional
  arrays = {name: torch.from_numpy(x) for name, x in weights.items()}
  n, t = clips.shape[:2]
  x = torch.from_numpy(clips[..., ::-1].copy()).float()
  x = x.permute(0, 1, 4, 2, 3).reshape(n * t, 3, *clips.shape[2:4])
  mean = torch.from_numpy(mean)
  if resize == 'squash':
    x = functional.interpolate(
        x, (112, 112), mode='bilinear', align_corners=True
    )
    mean = mean[:, :, 8:120, 8:120]
  else:
    x = functional.interpolate(
        x, (128, 171), mode='bilinear', align_corners=False
    )[:, :, 8:120, 29:141]
    mean = mean[:, :, 8:120, 29:141]
  x = x.reshape(n, t, 3, 112, 112).transpose(1, 2) - mean
  for name, pool in (
      ('conv1a', (1, 2, 2)), ('conv2a', 2), ('conv3a', None), ('conv3b', 2),
      ('conv4a', None), ('conv4b', 2), ('conv5a', None), ('conv5b', 2),
  ):
    x = functional.conv3d(
        x, arrays[f'{name}/W'], arrays[f'{name}/b'], padding=1
    ).relu()
    if pool:
      x = functional.max_pool3d(x, pool, ceil_mode=True)
  x = x.flatten(1)
  for name in ('fc6', 'fc7'):
    linear = arrays[f'{name}/W'], arrays[f'{name}/b']
    x = functional.linear(x, *linear).relu()
  logits = functional.linear(x, arrays['fc8/W'], arrays['fc8/b'])
  return x.numpy(), logits.numpy()


@pytest.mark.parametrize('resize', ['squash', 'crop'])
def test_against_torch(activations, resize):
  torch = optional.optional('torch')
  fc7, logits = in_torch(
      torch, narrow.weights(), narrow.mean(), narrow.clips(), resize
  )
  found = activations(resize)
  scale = np.abs(logits).max()
  np.testing.assert_allclose(found.fc7, fc7, rtol=1e-4, atol=1e-5 * scale)
  np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize('resize', ['squash', 'crop'])
def test_against_the_values_that_torch_gave(activations, resize):
  found = activations(resize)
  assert found.fc7.shape == (2, 16) and (found.fc7 >= 0).all()
  np.testing.assert_allclose(found.logits, STORED[resize], rtol=1e-4, atol=5e-3)


def test_clips_of_any_number_do_not_touch_each_other(params, activations):
  run = c3d.make_activations(params, narrow.mean())
  alone = run(narrow.clips()[1:])
  np.testing.assert_allclose(
      alone.logits, activations('squash').logits[1:], rtol=1e-4, atol=1e-3
  )


def test_frames_of_the_networks_own_size_stay_as_they_are():
  # Only the order of the colours changes, and the mean is taken off.
  clip = np.random.default_rng(0).integers(
      0, 256, (1, 16, 112, 112, 3), np.uint8
  )
  found = c3d.preprocess(clip, narrow.mean())
  want = clip[..., ::-1] - np.moveaxis(narrow.mean(), 0, -1)[:, 8:120, 8:120]
  np.testing.assert_allclose(found, want, atol=1e-3)


def test_the_released_network_has_its_sizes():
  import jax

  shapes = jax.eval_shape(
      c3d.C3D().init, jax.random.key(0), np.zeros((1, 16, 112, 112, 3))
  )['params']
  assert shapes['fc6']['kernel'].shape == (512 * 4 * 4, 4096)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 78_409_573


@pytest.mark.parametrize('wrong, sentence', [
    ({'videos': narrow.clips().astype(np.float32)}, 'C3D takes uint8'),
    ({'videos': narrow.clips()[:, :15]}, 'has 15 frames; C3D takes 16'),
    ({'mean': np.zeros((3, 112, 112))}, r'it must be \(3, 16, 128, 171\)'),
    ({'resize': 'cubic'}, "is 'cubic'; it must be 'squash' or 'crop'"),
])
def test_mistakes_are_one_sentence(wrong, sentence):
  arguments = {'videos': narrow.clips(), 'mean': narrow.mean()} | wrong
  with pytest.raises(UserError, match=sentence):
    c3d.preprocess(**arguments)
