"""Weights in safetensors files: export of the EMA, and reading it back."""
from collections.abc import Iterable
import hashlib
import re
from typing import Any

from absl import logging
from etils import epath
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.checkpoints import safetensors_files
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

FOLDER = 'weights'
NUM_FILES = 4
_FILE = re.compile(r'ema-(\d{1,5})-of-(\d{1,5})\.safetensors')


def save(
    params: Any, directory: epath.PathLike, *, step: int, dtype: jnp.dtype
) -> None:
  """Writes a parameter tree as `ema-<i>-of-4.safetensors` files of like size.

  The folder takes its name when all files are written; another export that had
  the name is there until then. The metadata of each file hold the step and the
  digest of the whole export, so that files of two exports are told apart.

  Args:
    params: nested dict of arrays; names are joined by dots.
    directory: made where missing.
    step: updates behind these weights.
    dtype: float32 or bfloat16.
  """
  import safetensors.numpy

  flat = flax.traverse_util.flatten_dict(params, sep='.')
  flat = {name: np.asarray(x).astype(dtype) for name, x in flat.items()}
  shards = [{} for _ in range(NUM_FILES)]
  sizes = [0] * NUM_FILES
  # Largest first, each into the emptiest file.
  for name in sorted(flat, key=lambda name: (-flat[name].size, name)):
    i = sizes.index(min(sizes))
    shards[i][name] = np.ascontiguousarray(flat[name])
    sizes[i] += flat[name].size
  metadata = {'step': str(step), 'export': digest(flat)}
  with files.writing_folder(directory) as folder:
    for i, tensors in enumerate(shards):
      content = safetensors.numpy.save(tensors, metadata=metadata)
      name = f'ema-{i}-of-{NUM_FILES}.safetensors'
      (folder / name).write_bytes(content)


def digest(params: Any) -> str:
  """SHA-256 of a parameter tree: names, dtypes, shapes and bytes, in order."""
  sha = hashlib.sha256()
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  for name, x in sorted(flat.items()):
    x = np.ascontiguousarray(x)
    sha.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    sha.update(x.tobytes())
  return sha.hexdigest()


def load(directory: epath.PathLike, target: Any) -> tuple[Any, int]:
  """(parameters shaped as `target`, step) from the files of one export.

  Files without metadata, as other programs write them, are of step 0. Arrays
  that the target lacks are passed over with a warning.

  Raises:
    UserError: a file is missing, damaged or of another export; an array is
      missing, stands in two files, has another shape, or is not finite.
  """
  directory = epath.Path(directory)
  tensors, metadata = _open(directory)
  wanted = flax.traverse_util.flatten_dict(target, sep='.')
  for name, leaf in wanted.items():
    if name not in tensors:
      raise UserError(
          f'{directory} has no array {name!r}, which the model has; it must '
          'hold an export of this model.'
      )
    if tensors[name].shape != leaf.shape:
      raise UserError(
          f'{directory} holds {name!r} of shape {tensors[name].shape}; the '
          f'model wants {leaf.shape}.'
      )
  extra = sorted(tensors.keys() - wanted.keys())
  if extra:
    logging.warning(
        '%s holds %d arrays that the model does not have, %s among them; they '
        'are not used.', directory, len(extra), json_files.short(extra[0]),
    )
  # All of an export are of its digest; what else is there is not read.
  read = tensors if 'export' in metadata else wanted
  flat = {name: tensors[name].read() for name in read}
  if 'export' in metadata and metadata['export'] != digest(flat):
    raise UserError(
        f'the arrays in {directory} are not those that were exported; copy all '
        f'{len(_paths(directory))} files again.'
    )
  flat = {name: flat[name].astype(leaf.dtype) for name, leaf in wanted.items()}
  return flax.traverse_util.unflatten_dict(flat, sep='.'), _step(
      directory, metadata
  )


def require_finite(params: Any, where: epath.PathLike) -> None:
  """Raises UserError, naming the array, for one with a NaN or an infinity.

  Args:
    params: tree of arrays on devices, or of NumPy.
    where: they were read from.
  """
  flat = flax.traverse_util.flatten_dict(params, sep='.')
  finite = jax.jit(lambda xs: [jnp.isfinite(x).all() for x in xs])(
      list(flat.values())
  )
  finite = jax.device_get(finite)
  bad = [name for name, good in zip(flat, finite, strict=True) if not good]
  if bad:
    raise UserError(
        f'{where} holds weights that are no numbers (NaN or infinite) in '
        f'{len(bad)} of {len(flat)} arrays, {bad[0]!r} first; take those of an '
        'earlier step, or train again.'
    )


def _paths(directory) -> list[epath.Path]:
  """The files of an export, in order.

  Raises:
    UserError: there are none, some are missing, or there are two sets.
  """
  found = {
      path: _FILE.fullmatch(path.name)
      for path in directory.glob('ema-*.safetensors')
  }
  found = {path: m for path, m in found.items() if m}
  numbers = {path: int(m[1]) for path, m in found.items()}
  counts = sorted({int(m[2]) for m in found.values()})
  if not found:
    raise UserError(
        f'{directory} holds no weights; its files are called '
        'ema-<i>-of-<n>.safetensors.'
    )
  if len(counts) > 1:
    raise UserError(
        f'{directory} holds files of several exports, of '
        f'{_words(counts)} files; keep those of one.'
    )
  [count] = counts
  missing = sorted(set(range(count)) - {*numbers.values()})
  if missing or len(found) != count:
    names = [f'ema-{i}-of-{count}.safetensors' for i in missing[:3]]
    raise UserError(
        f'{directory} holds {len(found)} files of an export of {count}'
        + (f', without {_words(names)}' if names else '')
        + '; copy all of one export.'
    )
  return sorted(found, key=numbers.get)


def _open(directory):
  """(arrays by name, metadata) of all files, which must be of one export."""
  tensors, first = {}, None
  paths = _paths(directory)
  for path in paths:
    inside, metadata = safetensors_files.open_safetensors(path)
    for name in inside.keys() & tensors.keys():
      raise UserError(
          f'{directory} holds {json_files.short(name)} twice, in '
          f'{tensors[name].file.name} and {path.name}; keep the files of one '
          'export.'
      )
    tensors |= inside
    mine = {k: metadata.get(k) for k in ('step', 'export')}
    first = mine if first is None else first
    if mine != first:
      what = 'step' if mine['step'] != first['step'] else 'export'
      raise UserError(
          f'{directory} holds files of two exports: {paths[0].name} is of '
          f'{what} {_named(first[what])}, {path.name} of {what} '
          f'{_named(mine[what])}; copy all files of one.'
      )
  return tensors, {k: v for k, v in first.items() if v is not None}


def _step(directory, metadata) -> int:
  text = metadata.get('step')
  if text is None:
    logging.warning(
        'The files in %s do not say of which step they are; they are taken as '
        'of step 0.', directory,
    )
    return 0
  if not re.fullmatch(r'[0-9]{1,15}', text):
    raise UserError(
        f'the files in {directory} name the step {json_files.short(text)}; it '
        'must be a whole number of at least 0.'
    )
  return int(text)


def _named(text) -> str:
  return 'unknown' if text is None else json_files.short(text[:12])


def _words(things: Iterable[Any]) -> str:
  return ' and '.join(map(str, things))
