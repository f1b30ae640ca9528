"""Files of embeddings, each of some thousand captions with their digests.

A file is four arrays, one after the other, as np.save writes them: a `File` of
captions, and the tokens of all, [sum of lengths, D], which are not read but
mapped. NumPy has no name for bfloat16, so tokens lie as unsigned integers.
"""
import functools
import hashlib
import math
import os
from typing import BinaryIO, NamedTuple

import numpy as np


class File(NamedTuple):
  """The captions of a file, one in each row.

  Attributes:
    digests: S24 [n].
    lengths: int32 [n], number of tokens.
    truncated: bool [n].
  """

  digests: np.ndarray
  lengths: np.ndarray
  truncated: np.ndarray


class Index(NamedTuple):
  """The captions of all files, ordered by their digests.

  Attributes:
    digests: S24 [n].
    lengths: int32 [n].
    truncated: bool [n].
    starts: int64 [n], row of the first token in its file.
    numbers: int32 [n], of the file.
    paths: paths of the files, by number.
  """

  digests: np.ndarray
  lengths: np.ndarray
  truncated: np.ndarray
  starts: np.ndarray
  numbers: np.ndarray
  paths: tuple[str, ...]

  def find(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(is it there, its row) of each digest."""
    if not len(self.digests):
      zero = np.zeros(len(digests), int)
      return zero.astype(bool), zero
    rows = np.searchsorted(self.digests, digests)
    rows = np.minimum(rows, len(self.digests) - 1)
    return self.digests[rows] == digests, rows


def digest(caption: str | bytes) -> bytes:
  """Returns the digest of a caption, 24 characters."""
  # In hexadecimal: NumPy drops zeros at the end of a string of bytes.
  content = caption if isinstance(caption, bytes) else caption.encode()
  return hashlib.sha256(content).hexdigest()[:24].encode()


def write(file: BinaryIO, captions: File, tokens: np.ndarray) -> None:
  """Writes a file; tokens [sum of lengths, D]."""
  for array in captions:
    np.save(file, array)
  np.save(file, tokens.view(f'u{tokens.itemsize}'))


def read(path: str | os.PathLike) -> File | None:
  """Reads the captions of a file; None if a loss of power has cut it."""
  try:
    captions, offset, shape, itemsize = _parse(path)
  except (OSError, ValueError, EOFError):
    return None
  whole = offset + math.prod(shape) * itemsize
  return captions if os.path.getsize(path) == whole else None


# More than the files of any cache: to open one again is to read its index. Maps
# hold no file open; Linux allows a process 65,530 of them.
@functools.lru_cache(maxsize=32_768)
def open_tokens(path: str, dtype: np.dtype) -> np.ndarray:
  """[rows, D] of a file, mapped from disk."""
  _, offset, shape, _ = _parse(path)
  return np.memmap(path, dtype, 'r', offset, shape)


def _parse(path):
  """(captions, offset of the tokens, their shape, bytes of a number)."""
  with open(path, 'rb') as file:
    captions = File(*(np.load(file) for _ in File._fields))
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return captions, file.tell(), shape, dtype.itemsize


def merge(files: dict[str, File]) -> Index:
  """Path -> captions, made one index."""
  join = lambda arrays, dtype: np.concatenate([np.empty(0, dtype), *arrays])
  digests = join([file.digests for file in files.values()], 'S24')
  lengths = join([file.lengths for file in files.values()], np.int32)
  truncated = join([file.truncated for file in files.values()], bool)
  starts = join(
      [np.cumsum(file.lengths) - file.lengths for file in files.values()],
      np.int64,
  )
  numbers = np.repeat(
      np.arange(len(files), dtype=np.int32),
      [len(file.digests) for file in files.values()],
  )
  # Of a caption that two processes wrote, either will do.
  digests, first = np.unique(digests, return_index=True)
  return Index(
      digests,
      lengths[first],
      truncated[first],
      starts[first],
      numbers[first],
      tuple(files),
  )
