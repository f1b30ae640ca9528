"""Weights and the mean clip of C3D, from the files that TGAN v2 published.

The files are conv3d_deepnetA_ucf.npz, Chainer's copy of the Caffe model
c3d_ucf101_finetune_whole_iter_20000, and mean2.npz. Neither is part of this
project; README of github.com/pfnet-research/tgan2 says where they are.
"""
import hashlib
from typing import Any
import zipfile
import zlib

from absl import logging
from etils import epath
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.models import c3d

_DENSE = ('fc6', 'fc7', 'fc8')


def load_c3d(path: epath.PathLike) -> tuple[dict[str, Any], str]:
  """Reads the weights of C3D.

  The sizes are those of the arrays, which must fit each other; the released
  network has 78,409,573 weights.

  Args:
    path: of an npz with 'conv1a/W' [out, in, 3, 3, 3] and 'conv1a/b' [out], and
      so on to 'conv5b', and 'fc6/W' [out, in] and 'fc6/b' to 'fc8', where in
      counts channels before frames, rows and columns.

  Returns:
    (params for `models.c3d.C3D` in float32, SHA-256 of the file in hex).

  Raises:
    UserError: there is no such file, it is no npz, or an array is missing, has
      a shape that does not fit, or is not finite.
  """
  arrays, digest, path = _read(path)
  params, width = {}, 3
  for name in (*c3d.CONVOLUTIONS, *_DENSE):
    bias = _array(arrays, f'{name}/b', (None,), path)
    if name == 'fc6':  # It takes all channels of some places.
      kernel = _array(arrays, 'fc6/W', (len(bias), None), path)
      if kernel.shape[1] % width:
        raise UserError(
            f'{path}: the array fc6/W has the shape {kernel.shape}; beside the '
            f'others its second axis must be a multiple of {width}.'
        )
    else:
      kernel_size = () if name in _DENSE else (3, 3, 3)
      kernel = _array(
          arrays, f'{name}/W', (len(bias), width, *kernel_size), path
      )
    # [out, in, ...] -> [..., in, out], as Flax has it.
    kernel = np.moveaxis(kernel, (1, 0), (-2, -1))
    params[name] = {'kernel': np.ascontiguousarray(kernel), 'bias': bias}
    width = len(bias)
  if arrays:
    logging.warning(
        '%s holds %d arrays that C3D does not have, %s among them; they are '
        'not used.', path, len(arrays), sorted(arrays)[0],
    )
  return params, digest


def load_c3d_mean(path: epath.PathLike) -> tuple[np.ndarray, str]:
  """Reads the mean clip of C3D's training data.

  Args:
    path: of an npz with 'mean' [3, 16, 128, 171] (mean2.npz), blue first.

  Returns:
    (float32 mean, SHA-256 of the file in hex).

  Raises:
    UserError: there is no such file, it is no npz, or the array is missing, has
      another number of elements, or is not finite.
  """
  arrays, digest, path = _read(path)
  if 'mean' in arrays and arrays['mean'].size == np.prod(c3d.MEAN_SHAPE):
    # TGAN's first protocol reads the same file with an axis of length 1.
    arrays['mean'] = arrays['mean'].reshape(c3d.MEAN_SHAPE)
  return _array(arrays, 'mean', c3d.MEAN_SHAPE, path), digest


def _read(path):
  """(arrays by name, SHA-256, path) of an npz."""
  path = epath.Path(files.expand(path, Argument('path'), bucket=True))
  try:
    with path.open('rb') as f:
      digest = hashlib.file_digest(f, 'sha256').hexdigest()
      f.seek(0)
      with np.load(f, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}, digest, path
  except FileNotFoundError as error:
    raise UserError(
        f'{path} does not exist; it must be an npz of TGAN v2.'
    ) from error
  # A bare npy has no context manager; pickles are refused by a ValueError.
  except (
      ValueError, TypeError, AttributeError, EOFError, KeyError,
      zipfile.BadZipFile, zlib.error, NotImplementedError, IsADirectoryError,
  ) as error:
    raise UserError(
        f'{path} cannot be read as an npz of plain arrays ({error}); copy it '
        'again.'
    ) from error


def _array(arrays, name, shape, path):
  """Takes an array out of `arrays`: float32 of that shape, None for any."""
  if name not in arrays:
    raise UserError(
        f'{path} has no array {name}; give the file that TGAN v2 published.'
    )
  array = arrays.pop(name)
  fits = array.ndim == len(shape) and 0 not in array.shape and all(
      want in (None, n) for want, n in zip(shape, array.shape, strict=True)
  )
  if not fits:
    wanted = ', '.join('any' if n is None else str(n) for n in shape)
    raise UserError(
        f'{path}: the array {name} has the shape {array.shape}; beside the '
        f'others it must be ({wanted}).'
    )
  if array.dtype.kind != 'f' or not np.isfinite(array).all():
    raise UserError(
        f'{path}: the array {name} is not of finite floating-point numbers; '
        'copy the file again.'
    )
  return np.ascontiguousarray(array, np.float32)
