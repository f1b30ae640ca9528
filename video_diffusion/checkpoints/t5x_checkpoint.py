"""Checkpoints of T5X, read by flax and tensorstore, without t5x.

T5X cannot be installed beside TFDS, and writes nothing of its own: an index in
msgpack, which holds the small arrays or all, and zarr arrays beside it.
"""
import ast
from collections.abc import Callable, Iterable
import re
from typing import Any, NamedTuple

from etils import epath
import flax.serialization
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.errors import UserError

_MAX_AXES = 8
_MAX_GIN = 2**20  # bytes
_DTYPES = [
    np.dtype(x) for x in (np.float64, np.float32, np.float16, jnp.bfloat16)
]
# Field of T5X's T5Config -> ours.
_SETTINGS = {
    'vocab_size': 'vocab_size',
    'emb_dim': 'dim',
    'num_encoder_layers': 'num_layers',
    'num_heads': 'num_heads',
    'head_dim': 'head_dim',
    'mlp_dim': 'mlp_dim',
}
# T5X takes jax.nn's functions, whose gelu is the tanh approximation.
_ACTIVATIONS = {'gelu': 'gelu_new', 'swish': 'silu'}


class T5XCheckpoint(NamedTuple):
  """The encoder's part of a checkpoint.

  Attributes:
    shapes: of the arrays, by names as 'encoder/layers_0/mlp/wo/kernel'.
    read: names -> arrays, all at once; only these are read.
    settings: fields of T5Config that its config.gin gives.
    settings_file: that file, None where there is none.
  """

  shapes: dict[str, tuple[int, ...]]
  read: Callable[[Iterable[str]], dict[str, np.ndarray]]
  settings: dict[str, Any]
  settings_file: epath.Path | None


def stored_name(name: str) -> str:
  """What T5X calls the array."""
  return f'target/{name}'


def open_t5x(path: epath.Path) -> T5XCheckpoint:
  """Opens a checkpoint.

  Args:
    path: the msgpack file, or the folder that has one called 'checkpoint' and
      the arrays beside it. config.gin is looked for in that folder and above.

  Raises:
    UserError: it is not a T5X checkpoint. `read` raises it for an array that
      is not there or not whole.
  """
  index = path if path.is_file() else path / 'checkpoint'
  try:
    tree = flax.serialization.msgpack_restore(index.read_bytes())
    target = tree.get('optimizer', tree)['target']
    arrays = flax.traverse_util.flatten_dict(
        {key: target.get(key, {}) for key in ('encoder', 'token_embedder')},
        sep='/',
        is_leaf=lambda _, x: 'kvstore' in x,
    )
  except Exception as error:  # msgpack raises many kinds
    raise UserError(
        f"{index} is no checkpoint of T5X: it must be msgpack that holds "
        "'optimizer/target'."
    ) from error
  shapes = {name: _shape(index, name, x) for name, x in arrays.items()}

  def read(names):
    arrays_or_specs = {name: arrays[name] for name in names}
    specs = {k: x for k, x in arrays_or_specs.items() if isinstance(x, dict)}
    return arrays_or_specs | _read_tensorstore(index.parent, specs)

  files = [folder / 'config.gin' for folder in (path, path.parent)]
  file = next((file for file in files if file.exists()), None)
  settings = gin_settings(_text(file)) if file else {}
  return T5XCheckpoint(shapes, read, settings, file)


def _shape(index, name, x) -> tuple[int, ...]:
  """The shape of an array, or of one that a spec places beside the index.

  Raises:
    UserError: it is neither, or the spec leads out of the checkpoint.
  """
  array = json_files.short(stored_name(name))
  if isinstance(x, np.ndarray) and x.dtype in _DTYPES:
    return x.shape
  try:
    place, shape = _place(x), x['metadata']['shape']
    sound = (
        x['driver'] == 'zarr'
        and len(shape) <= _MAX_AXES
        and all(type(n) is int and 0 <= n < 2**40 for n in shape)
    )
  except (AttributeError, KeyError, TypeError, IndexError) as error:
    raise UserError(
        f'{index}: what stands for the array {array} is neither '
        'numbers nor the spec of a zarr array; copy the checkpoint again.'
    ) from error
  if not sound:
    raise UserError(
        f'{index}: the spec of the array {array} has the driver '
        f'{json_files.short(x["driver"])} and the shape '
        f'{json_files.short(shape)}; it must be of zarr and of whole numbers.'
    )
  if (
      not isinstance(place, str)
      or not re.fullmatch(r'[\w.,+=@ -]+(/[\w.,+=@ -]+)*/?', place)
      or '..' in place.split('/')
  ):
    raise UserError(
        f'{index} places the array {array} at '
        f'{json_files.short(place)}; only what lies below that folder is read.'
    )
  return tuple(shape)


def _place(spec):
  """The path in a spec, relative to the folder of the index."""
  return spec['kvstore'].get('path') or spec['path']


def _text(file: epath.Path) -> str:
  """The text of config.gin."""
  if file.stat().length > _MAX_GIN:
    raise UserError(
        f'{file} has more than {_MAX_GIN:,} bytes; restore the file.'
    )
  return file.read_bytes().decode(errors='replace')


def tensorstore_spec(folder: epath.PathLike, spec: dict[str, Any]) -> dict:
  """Where the array of a spec in the index of `folder` lies, for tensorstore.

  The index holds paths relative to the folder, and the driver 'gfile', which
  tensorstore has not.
  """
  place = f'{folder}/{_place(spec).strip("/")}/'
  if place.startswith('gs://'):
    bucket, _, place = place.removeprefix('gs://').partition('/')
    kvstore = {'driver': 'gcs', 'bucket': bucket, 'path': place}
  else:
    kvstore = {'driver': 'file', 'path': place}
  return {
      'driver': spec['driver'],
      'kvstore': kvstore,
      # A chunk that was not copied would otherwise be read as zeros.
      'fill_missing_data_reads': False,
  }


def _read_tensorstore(folder, specs):
  if not specs:
    return {}
  import tensorstore

  name, arrays = '', {}
  stores = {
      name: tensorstore.open(tensorstore_spec(folder, spec), read=True)
      for name, spec in specs.items()
  }
  try:
    reads = {}
    for name, store in stores.items():
      store = store.result()
      _require_as_in_index(folder, name, store, specs[name])
      reads[name] = store.read()
    for name, future in reads.items():
      arrays[name] = future.result()
  except ValueError as error:
    raise UserError(
        f'{folder}: the array {stored_name(name)} is missing or not whole '
        f'({_reason(error)}); copy the checkpoint again.'
    ) from error
  return arrays


def _reason(error):
  """What tensorstore says, without the spec, which it quotes at the end.

  It may quote the file as well, of which no more than a line is shown.
  """
  text = str(error).partition(' [')[0]
  return ''.join(c if c.isprintable() else '?' for c in text[:400])


def _require_as_in_index(folder, name, store, spec):
  """An array's own file may claim more than the index, and than there is."""
  shape = tuple(spec['metadata']['shape'])
  chunk = store.chunk_layout.read_chunk.shape
  good = (
      store.shape == shape
      and store.dtype.numpy_dtype in _DTYPES
      and all(c <= max(1, n) for c, n in zip(chunk, shape, strict=True))
  )
  if not good:
    raise UserError(
        f'{folder}: the array {stored_name(name)} is {store.dtype.name} of '
        f'shape {tuple(store.shape)} in chunks of {tuple(chunk)}, but the '
        f'index gives the shape {shape}; copy the checkpoint again.'
    )


def gin_settings(text: str) -> dict[str, Any]:
  """Fields of T5Config that config.gin gives as literals.

  Reads 'network.T5Config.emb_dim = 8' as well as lines below
  'network.T5Config:'.
  """
  values, inside = {}, False
  for line in text.splitlines():
    line = line.partition('#')[0].rstrip()
    if re.fullmatch(r'(.*\W)?T5Config:', line):
      inside = True
      continue
    inside = inside and (not line or line[0].isspace())
    field = r'\s+(\w+)' if inside else r'(?:.*\W)?T5Config\.(\w+)'
    if match := re.fullmatch(rf'{field}\s*=\s*(.+)', line):
      try:
        values[match[1]] = ast.literal_eval(match[2])
      except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass  # a macro or a reference: the arrays tell the sizes
  settings = {
      field: values[name] for name, field in _SETTINGS.items() if name in values
  }
  if 'mlp_activations' in values:
    # ('relu',), or ('gelu', 'linear') where it is gated.
    activations = values['mlp_activations']
    name = str(activations)
    if isinstance(activations, (tuple, list)):
      names = tuple(map(str, activations))
      plain = len(names) == 1 or names[1:] == ('linear',)
      name = names[0] if plain else str(names)
    settings['activation'] = _ACTIVATIONS.get(name, name)
  return settings
