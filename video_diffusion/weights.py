"""Weights in safetensors files: export of the EMA, and reading it back."""
import hashlib
import json
import math
from typing import Any, NamedTuple

from etils import epath
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from video_diffusion.errors import UserError

FOLDER = 'weights'
NUM_FILES = 4
_DTYPES = {'F32': jnp.float32, 'F16': jnp.float16, 'BF16': jnp.bfloat16}


def save(
    params: Any, directory: epath.PathLike, *, step: int, dtype: jnp.dtype
) -> None:
  """Writes a parameter tree as `ema-<i>-of-4.safetensors` files of like size.

  Args:
    params: nested dict of arrays; names are joined by dots.
    directory: made where missing.
    step: updates behind these weights, kept in the files' metadata.
    dtype: float32 or bfloat16.
  """
  import safetensors.numpy

  directory = epath.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  flat = {name: np.asarray(x).astype(dtype) for name, x in flat.items()}
  files = [{} for _ in range(NUM_FILES)]
  sizes = [0] * NUM_FILES
  # Largest first, each into the emptiest file.
  for name in sorted(flat, key=lambda name: (-flat[name].size, name)):
    i = sizes.index(min(sizes))
    files[i][name] = np.ascontiguousarray(flat[name])
    sizes[i] += flat[name].size
  for i, tensors in enumerate(files):
    content = safetensors.numpy.save(tensors, metadata={'step': str(step)})
    name = f'ema-{i}-of-{NUM_FILES}.safetensors'
    (directory / name).write_bytes(content)


def digest(params: Any) -> str:
  """SHA-256 of a parameter tree: names, dtypes, shapes and bytes, in order."""
  sha = hashlib.sha256()
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  for name, x in sorted(flat.items()):
    x = np.ascontiguousarray(x)
    sha.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    sha.update(x.tobytes())
  return sha.hexdigest()


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
          f'{self.file} holds {self.name!r} as {self.dtype}; it must be one of '
          f'{", ".join(_DTYPES)}.'
      )
    dtype = np.dtype(_DTYPES[self.dtype])
    num_bytes = math.prod(self.shape) * dtype.itemsize
    with self.file.open('rb') as file:
      file.seek(self.start)
      content = file.read(num_bytes)
    if len(content) != num_bytes:
      raise UserError(
          f'{self.file} ends within {self.name!r}; copy it again, whole.'
      )
    return np.frombuffer(content, dtype).reshape(self.shape)


def open_safetensors(
    path: epath.PathLike,
) -> tuple[dict[str, Tensor], dict[str, str]]:
  """(arrays by name, metadata) of a file, local or gs://, without its values.

  Not by the package: it reads neither bfloat16 into NumPy, nor a part of a file
  that is not local.

  Raises:
    UserError: it is no safetensors file.
  """
  path = epath.Path(path)
  # The header is a JSON object after its length in 8 little-endian bytes.
  with path.open('rb') as file:
    size = int.from_bytes(file.read(8), 'little')
    header = file.read(min(size, 100_000_000))
  try:
    header = json.loads(header)
    metadata = header.pop('__metadata__', {})
    return {
        name: Tensor(
            path,
            name,
            x['dtype'],
            tuple(x['shape']),
            8 + size + x['data_offsets'][0],
        )
        for name, x in header.items()
    }, metadata
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(f'{path} is no safetensors file.') from error


def load(directory: epath.PathLike, target: Any) -> tuple[Any, int]:
  """(parameters shaped as `target`, step) from files that `save` wrote.

  Raises:
    UserError: a file or a parameter is missing, or has another shape.
  """
  flat, step = {}, 0
  paths = sorted(epath.Path(directory).glob('ema-*-of-*.safetensors'))
  for path in paths:
    tensors, metadata = open_safetensors(path)
    flat |= {name: tensor.read() for name, tensor in tensors.items()}
    step = int(metadata['step'])
  wanted = flax.traverse_util.flatten_dict(target, sep='.')
  for name, leaf in wanted.items():
    if name not in flat:
      raise UserError(
          f'{directory} has no parameter {name!r} in its {len(paths)} files; '
          'it must hold all files of one export of this model.'
      )
    if flat[name].shape != leaf.shape:
      raise UserError(
          f'{directory} holds {name!r} of shape {flat[name].shape}; the model '
          f'wants {leaf.shape}.'
      )
  flat = {name: flat[name].astype(leaf.dtype) for name, leaf in wanted.items()}
  return flax.traverse_util.unflatten_dict(flat, sep='.'), step


