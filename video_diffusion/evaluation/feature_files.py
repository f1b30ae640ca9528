"""Features of a set of clips, kept on disk chunk by chunk."""
from collections.abc import Callable
from typing import Any, Protocol

from etils import epath
import jax
import numpy as np

from video_diffusion.evaluation import chunk_files
from video_diffusion.evaluation import clip_sets
from video_diffusion.parallel import distributed

CHUNK = 32  # clips; two cores take two minutes for their I3D features


class Extractor(Protocol):
  """Maps clips to a vector each.

  Attributes:
    name: short name, which names files.
    identity: everything that decides the vectors, as JSON values.
    description: the same in words, for the protocol of a score.
  """

  name: str
  identity: dict[str, Any]
  description: str

  def __call__(self, videos: np.ndarray) -> np.ndarray:
    """uint8 [n, frames, height, width, 3] -> float32 [n, d]."""


def features(
    clips: clip_sets.ClipSet,
    extractor: Extractor,
    folder: epath.PathLike,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
  """The features of all clips, in their order.

  The processes share the chunks, and all get all features. A call that is
  interrupted and made again reads the chunks that are on disk.

  Args:
    clips: the set.
    extractor: makes the features.
    folder: the same for every process; chunks lie below it.
    progress: called with (clips done, clips in all) of this process.

  Returns:
    float32 [len(clips), d].
  """
  identity = {
      'clips': clips.identity, 'count': len(clips),
      'extractor': extractor.identity, 'chunk': CHUNK,
  }
  name = f'{extractor.name}_{chunk_files.digest(identity)}'
  chunks = chunk_files.ChunkFiles(epath.Path(folder) / name, identity)
  starts = range(0, len(clips), CHUNK)
  own = range(jax.process_index(), len(starts), jax.process_count())
  if progress:
    progress(0, len(clips))
  for chunk in own:
    stop = min(starts[chunk] + CHUNK, len(clips))
    if not chunks.path(chunk).exists():
      videos = clips.read(starts[chunk], stop)
      chunks.save(chunk, features=extractor(videos))
    if progress:
      progress(stop, len(clips))
  distributed.wait_for_all('features')
  return np.concatenate([
      chunks.load(chunk)['features'] for chunk in range(len(starts))
  ])
