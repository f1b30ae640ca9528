"""Checkpoints of TensorFlow (`Saver`, tensor bundles), read without it.

A checkpoint PREFIX is PREFIX.index, a table of names in LevelDB's format whose
values are `BundleEntryProto` messages, and PREFIX.data-00000-of-00001, which
holds the arrays one after the other. Only what weights of one file need is
read: one shard, float32, blocks without compression. Every block of the index
and every array carries a CRC-32C; those of the index are checked here, those of
the arrays by the caller, who knows which weights they should be.
"""
from collections.abc import Iterator
import math
from typing import NamedTuple

from etils import epath
import numpy as np

from video_diffusion.checkpoints import crc32c
from video_diffusion.checkpoints import json_files
from video_diffusion.errors import UserError

SHARD = '.data-00000-of-00001'
MAX_INDEX = 2**24  # bytes, of some hundred thousand arrays
_FOOTER = 48  # bytes: two handles, padding and the magic number
_MAGIC = 0xDB4775248B80FB57
_TRAILER = 5  # bytes behind a block: kind of compression and CRC-32C
_FLOAT32 = 1  # in TensorFlow's DataType
_MAX_AXES = 16


class Entry(NamedTuple):
  """What the index says of an array.

  Attributes:
    dtype: number in TensorFlow's DataType; 1 is float32.
    shape: of the array.
    shard: number of the data file.
    offset: of its bytes in that file.
    size: in bytes.
    crc: masked CRC-32C of the bytes.
  """

  dtype: int
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  crc: int


def read_index(path: epath.PathLike) -> dict[str, Entry]:
  """The entries of a `.index` file by the names of the arrays.

  Raises:
    UserError: it is no whole index, or of a kind that is not read here.
    OSError: it cannot be read.
  """
  path = epath.Path(path)
  with path.open('rb') as file:
    content = file.read(MAX_INDEX + 1)
  try:
    if len(content) > MAX_INDEX:
      raise ValueError(f'it has more than {MAX_INDEX:,} bytes')
    entries = {}
    for key, value in _table(content):
      if key:
        entries[key.decode()] = _entry(value)
      else:
        _require_one_little_endian_shard(value)
    return entries
  except (ValueError, IndexError) as error:
    reason = str(error) if type(error) is ValueError else 'it ends too early'
    raise UserError(
        f"{path} is no sound index of a TensorFlow checkpoint ({reason}); copy "
        'the checkpoint again, whole.'
    ) from error


def read_array(path: epath.PathLike, name: str, entry: Entry) -> np.ndarray:
  """The float32 array of an entry.

  Args:
    path: of the data file.
    name: of the array, for errors.
    entry: of the index.

  Raises:
    UserError: it is not of float32, or the file does not hold all of it.
    OSError: the file cannot be read.
  """
  path = epath.Path(path)
  name = json_files.short(name)
  if entry.dtype != _FLOAT32 or entry.size != 4 * math.prod(entry.shape):
    raise UserError(
        f'{path}: the array {name} has TensorFlow\'s type {entry.dtype}, shape '
        f'{entry.shape} and {entry.size:,} bytes; it must be of float32.'
    )
  length = path.stat().length
  if entry.shard or entry.offset + entry.size > length:
    raise UserError(
        f'{path} has {length:,} bytes and ends before the end of the array '
        f'{name}; copy it again, whole.'
    )
  with path.open('rb') as file:
    file.seek(entry.offset)
    content = file.read(entry.size)
  if len(content) != entry.size:
    raise UserError(f'{path} ends within {name}; copy it again, whole.')
  return np.frombuffer(content, '<f4').reshape(entry.shape)


# ---- The table ---------------------------------------------------------------
def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
  """(key, value) of all rows of a table."""
  if len(content) < _FOOTER or (
      int.from_bytes(content[-8:], 'little') != _MAGIC
  ):
    raise ValueError('it does not end as a table does')
  footer = content[-_FOOTER:]
  _, at = _handle(footer, 0)  # of the block of filters, which is not read
  handle, _ = _handle(footer, at)
  for _, value in _rows(_block(content, handle)):
    yield from _rows(_block(content, _handle(value, 0)[0]))


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
  offset, size = handle
  stop = offset + size
  if stop + _TRAILER > len(content):
    raise ValueError('a block lies behind its end')
  if content[stop]:
    raise ValueError('its blocks are compressed, which Saver never does')
  stored = int.from_bytes(content[stop + 1 : stop + _TRAILER], 'little')
  if stored != crc32c.masked(content[offset : stop + 1]):
    raise ValueError(f'the block at byte {offset:,} has another CRC-32C')
  return content[offset:stop]


def _rows(block: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Rows of a block: a key shares its beginning with the key before."""
  restarts = int.from_bytes(block[-4:], 'little')
  end = len(block) - 4 * (restarts + 1)
  if end < 0:
    raise ValueError('a block is shorter than its own list of restarts')
  at, key = 0, b''
  while at < end:
    shared, at = _varint(block, at)
    rest, at = _varint(block, at)
    size, at = _varint(block, at)
    if shared > len(key) or at + rest + size > end:
      raise ValueError('a row is longer than its block')
    key = key[:shared] + block[at : at + rest]
    at += rest
    yield key, block[at : at + size]
    at += size


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
  """((offset, size), where reading goes on)."""
  offset, at = _varint(content, at)
  size, at = _varint(content, at)
  return (offset, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
  """(a whole number in groups of 7 bits, where reading goes on)."""
  value = 0
  for i in range(10):
    byte = content[at + i]
    value |= (byte & 0x7F) << 7 * i
    if byte < 0x80:
      return value, at + i + 1
  raise ValueError('a number has more than 64 bits')


# ---- The messages ------------------------------------------------------------
def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
  """(number, value) of the fields of a protocol buffer message."""
  at = 0
  while at < len(message):
    tag, at = _varint(message, at)
    number, kind = tag >> 3, tag & 7
    if kind == 0:
      value, at = _varint(message, at)
      yield number, value
      continue
    if kind == 2:
      size, at = _varint(message, at)
    elif kind in (1, 5):
      size = 8 if kind == 1 else 4
    else:
      raise ValueError(f'a message has a field of the kind {kind}')
    if at + size > len(message):
      raise ValueError('a message is longer than its row')
    value = message[at : at + size]
    yield number, value if kind == 2 else int.from_bytes(value, 'little')
    at += size


def _entry(message: bytes) -> Entry:
  """An entry of a BundleEntryProto."""
  values = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
  shape = ()
  for number, value in _fields(message):
    if number == 2:
      shape = tuple(_dimensions(value))
    elif number in values:
      if not isinstance(value, int):
        raise ValueError(f'field {number} of an entry is no number')
      values[number] = value
    else:
      raise ValueError('an array is stored in slices')
  if len(shape) > _MAX_AXES:
    raise ValueError(f'an array has {len(shape)} axes')
  return Entry(values[1], shape, *(values[i] for i in (3, 4, 5, 6)))


def _dimensions(message: int | bytes) -> Iterator[int]:
  """The axes of a TensorShapeProto."""
  for number, dimension in _fields(_message(message)):
    if number == 2:
      sizes = [v for n, v in _fields(_message(dimension)) if n == 1]
      size = sizes[-1] if sizes else 0
      if not isinstance(size, int):
        raise ValueError('an axis is no number')
      yield size


def _message(value: int | bytes) -> bytes:
  if isinstance(value, int):
    raise ValueError('a number stands where a message should')
  return value


def _require_one_little_endian_shard(message: bytes) -> None:
  """Checks a BundleHeaderProto."""
  values = dict(_fields(message))
  if values.get(1) != 1 or values.get(2, 0) != 0:
    raise ValueError('its arrays are in several files or big-endian')
