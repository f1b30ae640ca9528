"""Sources of videos, and mixtures of sources."""
from collections.abc import Iterable, Iterator, Sequence
import re
from typing import Any

import numpy as np

from video_diffusion.data import shuffle
from video_diffusion.data import windows

CONTENT = 'sha256:'  # begins a fingerprint that says what the data are


class Source:
  """The base of every data set: videos, and examples that are windows of them.

  A data set has `num_examples`, `length` and `read`; then each example is a
  random window of a video of its own. Other data sets have other methods, too.

  Attributes:
    num_examples: number of examples in an epoch.
  """

  num_examples: int

  @property
  def num_videos(self) -> int:
    """The number of videos."""
    return self.num_examples

  def length(self, video: int) -> int:
    """Returns the number of frames of a video."""
    raise NotImplementedError

  def read(self, video: int, frames: np.ndarray) -> dict[str, Any]:
    """Returns frames of a video.

    Args:
      video: number of the video.
      frames: int64 [num_frames], which of its frames.

    Returns:
      'video' uint8 [num_frames, height, width, 3]; where the data set has them,
      'labels' int32, within its `label_sizes`, 'caption' str, and further
      arrays that a network may be conditioned on (see `models.conditioning`).
      Every video has the same names.
    """
    raise NotImplementedError

  def video(self, index: int) -> int | None:
    """Returns the video of example `index`; None if its window decides."""
    return index

  def window(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> windows.Window:
    """Returns a random window of example `index`.

    Args:
      index: number of the example, in [0, num_examples).
      rng: draws the window, and nothing else.
      num_frames: frames of the window.
      frameskips: distances of its frames to draw from.

    Raises:
      UserError: no such window fits.
    """
    frames = windows.random_frames(
        rng, self.length(index), num_frames, frameskips
    )
    return windows.Window(index, frames)

  def example(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> dict[str, Any]:
    """Returns what `read` does of a random window of example `index`."""
    return self.read(*self.window(index, rng, num_frames, frameskips))

  def captions(self) -> Iterable[str]:
    """Returns all captions that videos may have; some may be repeated."""
    return ()


class Mixture:
  """Sources that take turns by weight; the position alone decides the source.

  Each source has its share of the first p examples, rounded up or down, for
  every p, and runs through its own epochs. Example `index` of the mixture is
  the one at that position, without shuffling.

  Attributes:
    sources: sources of the videos.
    images: the mixture that image frames are drawn from, itself by default.
    num_examples: examples in an epoch of every source, together.
    label_sizes: label sizes of all sources, also of images; () if they differ.
    fingerprint: fingerprints of all data on disk, joined by '-'; '' if there
      are none.
  """

  def __init__(
      self,
      sources: Sequence[Source],
      weights: Sequence[float],
      images: 'Mixture | None' = None,
  ):
    """Mixes `sources` by `weights`, both in order; see `shuffle.turns`."""
    self.sources = tuple(sources)
    self.images = images or self
    self.num_examples = sum(source.num_examples for source in sources)
    self._turns = shuffle.turns(weights)
    self._counts = np.bincount(self._turns, minlength=len(sources))
    # How often a party has had its turn before, within the period.
    self._before = np.empty_like(self._turns)
    for i, count in enumerate(self._counts):
      self._before[self._turns == i] = np.arange(count)
    every = (*self.sources, *self.images.sources)
    sizes = {tuple(getattr(source, 'label_sizes', ())) for source in every}
    self.label_sizes = sizes.pop() if len(sizes) == 1 else ()
    prints = [getattr(source, 'fingerprint', '') for source in every]
    self.fingerprint = '-'.join(prints) if any(prints) else ''

  def place(self, position: int) -> tuple[int, int]:
    """(i, n): the example at `position` is the n-th of source i."""
    period, offset = divmod(position, len(self._turns))
    i = int(self._turns[offset])
    return i, period * int(self._counts[i]) + int(self._before[offset])

  def distinct(self, position: int) -> int:
    """Returns how many different examples there are before `position`."""
    period, offset = divmod(position, len(self._turns))
    within = np.bincount(self._turns[:offset], minlength=len(self.sources))
    return sum(
        min(int(n), source.num_examples)
        for n, source in zip(
            period * self._counts + within, self.sources, strict=True
        )
    )

  def captions(self) -> Iterator[str]:
    """Returns all captions of the sources, also of the sources of images."""
    for source in dict.fromkeys((*self.sources, *self.images.sources)):
      yield from source.captions()

  def draw(self, rng: np.random.Generator) -> Source:
    """Draws a source by weight; with a single source it draws no number."""
    return self.sources[self._turns[rng.integers(len(self._turns))]]

  def example(self, index: int, rng, num_frames: int, frameskips=(1,)):
    """Returns a random window of example `index`; see `Source.example`."""
    i, n = self.place(index)
    source = self.sources[i]
    return source.example(n % source.num_examples, rng, num_frames, frameskips)


def may_be_same(before: str, now: str) -> bool:
  """Returns whether two fingerprints may be of the same data.

  One of the old form says nothing of the content that one of the new form
  knows. A new one is never followed by an old one.
  """
  pairs = before.split('-'), now.split('-')
  return len(pairs[0]) == len(pairs[1]) and all(
      a == b or (re.fullmatch('[0-9a-f]{16}', a) and b.startswith(CONTENT))
      for a, b in zip(*pairs, strict=True)
  )


def as_mixture(source: Source | Mixture) -> Mixture:
  """Returns a source as a mixture of one; returns a mixture as it is."""
  return source if isinstance(source, Mixture) else Mixture([source], [1])


def shared_fields(mixture: Mixture) -> frozenset[str]:
  """What goes with the video of each example, as example 0 of a source says.

  'labels' are left out where the sources differ in their `label_sizes`.
  """
  rng = np.random.default_rng(0)
  every = (*mixture.sources, *mixture.images.sources)
  shared = set.intersection(
      *(set(source.example(0, rng, 1)) for source in every)
  )
  return frozenset(
      shared - ({'video'} if mixture.label_sizes else {'video', 'labels'})
  )
