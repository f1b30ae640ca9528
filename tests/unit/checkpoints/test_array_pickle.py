"""Pickles of arrays, and those that would do harm."""
import builtins
import os
import pickle
import sys

import numpy as np
import pytest

from video_diffusion.checkpoints import array_pickle
from video_diffusion.errors import UserError

TREE = {
    'a': {'b': np.arange(6, dtype=np.float32).reshape(2, 3)},
    'c': np.float32([[1, 2], [3, 4]]).T,
    'd/e': np.array(5, np.float32),
}


def write(folder, value, protocol=4):
  path = folder / 'arrays.pickle'
  path.write_bytes(pickle.dumps(value, protocol))
  return path


def refuse(folder, value, message, protocol=4):
  with pytest.raises(UserError, match=message) as caught:
    array_pickle.read(write(folder, value, protocol))
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 500


class Calls:
  """Is pickled as a call."""

  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


def test_arrays_come_back(tmp_path):
  found = array_pickle.read(write(tmp_path, TREE))
  assert list(found) == ['a/b', 'c', 'd/e']
  for name, want in (('a/b', TREE['a']['b']), ('c', TREE['c']),
                     ('d/e', TREE['d/e'])):
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], want)


def test_a_module_that_would_leave_a_mark_is_not_imported(
    tmp_path, monkeypatch
):
  mark = tmp_path / 'mark'
  (tmp_path / 'leaves_a_mark.py').write_text(
      f'open({str(mark)!r}, "w").close()\ndef call(*args): pass\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  # By hand: pickling it would import it.
  name = b'\x8c\x0dleaves_a_mark\x8c\x04call\x93'
  attack = b'\x80\x04}\x8c\x01a' + name + b')Rs.'
  path = tmp_path / 'attack.pickle'
  path.write_bytes(attack)
  with pytest.raises(UserError, match="names 'leaves_a_mark.call', which is"):
    array_pickle.read(path)
  assert not mark.exists() and 'leaves_a_mark' not in sys.modules
  # The attack is a real one.
  pickle.loads(attack)
  assert mark.exists()
  del sys.modules['leaves_a_mark']


@pytest.mark.parametrize(
    'function, name',
    [
        (os.system, 'posix.system'),
        (builtins.eval, 'builtins.eval'),
        (np.fromfile, 'numpy.*fromfile'),
        (np.load, 'numpy.*load'),
        (getattr, 'builtins.getattr'),
    ],
)
def test_functions_are_refused_by_name(tmp_path, function, name):
  mark = tmp_path / 'mark'
  value = Calls(function, f'touch {mark}')
  refuse(tmp_path, {'a': value}, f'it names .{name}')
  # At other protocols names are given by other instructions.
  for protocol in (0, 1, 2, 3):
    refuse(tmp_path, {'a': value}, 'not begin as one of protocol 4', protocol)
  assert not mark.exists()


@pytest.mark.parametrize(
    'instructions, message',
    [
        (b'cos\nsystem\n)R.', 'the instruction GLOBAL'),
        (b'(ios\nsystem\n.', 'the instruction INST'),
        (b'\x82\x01.', 'the instruction EXT1'),
        (b'N\x97.', 'the instruction NEXT_BUFFER|READONLY'),
        (b'Pname\n.', 'the instruction PERSID'),
        (b'NQ.', 'the instruction BINPERSID'),
        (b'Nr\xff\xff\xff\x7f.', 'the instruction LONG_BINPUT'),
        (b')\x81.', 'the instruction NEWOBJ'),
        # The file claims more bytes than it has.
        (b'B\xff\xff\xff\x7fabc.', 'cut or damaged'),
        (b'\x8e' + b'\xff' * 7 + b'\x7fabc.', 'cut or damaged|BINBYTES8'),
        # A tuple in a tuple in a tuple, each twice.
        (b')\x94' + b'h\x00h\x00\x86\x94', 'uses a tuple or a dict twice'),
        # A key that is a tuple in a tuple, 19,000 deep.
        (b'})' + b'\x85' * 19_000 + b'Ns.', 'cut or damaged|is no name'),
        # A state for what has none: attributes of our own objects stay.
        (b'\x8c\x05numpy\x8c\x07ndarray\x93}\x8c\x01a\x8c\x01bsb.',
         'sets what is no array'),
        (b'\x8c\x05numpy\x8c\x05dtype\x93}\x8c\x01a\x8c\x01bsb.',
         'sets what is no array'),
        (b'\x8c\x05numpy\x8c\x07ndarray\x93)R.', 'cut or damaged'),
        (b'N.', "'' is no array"),
        (b'}.', "'' is no array"),
        (b'.', 'cut or damaged'),
        (b'', 'cut or damaged'),
    ],
)
def test_instructions_that_trees_of_arrays_do_not_have(
    tmp_path, instructions, message
):
  path = tmp_path / 'arrays.pickle'
  path.write_bytes(b'\x80\x04' + instructions)
  with pytest.raises(UserError, match=message):
    array_pickle.read(path)


@pytest.mark.parametrize(
    'tree, message',
    [
        # The objects stand in a list, which floats do not.
        ({'a': np.array([None])}, 'instruction EMPTY_LIST'),
        ({'a': np.zeros(3)}, "dtype 'f8', not float32"),
        ({'a': np.zeros(3, '>f4')}, 'big-endian'),
        ({'a': np.zeros(3, [('x', 'f4')])}, "dtype 'V4'"),
        ({'a': np.float32(1)}, 'names .numpy.*scalar'),
        ({'a': 1.5}, 'instruction BINFLOAT'),
        ({'a': 'text'}, "'a' is no array"),
        ({'a': {}}, "'a' is no array"),
        ({1: np.zeros(1, np.float32)}, 'the key 1 is no name'),
        ({'': np.zeros(1, np.float32)}, "the key '' is no name"),
        ({'a/b': np.zeros(1, np.float32), 'a': {'b': np.ones(1, np.float32)}},
         "gives 'a/b' twice"),
    ],
)
def test_trees_of_anything_else(tmp_path, tree, message):
  refuse(tmp_path, tree, message)


def test_depth_and_numbers_are_bounded(tmp_path):
  leaf = np.zeros(1, np.float32)
  deep = leaf
  for _ in range(array_pickle.MAX_DEPTH):
    deep = {'a': deep}
  refuse(tmp_path, deep, 'nested more than 8 deep')
  many = {str(i): np.zeros(1, np.float32) for i in range(600)}
  refuse(tmp_path, many, 'more than 500 arrays|instructions')


def test_a_shape_that_its_bytes_do_not_fill(tmp_path):
  content = pickle.dumps({'a': np.zeros((2, 3), np.float32)}, 4)
  # The shape follows the version: K\x01 K\x02 K\x03 \x86.
  spoiled = content.replace(b'K\x02K\x03\x86', b'K\x02K\xff\x86')
  assert spoiled != content
  path = tmp_path / 'arrays.pickle'
  path.write_bytes(spoiled)
  with pytest.raises(UserError, match='has other bytes'):
    array_pickle.read(path)


def test_bytes_are_not_taken_for_the_pointers_of_objects(tmp_path):
  content = pickle.dumps({'a': np.zeros(2, np.float32)}, 4)
  path = tmp_path / 'arrays.pickle'
  path.write_bytes(content.replace(b'\x8c\x02f4', b'\x8c\x02O8'))
  with pytest.raises(UserError, match="dtype 'O8', not float32"):
    array_pickle.read(path)


def test_every_cut_and_every_flipped_byte_ends_in_a_sentence(tmp_path):
  content = pickle.dumps(TREE, 4)
  path = tmp_path / 'arrays.pickle'
  for i in range(len(content)):
    path.write_bytes(content[:i])
    with pytest.raises(UserError):
      array_pickle.read(path)
    for bit in (1, 0x80):
      path.write_bytes(
          content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :]
      )
      try:
        array_pickle.read(path)  # a number or a name may have changed
      except UserError:
        pass


def test_nothing_of_numpy_is_found(tmp_path):
  # What a pickle can reach is this module's own.
  unpickler = array_pickle._Unpickler(b'')
  for module, name in (
      ('numpy', 'ndarray'), ('numpy', 'dtype'),
      ('numpy.core.multiarray', '_reconstruct'),
      ('numpy._core.multiarray', '_reconstruct'),
  ):
    found = type(unpickler.find_class(module, name))
    assert found.__module__ == array_pickle.__name__
  assert isinstance(unpickler, pickle.Unpickler)
