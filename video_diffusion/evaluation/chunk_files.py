"""Arrays of a long computation in chunks on disk, so that it can be resumed.

A computation over many clips is cut into chunks. A chunk is a file, written
under its name when it is whole. A call that was killed finds the finished
chunks and makes the others: none is made twice or lost.
"""
from collections.abc import Iterator
import hashlib
import json
from typing import Any

from etils import epath
import numpy as np

from video_diffusion.filesystem import files
from video_diffusion.parallel import distributed

_MARK = 'identity.json'


class ChunkFiles:
  """The chunks of one computation in a folder, of every process.

  Attributes:
    folder: where they lie.
  """

  def __init__(self, folder: epath.PathLike, identity: dict[str, Any]):
    """Opens the folder; it is emptied unless its chunks are of this identity.

    All processes must call this at the same place of the program.

    Args:
      folder: local or gs://, the same for every process; made where missing.
      identity: everything that decides the arrays, as JSON values.

    Raises:
      UserError: the folder cannot be written.
    """
    self.folder = epath.Path(folder)
    mark = json.dumps(identity, sort_keys=True, indent=1)

    def open_folder():
      files.open_marked(self.folder, _MARK, mark)
      files.remove_parts(self.folder)

    distributed.by_first(open_folder)

  def path(self, chunk: int, process: int = 0) -> epath.Path:
    """Where a chunk lies, or the part of it that a process has made."""
    return self.folder / f'chunk_{chunk:06d}_{process:04d}.npz'

  def save(self, chunk: int, process: int = 0, **arrays: np.ndarray) -> None:
    """Writes a chunk."""
    with files.writing(self.path(chunk, process)) as part:
      np.savez(part, **arrays)

  def load(self, chunk: int, process: int = 0) -> dict[str, np.ndarray]:
    """Reads a chunk."""
    with self.path(chunk, process).open('rb') as file:
      with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)

  def parts(self, chunk: int) -> Iterator[dict[str, np.ndarray]]:
    """Reads what the processes have made of a chunk."""
    for path in sorted(self.folder.glob(f'chunk_{chunk:06d}_*.npz')):
      yield self.load(chunk, int(path.stem.split('_')[-1]))


def digest(identity: dict[str, Any]) -> str:
  """A short name for an identity: 16 hexadecimal digits of its SHA-256."""
  text = json.dumps(identity, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
