"""JSON that others may have written, read within limits.

A file is refused before it is read where it is too large, and afterwards where
it is nested too deeply, gives a name twice, or holds a number that is not
finite or has more than 64 bits.
"""
import json
from typing import Any

from etils import epath

from video_diffusion.errors import UserError

MAX_BYTES = 4 * 2**20  # a config of thousands of prompts has less
MAX_DEPTH = 16


def read(path: epath.PathLike, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
  """The object in a JSON file, local or gs://.

  Args:
    path: of the file, which must exist.
    max_bytes: largest size that is read.

  Raises:
    UserError: the file is too large, or holds anything but one JSON object.
    OSError: the file cannot be read.
  """
  path = epath.Path(path)
  size = path.stat().length
  if size > max_bytes:
    raise UserError(
        f'{path} has {size:,} bytes, and at most {max_bytes:,} are read; '
        'restore the file.'
    )
  with path.open('rb') as file:
    # What is no regular file has no size.
    content = file.read(max_bytes + 1)
  return parse(content[:max_bytes], str(path))


def parse(content: bytes, name: str) -> dict[str, Any]:
  """The object that JSON in UTF-8 holds; `name` is the file's, for errors.

  Raises:
    UserError: the content is anything else.
  """
  try:
    tree = json.loads(
        content.decode(),
        object_pairs_hook=_object,
        parse_constant=_refuse_constant,
        parse_float=_float,
        parse_int=_int,
    )
    if not isinstance(tree, dict):
      raise ValueError(f'the top is {short(tree)}, not an object')
    _require_depth(tree, MAX_DEPTH)
  except RecursionError:
    reason = f'it is nested more than {MAX_DEPTH} deep'
  except UnicodeDecodeError as error:
    reason = f'byte {error.start:,} is not UTF-8'
  except json.JSONDecodeError as error:
    reason = f'line {error.lineno}, column {error.colno}: {error.msg}'
  except ValueError as error:
    reason = str(error)
  else:
    return tree
  raise UserError(f'{name} is no valid JSON ({reason}); restore the file.')


def short(value: Any) -> str:
  """The repr of a value, on one line of at most 80 characters."""
  try:
    text = repr(value)
  except ValueError:  # Python writes no whole numbers of thousands of digits
    text = 'a number of many digits'
  return text if len(text) <= 80 else f'{text[:77]}...'


def _object(pairs):
  tree = dict(pairs)
  if len(tree) < len(pairs):
    seen = set()
    for name, _ in pairs:
      if name in seen:
        raise ValueError(f'{short(name)} is given twice')
      seen.add(name)
  return tree


def _refuse_constant(name):
  raise ValueError(f'{name} is no number of JSON')


def _float(text):
  value = float(text)
  if value in (float('inf'), float('-inf')):
    raise ValueError(f'the number {text[:40]} is too large')
  return value


def _int(text):
  value = int(text) if len(text) <= 20 else 2**64
  if not -(2**63) <= value < 2**64:
    raise ValueError(f'the number {text[:40]} has more than 64 bits')
  return value


def _require_depth(tree, depth):
  if not depth:
    raise RecursionError
  if isinstance(tree, dict):
    tree = list(tree.values())
  if isinstance(tree, list):
    for value in tree:
      _require_depth(value, depth - 1)
