"""Headers that are cut, damaged or made to harm: one sentence each."""
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from video_diffusion.checkpoints import safetensors_files
from video_diffusion.errors import UserError


def entry(dtype='F32', shape=(2,), offsets=(0, 8)):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}


def content(header, data=bytes(8), size=None):
  if not isinstance(header, bytes):
    header = json.dumps(header).encode()
  size = len(header) if size is None else size
  return struct.pack('<Q', size) + header + data


HOSTILE = {
    'empty': (b'', 'the file has 0'),
    'seven bytes': (b'1234567', 'the file has 7'),
    'header of 2**63': (content({}, size=2**63), 'would have 9,223,372,036'),
    'header of 2**64 - 1': (content({}, size=2**64 - 1), 'its header would'),
    'header larger than the file': (content({}, size=11), 'would have 11'),
    'header cut': (content({'a': entry()}, size=20), 'no valid JSON'),
    'text': (content(b'hello'), 'no valid JSON (line 1'),
    'not UTF-8': (content(b'{"\xff": 1}'), 'byte 2 is not UTF-8'),
    'a list': (content([1]), 'the top is [1], not an object'),
    'null': (content(None), 'the top is None'),
    'nested headers': (content({'a': {'a': entry()}}), "'a' has no dtype, sha"),
    'nested lists': (content(b'[' * 5000), 'nested more than 16 deep'),
    'nested objects': (content(b'{"a":' * 5000), 'nested more than 16 deep'),
    'given twice': (
        content(b'{"a": 1, "a": 1}'), "'a' is given twice",
    ),
    'array is null': (content({'a': None}), "'a' has no dtype"),
    'array is a list': (content({'a': [1, 2]}), 'no dtype'),
    'array is a number': (content({'a': 3}), "'a' has no dtype"),
    'no offsets': (content({'a': {'dtype': 'F32', 'shape': [2]}}), 'has no'),
    'one offset': (content({'a': entry(offsets=[0])}), 'data_offsets'),
    'three offsets': (content({'a': entry(offsets=[0, 8, 8])}), 'data_offsets'),
    'offsets are text': (
        content({'a': entry(offsets=['0', '8'])}), "offsets of 'a' are ['0'",
    ),
    'offsets are floats': (content({'a': entry(offsets=[0., 8.])}), 'offsets'),
    'offsets are bools': (content({'a': entry(offsets=[False, 8])}), 'offsets'),
    'negative offsets': (
        content({'a': entry(offsets=[-8, 0])}), "offsets of 'a' are [-8, 0]",
    ),
    'offsets the other way round': (
        content({'a': entry(offsets=[8, 0])}), 'are [8, 0], beside 8 bytes',
    ),
    'offsets behind the end': (
        content({'a': entry(offsets=[8, 16])}), 'are [8, 16], beside 8 bytes',
    ),
    'offsets of 2**62': (
        content({'a': entry(offsets=[0, 2**62])}), 'beside 8 bytes',
    ),
    'a number of 80 bits': (
        content({'a': entry(offsets=[0, 2**80])}), 'has more than 64 bits',
    ),
    'a number of 10**5 digits': (
        content(b'{"a": 1' + b'0' * 10**5 + b'}'), 'has more than 64 bits',
    ),
    'NaN': (content(b'{"a": NaN}'), 'NaN is no number of JSON'),
    '1e999': (content(b'{"a": 1e999}'), '1e999 is too large'),
    'shape of 2**62': (
        content({'a': entry(shape=[2**62])}), 'and has 8',
    ),
    'shape whose product wraps to 8 bytes': (
        content({'a': entry(shape=[2**32, 2**32, 2])}), 'and has 8',
    ),
    'negative shape': (content({'a': entry(shape=[-2])}), "'a' is [-2]"),
    'two negative axes': (content({'a': entry(shape=[-1, -2])}), 'shape of'),
    'shape of floats': (content({'a': entry(shape=[2.0])}), 'shape of'),
    'shape of bools': (content({'a': entry(shape=[True, 2])}), 'shape of'),
    'shape of text': (content({'a': entry(shape=['2'])}), 'shape of'),
    'shape is a number': (content({'a': entry(shape=2)}), "shape of 'a' is 2"),
    'shape is null': (content({'a': entry(shape=None)}), 'shape of'),
    'thousand axes': (content({'a': entry(shape=[1] * 1000)}), 'shape of'),
    'dtype is a list': (content({'a': entry(dtype=['F32'])}), 'dtype of'),
    'dtype is null': (content({'a': entry(dtype=None)}), 'dtype of'),
    'dtype too wide': (content({'a': entry(dtype='F64')}), 'take 16 bytes and'),
    'arrays overlap': (
        content({'a': entry(), 'b': entry(shape=[1], offsets=[4, 8])}),
        "'b' lies over 'a'",
    ),
    'the same bytes twice': (content({'a': entry(), 'b': entry()}), 'over'),
    'a hole': (
        content({'a': entry(shape=[1], offsets=[4, 8])}),
        "4 bytes before 'a' are nothing",
    ),
    'bytes at the end': (
        content({'a': entry()}, bytes(9)), '1 bytes at its end are no array',
    ),
    'data without arrays': (content({}), '8 bytes at its end'),
    'metadata are a list': (content({'__metadata__': []}), 'metadata are no'),
    'metadata hold numbers': (
        content({'__metadata__': {'step': 3}}), 'metadata are no',
    ),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_one_sentence_without_an_allocation(tmp_path, case):
  made, words = HOSTILE[case]
  path = tmp_path / 'a.safetensors'
  path.write_bytes(made)
  with pytest.raises(UserError) as error:
    safetensors_files.open_safetensors(path)
  assert words in str(error.value) and str(path) in str(error.value)
  assert '\n' not in str(error.value) and len(str(error.value)) < 400


def test_names_cannot_write_to_the_terminal(tmp_path):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content({'\x1b[2J\n' + 'x' * 10**5: entry(shape=[3])}))
  with pytest.raises(UserError) as error:
    safetensors_files.open_safetensors(path)
  assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_what_the_package_writes_is_read(tmp_path):
  path = tmp_path / 'a.safetensors'
  arrays = {
      'a': np.arange(6, dtype=np.float32).reshape(2, 3),
      'b': np.ones((), np.float16),
      'c': np.asarray([1.5, -2], jnp.bfloat16),
      'd': np.zeros((0, 4), np.float32),
      'e': np.arange(3),
  }
  safetensors.numpy.save_file(arrays, path, {'step': '3'})
  got, metadata = safetensors_files.open_safetensors(path)
  assert metadata == {'step': '3'} and got.keys() == arrays.keys()
  for name in 'abcd':
    np.testing.assert_array_equal(got[name].read(), arrays[name])
  with pytest.raises(UserError, match="holds 'e' as 'I64'; it must be one"):
    got['e'].read()


def test_types_cannot_write_to_the_terminal(tmp_path):
  path = tmp_path / 'a.safetensors'
  for dtype in ('\x1b[2J\n', 'é' * 5000):
    path.write_bytes(content({'a' * 5000: entry(dtype=dtype)}))
    [tensor] = safetensors_files.open_safetensors(path)[0].values()
    with pytest.raises(UserError, match='must be one of F32') as error:
      tensor.read()
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_file_that_is_cut_after_it_was_opened_is_told(tmp_path):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(content({'a': entry()}))
  got, _ = safetensors_files.open_safetensors(path)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(UserError, match="ends within 'a'; copy it again, whole"):
    got['a'].read()
