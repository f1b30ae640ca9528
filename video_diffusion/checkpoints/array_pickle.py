"""Pickles of nested dicts of float32 arrays, read without running them.

A pickle is a program: `pickle.load` calls whatever the file names. Here three
walls stand in front of that. The instructions are listed first, and only those
that such a tree needs are admitted; none of them can name a thing but
STACK_GLOBAL. The three names that NumPy writes for an array stand for objects
of this module, and any other name is refused before anything is imported: what
a pickle can call is the code below and nothing else. And every array must be
plain float32 with as many bytes as its shape says. The file is read whole, so
no instruction allocates more than the file has.
"""
import io
import math
import pickle
import pickletools
from typing import Any

from etils import epath
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.errors import UserError

MAX_BYTES = 2**28
MAX_DEPTH = 8
MAX_ARRAYS = 500
# About 40 for each array. Tuples cannot be nested deeper than that, which the
# stack of a thread bears.
_MAX_INSTRUCTIONS = 20_000
_MAX_AXES = 16
# Protocol 4 has no others for such arrays. It writes each into the memo in
# order, so the memo, as all else, is no larger than the file.
_INSTRUCTIONS = frozenset({
    'PROTO', 'FRAME', 'STOP', 'MARK', 'MEMOIZE', 'BINGET', 'LONG_BINGET',
    'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2',
    'SHORT_BINUNICODE', 'BINUNICODE', 'SHORT_BINBYTES', 'BINBYTES',
    'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3',
    'EMPTY_DICT', 'SETITEM', 'SETITEMS', 'STACK_GLOBAL', 'REDUCE', 'BUILD',
})
# What makes an object that may be used again: a text, bytes, a name, or the
# dtype that a call has made.
_REUSED = frozenset({
    'SHORT_BINUNICODE', 'BINUNICODE', 'SHORT_BINBYTES', 'BINBYTES',
    'STACK_GLOBAL', 'REDUCE',
})


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
  """The arrays of a pickle by their keys, joined by slashes.

  Args:
    path: of a pickle of protocol 4 that holds a dict of dicts of NumPy arrays
      and nothing else, local or gs://.

  Raises:
    UserError: it holds anything else, or is not whole. Nothing that it names is
      imported or called.
    OSError: it cannot be read.
  """
  path = epath.Path(path)
  with path.open('rb') as file:
    content = file.read(MAX_BYTES + 1)
  try:
    if len(content) > MAX_BYTES:
      raise _RefusedError(f'it has more than {MAX_BYTES:,} bytes')
    _require_admitted(content)
    arrays = {}
    _flatten(_Unpickler(content).load(), '', MAX_DEPTH, arrays)
    return arrays
  except _RefusedError as error:
    reason, cause = str(error), error
  except Exception as error:  # unpickling raises many kinds
    reason, cause = 'it is cut or damaged', error
  raise UserError(
      f'{path} is no pickle of nested dicts of float32 arrays: {reason}; copy '
      'the file again, from where it is published.'
  ) from cause


class _RefusedError(Exception):
  """A pickle holds what is not read; the message is the reason."""


def _require_admitted(content: bytes) -> None:
  """Lists the instructions without running them.

  A tuple or a dict may not be used twice: a few that hold each other twice make
  a tree of billions, over which a hash or a repr would take for ever.
  """
  if content[:2] != b'\x80\x04':
    raise _RefusedError('it does not begin as one of protocol 4')
  memo, last = [], ''
  for i, (instruction, argument, _) in enumerate(pickletools.genops(content)):
    name = instruction.name
    if name not in _INSTRUCTIONS:
      raise _RefusedError(f'it has the instruction {name}')
    if i >= _MAX_INSTRUCTIONS:
      raise _RefusedError(f'it has more than {i:,} instructions')
    if name == 'FRAME':
      continue
    if name == 'MEMOIZE':
      memo.append(last)
    elif name.endswith('BINGET') and memo[argument] not in _REUSED:
      raise _RefusedError('it uses a tuple or a dict twice')
    else:
      last = name


class _Unpickler(pickle.Unpickler):
  """Finds three names, each an object of this module."""

  def __init__(self, content: bytes):
    super().__init__(io.BytesIO(content))

  def find_class(self, module: str, name: str) -> Any:
    # NumPy 1 writes numpy.core, NumPy 2 numpy._core.
    if name == '_reconstruct' and module in (
        'numpy.core.multiarray', 'numpy._core.multiarray'
    ):
      return _NEW_ARRAY
    if (module, name) == ('numpy', 'ndarray'):
      return _NDARRAY
    if (module, name) == ('numpy', 'dtype'):
      return _NEW_DTYPE
    raise _RefusedError(
        f'it names {json_files.short(f"{module}.{name}")}, which is neither '
        'imported nor called here'
    )

  def persistent_load(self, pid: Any) -> Any:
    raise _RefusedError('it names objects outside of it')


class _NDArray:
  """Stands for numpy.ndarray, the first argument of `_reconstruct`."""

  __slots__ = ()

  def __setstate__(self, state):
    raise _RefusedError('it sets what is no array')


class _NewArray(_NDArray):
  """Stands for `_reconstruct`, which makes an empty array to be filled."""

  __slots__ = ()

  def __call__(self, kind, shape, typecode):
    if (kind, shape, typecode) != (_NDARRAY, (0,), b'b'):
      raise _RefusedError('an array begins as NumPy writes none')
    return _Array()


class _NewDtype(_NDArray):
  """Stands for `numpy.dtype`."""

  __slots__ = ()

  def __call__(self, name, align, copy):
    if name != 'f4':
      raise _RefusedError(
          f'an array has the dtype {json_files.short(name)}, not float32'
      )
    return _Float32()


class _Float32:
  """Stands for a dtype, which NumPy makes in two steps: its name, its order."""

  __slots__ = ('sound',)

  def __init__(self):
    self.sound = False

  def __setstate__(self, state):
    if state != (3, '<', None, None, None, -1, -1, 0):
      raise _RefusedError('an array is big-endian, or has fields')
    self.sound = True


class _Array:
  """Stands for an array; `value` is the real one when its state is set."""

  __slots__ = ('value',)

  def __init__(self):
    self.value = None

  def __setstate__(self, state):
    version, shape, dtype, fortran, content = state
    if version != 1 or type(dtype) is not _Float32 or not dtype.sound:
      raise _RefusedError('an array is not of float32')
    if (
        type(shape) is not tuple
        or len(shape) > _MAX_AXES
        or not all(type(n) is int and n >= 0 for n in shape)
        or type(content) is not bytes
        or len(content) != 4 * math.prod(shape)
    ):
      raise _RefusedError(
          f'an array of the shape {json_files.short(shape)} has other bytes'
      )
    flat = np.frombuffer(content, '<f4')
    self.value = flat.reshape(shape, order='F' if fortran is True else 'C')


_NDARRAY, _NEW_ARRAY, _NEW_DTYPE = _NDArray(), _NewArray(), _NewDtype()


def _flatten(tree: Any, prefix: str, depth: int, arrays: dict) -> None:
  """Adds the arrays of a tree to `arrays`."""
  if not depth or len(arrays) > MAX_ARRAYS:
    raise _RefusedError(
        f'it is nested more than {MAX_DEPTH} deep, or has more than '
        f'{MAX_ARRAYS:,} arrays'
    )
  if prefix in arrays:
    raise _RefusedError(f'it gives {json_files.short(prefix)} twice')
  if type(tree) is _Array and tree.value is not None and prefix:
    arrays[prefix] = tree.value
  elif type(tree) is dict and tree:
    for key, value in tree.items():
      if type(key) is not str or not key:
        raise _RefusedError(f'the key {json_files.short(key)} is no name')
      _flatten(value, f'{prefix}/{key}' if prefix else key, depth - 1, arrays)
  else:
    raise _RefusedError(f'{json_files.short(prefix)} is no array and no dict')
