"""Finished blocks of a rollout on disk, for a call that is interrupted."""
from collections.abc import Callable
import functools
import hashlib
import json
import pathlib
from typing import Any

from etils import epath
import jax
import numpy as np

from video_diffusion.filesystem import files

_PACKAGE = pathlib.Path(__file__).parents[1]


class BlockFiles:
  """The blocks of one process in `folder`, as .npy files."""

  def __init__(self, folder: epath.PathLike, call: dict[str, Any]):
    """Opens the folder, emptied unless its blocks are of this very call.

    Args:
      folder: see `folder_of`; made where missing.
      call: everything that decides the frames, as JSON values. The versions of
        JAX and of this package are added.
    """
    self._folder = epath.Path(folder)
    call = call | {'code': [jax.__version__, _code()]}
    mark = json.dumps(call, sort_keys=True, default=str)
    files.open_marked(self._folder, 'call.json', mark)

  def load(
      self, batch: int, block: int, agree: Callable[[bool], bool]
  ) -> np.ndarray | None:
    """A finished block, None where it has to be sampled.

    Args:
      batch: number of the batch, from 0.
      block: number of the block within the plan, from 0.
      agree: whether a condition holds in all processes, which must do the same.
    """
    path = self._path(batch, block)
    return np.load(path) if agree(path.exists()) else None

  def save(self, batch: int, block: int, x: np.ndarray) -> None:
    """Keeps a finished block."""
    with files.writing(self._path(batch, block)) as part:
      np.save(part, x)

  def _path(self, batch, block):
    return self._folder / f'batch_{batch}_block_{block}.npy'


def folder_of(folder: epath.PathLike) -> epath.Path:
  """Where this process keeps its blocks, below the folder of a call."""
  return epath.Path(folder) / f'blocks_{jax.process_index()}'


def digest(x) -> str:
  """SHA-256 of an array: dtype, shape and bytes."""
  x = np.ascontiguousarray(x)
  sha = hashlib.sha256(f'{x.dtype} {x.shape}'.encode())
  sha.update(x.tobytes())
  return sha.hexdigest()


@functools.cache
def _code() -> str:
  """SHA-256 of this package's source, which an update may change."""
  sha = hashlib.sha256()
  for path in sorted(_PACKAGE.rglob('*.py')):
    sha.update(f'{path.relative_to(_PACKAGE)}\n'.encode())
    sha.update(path.read_bytes())
  return sha.hexdigest()
