"""Sources of clips, random windows of clips, and mixtures of sources."""
from collections.abc import Iterable, Iterator, Sequence
import re
from typing import Protocol

import numpy as np

from video_diffusion.data import shuffle
from video_diffusion.errors import UserError

CONTENT = 'sha256:'  # begins a fingerprint that says what the data are


class Source(Protocol):
  """The interface of every data set: clips that are read by id."""

  num_examples: int
  num_groups: int  # videos that the clips were cut from

  def example(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> dict[str, np.ndarray]:
    """Returns a random window of a clip; see `window`.

    Returns:
      'video' uint8 [num_frames, height, width, 3]; where the data set has them,
      'labels' int32, within its `label_sizes`, 'caption' str, and further
      arrays that a network may be conditioned on (see `models.conditioning`).
      Every clip has the same names.
    """

  def group(self, index: int) -> int:
    """Returns the id of the video that clip `index` was cut from."""

  def captions(self) -> Iterable[str]:
    """Returns all captions that the clips may have; some may be repeated."""


def window(
    rng: np.random.Generator,
    length: int,
    num_frames: int,
    frameskips: Sequence[int] = (1,),
) -> np.ndarray:
  """Returns which frames of a clip a random window takes, int64 [num_frames].

  The distance of its frames is drawn uniformly from those of `frameskips` at
  which the window fits, its start then from all places where it does.

  Raises:
    UserError: the window fits at none.
  """
  fitting = [
      skip for skip in frameskips if (num_frames - 1) * skip < length
  ]
  if not fitting:
    raise UserError(
        f'a clip has {length} frames, fewer than the '
        f'{(num_frames - 1) * min(frameskips) + 1} wanted.'
    )
  # A single choice draws nothing.
  skip = fitting[rng.integers(len(fitting))] if fitting[1:] else fitting[0]
  start = rng.integers(length - (num_frames - 1) * skip)
  return start + skip * np.arange(num_frames)


class Mixture:
  """Sources that take turns by weight; the position alone decides the source.

  Each source has its share of the first p examples, rounded up or down, for
  every p, and runs through its own epochs. Also a source of clips: its clip
  `index` is the one at that position, without shuffling.

  Attributes:
    sources: sources of the clips.
    images: the mixture that image frames are drawn from, itself by default.
    num_examples: clips of all sources together.
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
    """Returns how many different clips the examples before `position` hold."""
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
    """Returns a random window of clip `index`; see `Source.example`."""
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
  """What goes with the video of every example, as clip 0 of each source says.

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
