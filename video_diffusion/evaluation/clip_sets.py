"""Sets of clips that are scored: real ones, samples, and altered ones.

A set is read in any order, a few clips at a time, and says what it is: features
of its clips can be kept on disk and found again.
"""
from collections.abc import Callable
import dataclasses
from typing import Any, Protocol

import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shuffle
from video_diffusion.evaluation import chunk_files
from video_diffusion.metrics import flicker

_CLIP, _WINDOW = 1, 2  # streams of random numbers


class ClipSet(Protocol):
  """Clips that are read by number.

  Attributes:
    identity: everything that decides the clips, as JSON values.
  """

  identity: dict[str, Any]

  def __len__(self) -> int:
    """Returns the number of clips."""

  def read(self, start: int, stop: int) -> np.ndarray:
    """Returns uint8 [stop - start, frames, height, width, 3]."""


class RealClips:
  """Clips of a data set, in an order that a seed decides.

  Without replacement every clip comes once before one comes again, by another
  window: `distinct` of the clips are different.

  Attributes:
    identity: see `ClipSet`.
    distinct: number of different clips.
    num_clips: number of clips of the data set.
  """

  def __init__(
      self,
      source: mixture_lib.Source,
      *,
      split: str,
      count: int,
      frames: int,
      frameskips: tuple[int, ...] = (1,),
      first: int = 0,
      seed: int = 0,
      replacement: bool = False,
  ):
    """Chooses the clips.

    Args:
      source: the clips.
      split: name of the split that they are of.
      count: number of clips.
      frames: number of frames of each.
      frameskips: distances of frames that are drawn from.
      first: number of clips of the order that are passed over.
      seed: decides the order and the windows.
      replacement: whether every clip is drawn anew from all.
    """
    self._source = mixture_lib.as_mixture(source)
    self._count, self._frames, self._first = count, frames, first
    self._frameskips, self._seed = tuple(frameskips), seed
    self._replacement = replacement
    self.num_clips = size = self._source.num_examples
    self.distinct = (
        len({self._clip(i) for i in range(count)}) if replacement
        else min(count, size)
    )
    self.identity = {
        'split': split, 'count': count, 'frames': frames, 'first': first,
        'frameskips': list(frameskips), 'seed': seed,
        'replacement': replacement, 'clips': size,
        'epochs': [getattr(s, 'epoch', '') for s in self._source.sources],
        'fingerprint': getattr(source, 'fingerprint', ''),
    }

  def __len__(self):
    return self._count

  def read(self, start: int, stop: int) -> np.ndarray:
    """Returns uint8 [stop - start, frames, height, width, 3]."""
    return np.stack([self.example(i)['video'] for i in range(start, stop)])

  def example(self, index: int) -> dict[str, Any]:
    """Returns clip `index` with its labels or caption; see `data.mixture`."""
    rng = np.random.default_rng(
        [self._seed, _WINDOW, self._first + index]
    )
    return self._source.example(
        self._clip(index), rng, self._frames, self._frameskips
    )

  def _clip(self, index):
    size, position = self._source.num_examples, self._first + index
    if self._replacement:
      rng = np.random.default_rng([self._seed, _CLIP, position])
      return int(rng.integers(size))
    epoch, place = divmod(position, size)
    key = shuffle.mix(self._seed, epoch)
    return shuffle.permute(place, size=size, key=key)


class Samples:
  """Samples of a model in chunks on disk, as `sample_sets.generate` left them.

  Attributes:
    identity: see `ClipSet`.
  """

  def __init__(
      self,
      chunks: chunk_files.ChunkFiles,
      identity: dict[str, Any],
      *,
      count: int,
      chunk_size: int,
  ):
    """Opens the samples.

    Args:
      chunks: with 'video' and 'number' of each process.
      identity: everything that decides the samples.
      count: number of samples; the last chunk may hold more.
      chunk_size: number of samples of a chunk.
    """
    self.identity = identity
    self._chunks, self._count, self._size = chunks, count, chunk_size

  def __len__(self):
    return self._count

  def read(self, start: int, stop: int) -> np.ndarray:
    """Returns uint8 [stop - start, frames, height, width, 3]."""
    found = {}
    for chunk in range(start // self._size, (stop - 1) // self._size + 1):
      for part in self._chunks.parts(chunk):
        for number, video in zip(part['number'], part['video'], strict=True):
          found[int(number)] = video
    return np.stack([found[number] for number in range(start, stop)])


@dataclasses.dataclass(frozen=True)
class Altered:
  """The clips of another set after some change.

  Attributes:
    clips: the other set.
    name: name of the change.
    change: (clips, number of the first) -> the changed clips.
  """

  clips: ClipSet
  name: str
  change: Callable[[np.ndarray, int], np.ndarray]

  @property
  def identity(self) -> dict[str, Any]:
    """See `ClipSet`."""
    return {'altered': self.name, 'of': self.clips.identity}

  def __len__(self):
    return len(self.clips)

  def read(self, start: int, stop: int) -> np.ndarray:
    """Returns uint8 [stop - start, frames, height, width, 3]."""
    return self.change(self.clips.read(start, stop), start)


def shuffled_frames(clips: ClipSet) -> Altered:
  """The clips with the frames of each in a random order of its own."""

  def change(videos, first):
    return np.concatenate([
        flicker.shuffled_frames(video[None], seed=first + i)
        for i, video in enumerate(videos)
    ])

  return Altered(clips, 'shuffled frames', change)


def repeated_frame(clips: ClipSet) -> Altered:
  """The clips with the middle frame of each in place of all."""

  def change(videos, first):
    del first
    return flicker.repeated_frame(videos, frame=videos.shape[1] // 2)

  return Altered(clips, 'middle frame repeated', change)
