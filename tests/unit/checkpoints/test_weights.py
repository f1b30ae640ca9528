import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from video_diffusion.checkpoints import weights
from video_diffusion.filesystem import files

PARAMS = {
    'a': {'kernel': np.linspace(-3, 3, 600).reshape(20, 30).astype(np.float32)},
    'b': np.arange(7.0, dtype=np.float32),
    'c': {'d': np.ones((5, 5), np.float32), 'e': np.zeros((1,), np.float32)},
}
FLAT = {
    'a.kernel': PARAMS['a']['kernel'], 'b': PARAMS['b'],
    'c.d': PARAMS['c']['d'], 'c.e': PARAMS['c']['e'],
}


def target(params=PARAMS):
  return jax.eval_shape(lambda: params)


def save(folder, params=PARAMS, step=12):
  weights.save(params, folder, step=step, dtype=jnp.float32)
  return folder


def other_program(folder, shards, metadata=None):
  """Files as another program writes them."""
  folder.mkdir(exist_ok=True)
  for i, tensors in enumerate(shards):
    name = f'ema-{i}-of-{len(shards)}.safetensors'
    safetensors.numpy.save_file(tensors, folder / name, metadata)
  return folder


@pytest.mark.parametrize(
    'dtype, tolerance', [('float32', 0), ('bfloat16', 4e-3)]
)
def test_round_trip(tmp_path, dtype, tolerance):
  folder = tmp_path / 'weights'
  weights.save(PARAMS, folder, step=12, dtype=jnp.dtype(dtype))
  assert len(list(folder.iterdir())) == weights.NUM_FILES
  got, step = weights.load(folder, target())
  assert step == 12
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), got, PARAMS
  )
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(got))


def test_the_digest_tells_every_change(tmp_path):
  digests = {weights.digest(PARAMS)}
  assert weights.digest(dict(reversed(PARAMS.items()))) in digests
  changed = PARAMS['b'].copy()
  changed[3] = np.nextafter(changed[3], 9)
  digests.add(weights.digest(PARAMS | {'b': changed}))
  digests.add(weights.digest(PARAMS | {'b': PARAMS['b'].reshape(1, 7)}))
  digests.add(weights.digest(PARAMS | {'b': PARAMS['b'].astype(np.int32)}))
  assert len(digests) == 4


def test_what_is_missing_or_of_another_shape_is_named(tmp_path):
  folder = save(tmp_path / 'weights')
  with pytest.raises(ValueError, match="no array 'x'"):
    weights.load(folder, target(PARAMS | {'x': np.zeros(3)}))
  with pytest.raises(ValueError, match=r"'b' of shape \(7,\)"):
    weights.load(folder, target(PARAMS | {'b': np.zeros(8)}))
  next(folder.glob('ema-0-*')).unlink()
  with pytest.raises(
      ValueError,
      match='3 files of an export of 4, without ema-0-of-4.safetensors; copy',
  ):
    weights.load(folder, target())
  with pytest.raises(ValueError, match='nowhere holds no weights'):
    weights.load(tmp_path / 'nowhere', target())


@pytest.mark.parametrize('step, what', [(13, 'step'), (12, 'export')])
def test_a_file_of_another_export_is_refused(tmp_path, step, what):
  folder = save(tmp_path / 'one')
  # The shapes are the same: only the metadata tells the files apart.
  trained = jax.tree.map(lambda x: x + 1, PARAMS)
  other = save(tmp_path / 'two', trained, step=step)
  name = 'ema-2-of-4.safetensors'
  os.replace(other / name, folder / name)
  with pytest.raises(ValueError) as error:
    weights.load(folder, target())
  assert f'files of two exports: ema-0-of-4.safetensors is of {what}' in str(
      error.value
  )
  assert f'{name} of {what}' in str(error.value)


def test_metadata_cannot_write_to_the_terminal(tmp_path):
  folder = save(tmp_path / 'weights')
  path = folder / 'ema-2-of-4.safetensors'
  tensors = safetensors.numpy.load_file(path)
  for metadata in (
      {'step': '12', 'export': '\x1b[2J\n'}, {'step': '\x1b[2J' + '1' * 10**5},
  ):
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match='files of two exports') as error:
      weights.load(folder, target())
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_exports_of_two_numbers_of_files_are_refused(tmp_path):
  folder = save(tmp_path / 'weights')
  (folder / 'ema-0-of-2.safetensors').write_bytes(b'')
  with pytest.raises(ValueError, match='several exports, of 2 and 4 files'):
    weights.load(folder, target())


def test_one_array_in_two_files_is_refused(tmp_path):
  folder = other_program(tmp_path / 'weights', [FLAT, {'b': FLAT['b']}])
  with pytest.raises(ValueError, match="'b' twice, in ema-0-of-2.safetensors"):
    weights.load(folder, target())


def test_a_changed_byte_of_an_array_is_told(tmp_path):
  folder = save(tmp_path / 'weights')
  path = folder / 'ema-0-of-4.safetensors'
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='not those that were exported; copy'):
    weights.load(folder, target())


def test_an_export_takes_its_name_when_it_is_whole(tmp_path, monkeypatch):
  folder = save(tmp_path / 'weights')
  save(folder, jax.tree.map(lambda x: x + 1, PARAMS), step=13)
  assert weights.load(folder, target())[1] == 13

  def full(*args, **kwargs):
    raise OSError('No space left on device')

  monkeypatch.setattr(files, '_flush', full)
  with pytest.raises(OSError):
    save(folder, step=14)
  assert weights.load(folder, target())[1] == 13
  assert [path.name for path in tmp_path.iterdir()] == ['weights']


@pytest.mark.parametrize('metadata', [None, {'format': 'pt'}])
def test_files_of_other_programs_are_of_step_0(tmp_path, metadata, caplog):
  extra = {'extra': np.zeros(3, np.int64)}
  folder = other_program(
      tmp_path / 'weights',
      [{'b': FLAT['b']}, {k: v for k, v in FLAT.items() if k != 'b'} | extra],
      metadata,
  )
  got, step = weights.load(folder, target())
  assert step == 0
  jax.tree.map(np.testing.assert_array_equal, got, PARAMS)
  assert 'do not say of which step' in caplog.text
  assert "1 arrays that the model does not have, 'extra'" in caplog.text


def test_an_export_from_before_there_were_digests_is_read(tmp_path):
  folder = other_program(tmp_path / 'weights', [FLAT], {'step': '7'})
  assert weights.load(folder, target())[1] == 7


@pytest.mark.parametrize('step', ['-1', '1.5', 'last', '', '9' * 400, '٣'])
def test_a_step_that_is_none_is_refused(tmp_path, step):
  folder = other_program(tmp_path / 'weights', [FLAT], {'step': step})
  with pytest.raises(ValueError, match='name the step .* a whole number'):
    weights.load(folder, target())


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(value):
  bad = PARAMS['c']['d'].copy()
  bad[2, 3] = value
  weights.require_finite(PARAMS, 'here')
  with pytest.raises(
      ValueError, match=r"^here holds .* in 1 of 4 arrays, 'c.d' first"
  ):
    weights.require_finite(PARAMS | {'c': {'d': bad, 'e': bad[:1]}} | {
        'c': {'d': bad, 'e': PARAMS['c']['e']}
    }, 'here')
