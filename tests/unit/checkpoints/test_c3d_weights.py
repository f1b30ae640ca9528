"""Files of C3D: what is read of them, and what is said of wrong ones."""
import hashlib
import pickle

import numpy as np
import pytest

from tests.support import c3d as narrow
from video_diffusion.checkpoints import c3d_weights
from video_diffusion.errors import UserError


def test_kernels_are_turned_and_the_digest_is_that_of_the_file(tmp_path):
  path, arrays = tmp_path / 'weights.npz', narrow.weights()
  np.savez(path, extra=np.zeros(3), **arrays)
  params, digest = c3d_weights.load_c3d(path)
  assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
  assert len(params) == 11
  np.testing.assert_array_equal(
      params['conv2a']['kernel'], arrays['conv2a/W'].transpose(2, 3, 4, 1, 0)
  )
  np.testing.assert_array_equal(
      params['fc6']['kernel'], arrays['fc6/W'].T
  )
  np.testing.assert_array_equal(params['fc8']['bias'], arrays['fc8/b'])
  assert all(
      x.dtype == np.float32 for layer in params.values() for x in layer.values()
  )


@pytest.mark.parametrize('shape', [(3, 16, 128, 171), (3, 1, 16, 128, 171)])
def test_the_mean(tmp_path, shape):
  path = tmp_path / 'mean2.npz'
  np.savez(path, mean=narrow.mean().astype(np.float64).reshape(shape))
  mean, digest = c3d_weights.load_c3d_mean(path)
  assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
  assert mean.dtype == np.float32
  np.testing.assert_array_equal(mean, narrow.mean())


@pytest.mark.parametrize('name, value, sentence', [
    ('conv3b/W', None, 'has no array conv3b/W'),
    ('fc7/b', None, 'has no array fc7/b'),
    ('conv1a/W', np.zeros((4, 1, 3, 3, 3)), r'must be \(4, 3, 3, 3, 3\)'),
    ('fc7/W', np.zeros((16, 17)), r'must be \(16, 16\)'),
    ('fc6/W', np.zeros((16, 100)), 'must be a multiple of 11'),
    ('fc6/W', np.zeros((16, 0)), r'must be \(16, any\)'),
    ('fc8/b', np.full(12, np.nan), 'not of finite floating-point'),
    ('fc8/b', np.zeros(12, int), 'not of finite floating-point'),
])
def test_wrong_arrays_are_one_sentence(tmp_path, name, value, sentence):
  arrays = narrow.weights()
  del arrays[name]
  np.savez(
      tmp_path / 'w.npz', **arrays, **({} if value is None else {name: value})
  )
  with pytest.raises(UserError, match=sentence) as error:
    c3d_weights.load_c3d(tmp_path / 'w.npz')
  assert 'w.npz' in str(error.value) and '\n' not in str(error.value)


def test_a_wrong_mean_is_one_sentence(tmp_path):
  path = tmp_path / 'mean.npz'
  np.savez(path, mean=np.zeros((3, 112, 112)))
  with pytest.raises(UserError, match=r'must be \(3, 16, 128, 171\)'):
    c3d_weights.load_c3d_mean(path)
  np.savez(path, wrong=np.zeros(3))
  with pytest.raises(UserError, match='has no array mean'):
    c3d_weights.load_c3d_mean(path)


def npy(path):
  with path.open('wb') as f:
    np.save(f, np.zeros(3))


def cut(path):
  np.savez(path, mean=np.zeros(10**4))
  path.write_bytes(path.read_bytes()[:5000])


def damaged(path):
  np.savez(path, mean=np.zeros(10**4))
  content = bytearray(path.read_bytes())
  content[3000] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize('make', [
    npy, cut, damaged,
    lambda path: path.write_bytes(b''),
    lambda path: path.write_bytes(b'PK\x03\x04'),
    lambda path: path.write_text('<html>not found</html>'),
    lambda path: path.write_bytes(pickle.dumps({'mean': 1})),
    lambda path: np.savez(path, mean=np.array([{}], object)),
    lambda path: path.mkdir(),
])
def test_other_files_are_one_sentence(tmp_path, make):
  make(tmp_path / 'file.npz')
  with pytest.raises(UserError, match='cannot be read as an npz') as error:
    c3d_weights.load_c3d_mean(tmp_path / 'file.npz')
  assert '\n' not in str(error.value)


def test_a_missing_file_is_one_sentence(tmp_path):
  with pytest.raises(UserError, match='does not exist'):
    c3d_weights.load_c3d(tmp_path / 'none.npz')
