"""Safetensors files, local or gs://, by their header.

The header is compared with the length of the file before any array is read, so
that a file that is cut, damaged or made to harm costs no memory. The package
`safetensors` is used for writing alone: it reads neither bfloat16 into NumPy,
nor a part of a file that is not local.
"""
import math
from typing import Any, NamedTuple

from etils import epath
import jax.numpy as jnp
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.errors import UserError

MAX_HEADER = 2**24  # bytes, of some hundred thousand arrays
MAX_AXES = 16
_DTYPES = {'F32': jnp.float32, 'F16': jnp.float16, 'BF16': jnp.bfloat16}
# The length of every array must fit, also of those that are not read.
_ITEM_BYTES = {
    'BOOL': 1, 'U8': 1, 'I8': 1, 'F8_E4M3': 1, 'F8_E5M2': 1, 'F8_E8M0': 1,
    'U16': 2, 'I16': 2, 'F16': 2, 'BF16': 2, 'U32': 4, 'I32': 4, 'F32': 4,
    'U64': 8, 'I64': 8, 'F64': 8, 'C64': 8,
}


class Tensor(NamedTuple):
  """An array in a safetensors file, not yet read.

  Attributes:
    file: that holds it.
    name: in the file.
    dtype: in safetensors' words.
    shape: of the array.
    start: of its bytes in the file.
  """

  file: epath.Path
  name: str
  dtype: str
  shape: tuple[int, ...]
  start: int

  def read(self) -> np.ndarray:
    """Its values.

    Raises:
      UserError: they are of a kind that no weights have, or not all there.
    """
    if self.dtype not in _DTYPES:
      raise UserError(
          f'{self.file} holds {json_files.short(self.name)} as '
          f'{json_files.short(self.dtype)}; it must be one of '
          f'{", ".join(_DTYPES)}.'
      )
    dtype = np.dtype(_DTYPES[self.dtype])
    num_bytes = math.prod(self.shape) * dtype.itemsize
    with self.file.open('rb') as file:
      file.seek(self.start)
      content = file.read(num_bytes)
    if len(content) != num_bytes:
      raise UserError(
          f'{self.file} ends within {json_files.short(self.name)}; copy it '
          'again, whole.'
      )
    return np.frombuffer(content, dtype).reshape(self.shape)


def open_safetensors(
    path: epath.PathLike,
) -> tuple[dict[str, Tensor], dict[str, str]]:
  """(arrays by name, metadata) of a file, without its values.

  Raises:
    UserError: it is no safetensors file, or its header does not fit its length.
    OSError: it cannot be read.
  """
  path = epath.Path(path)
  length = path.stat().length
  # The header is a JSON object after its length in 8 little-endian bytes.
  with path.open('rb') as file:
    size = int.from_bytes(file.read(8), 'little')
    if size > min(MAX_HEADER, length - 8):
      raise _unsound(
          path, f'its header would have {size:,} bytes, the file has {length:,}'
      )
    header = file.read(size)
  header = json_files.parse(header, f'the header of {path}')
  metadata = header.pop('__metadata__', {})
  if not isinstance(metadata, dict) or not all(
      isinstance(text, str) for text in metadata.values()
  ):
    raise _unsound(path, 'its metadata are no strings by name')
  spans = {
      name: _span(path, name, entry, length - 8 - size)
      for name, entry in header.items()
  }
  _require_whole(path, spans, length - 8 - size)
  return {
      name: Tensor(
          path, name, entry['dtype'], tuple(entry['shape']),
          8 + size + spans[name][0],
      )
      for name, entry in header.items()
  }, metadata


def _unsound(path, reason) -> UserError:
  return UserError(
      f'{path} is no sound safetensors file: {reason}; copy it again, whole.'
  )


def _span(path, name: str, entry: Any, length: int) -> tuple[int, int]:
  """(first byte, one past the last) of an array, within the data of a file."""
  name = json_files.short(name)
  try:
    dtype, shape, (start, stop) = (
        entry['dtype'], entry['shape'], entry['data_offsets']
    )
  except (KeyError, TypeError, ValueError) as error:
    raise _unsound(
        path, f'{name} has no dtype, shape and data_offsets'
    ) from error
  if not isinstance(dtype, str):
    raise _unsound(path, f'the dtype of {name} is {json_files.short(dtype)}')
  if (
      not isinstance(shape, list)
      or len(shape) > MAX_AXES
      or not all(type(n) is int and n >= 0 for n in shape)
  ):
    raise _unsound(path, f'the shape of {name} is {json_files.short(shape)}')
  if not all(type(n) is int for n in (start, stop)) or not (
      0 <= start <= stop <= length
  ):
    offsets = json_files.short([start, stop])
    raise _unsound(
        path, f'the offsets of {name} are {offsets}, beside {length:,} bytes'
    )
  wanted = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
  if dtype in _ITEM_BYTES and stop - start != wanted:
    raise _unsound(
        path,
        f'{name}, {dtype} of shape {json_files.short(shape)}, would take '
        f'{wanted:,} bytes and has {stop - start:,}',
    )
  return start, stop


def _require_whole(path, spans, length):
  """Requires that the arrays fill the data, none over another."""
  end, last = 0, 'the header'
  for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
    name = json_files.short(name)
    if start < end:
      raise _unsound(path, f'{name} lies over {last}')
    if start > end:
      raise _unsound(path, f'{start - end:,} bytes before {name} are nothing')
    end, last = stop, name
  if end != length:
    raise _unsound(path, f'{length - end:,} bytes at its end are no array')
