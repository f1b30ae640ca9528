"""Weights in safetensors files: export of the EMA, and reading it back."""
import json
from typing import Any

from etils import epath
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

FOLDER = 'weights'
NUM_FILES = 4
_DTYPES = {'F32': jnp.float32, 'BF16': jnp.bfloat16}


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


def load(directory: epath.PathLike, target: Any) -> tuple[Any, int]:
  """(parameters shaped as `target`, step) from files that `save` wrote.

  Raises:
    ValueError: a file or a parameter is missing, or has another shape.
  """
  import safetensors

  flat, step = {}, 0
  paths = sorted(epath.Path(directory).glob('ema-*-of-*.safetensors'))
  for path in paths:
    content = path.read_bytes()
    # Not safetensors.numpy: it writes bfloat16 but does not read it.
    for name, item in safetensors.deserialize(content):
      values = np.frombuffer(item['data'], _DTYPES[item['dtype']])
      flat[name] = values.reshape(item['shape'])
    # The header is a JSON object after its length in 8 little-endian bytes.
    header = content[8 : 8 + int.from_bytes(content[:8], 'little')]
    step = int(json.loads(header)['__metadata__']['step'])
  wanted = flax.traverse_util.flatten_dict(target, sep='.')
  for name, leaf in wanted.items():
    if name not in flat:
      raise ValueError(
          f'{directory} has no parameter {name!r} in its {len(paths)} files; '
          'it must hold all files of one export of this model.'
      )
    if flat[name].shape != leaf.shape:
      raise ValueError(
          f'{directory} holds {name!r} of shape {flat[name].shape}; the model '
          f'wants {leaf.shape}.'
      )
  flat = {name: flat[name].astype(leaf.dtype) for name, leaf in wanted.items()}
  return flax.traverse_util.unflatten_dict(flat, sep='.'), step


