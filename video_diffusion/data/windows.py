"""Windows of videos, and which of them the examples of an epoch are."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from video_diffusion.data import stretches as stretches_lib
from video_diffusion.errors import UserError

EPOCHS = ('windows', 'videos', 'clips')


class Window(NamedTuple):
  """Frames of a video.

  Attributes:
    video: number of the video.
    frames: int64 [num_frames], which of its frames.
  """

  video: int
  frames: np.ndarray


def span(num_frames: int, frameskip: int) -> int:
  """Returns how many frames of a video a window reaches over."""
  return (num_frames - 1) * frameskip + 1


def random_frames(
    rng: np.random.Generator,
    length: int,
    num_frames: int,
    frameskips: Sequence[int] = (1,),
) -> np.ndarray:
  """Returns which frames of a video a random window takes, int64 [num_frames].

  The distance of its frames is drawn uniformly from those of `frameskips` at
  which the window fits, its start then from all places where it does.

  Raises:
    UserError: the window fits at none.
  """
  skip = _draw_skip(
      rng, frameskips, lambda skip: span(num_frames, skip) <= length
  )
  if skip is None:
    raise _too_short('the video', length, num_frames, frameskips)
  start = rng.integers(length - span(num_frames, skip) + 1)
  return start + skip * np.arange(num_frames)


class Examples:
  """The examples of an epoch, by number, and the windows that each may be.

  `epoch` is what an epoch runs over:

  - 'windows': every start of every video is equally likely, so that a video
    counts by its length. All windows of a span stand in a line, video by video,
    and the line is cut into as many equal parts as there are examples. Example
    i is a uniformly random window of part i, whatever the span. An epoch thus
    takes a window of each part. It has as many examples as windows of the
    shortest span fit into the videos side by side.
  - 'videos': every video is equally likely, whatever its length, and every
    start within it. An epoch takes a window of each video. (A video that has
    gaps, from which clips are held out, counts as several.)
  - 'clips': a window of each clip, as the records store them, and no window
    reaches over two of them. So began all runs before there was this choice.

  Attributes:
    num_examples: number of examples in an epoch.
  """

  def __init__(
      self, stretches: stretches_lib.Stretches, *, epoch: str, min_frames: int
  ):
    """Finds the examples.

    Args:
      stretches: the videos; with 'clips' each clip is a stretch.
      epoch: one of EPOCHS.
      min_frames: frames of the shortest span of a window.
    """
    self._stretches = stretches
    self._by_windows = epoch == 'windows'
    self._ends: dict[int, np.ndarray] = {}
    self.num_examples = (
        int((stretches.frames // min_frames).sum()) if self._by_windows
        else len(stretches.frames)
    )

  def video(self, index: int) -> int | None:
    """Returns the video of an example; None if the window decides."""
    return None if self._by_windows else int(self._stretches.videos[index])

  def window(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> Window:
    """Returns a random window of example `index`.

    Each distance of frames that fits is equally likely; with 'windows' one fits
    if it does so in any video.

    Raises:
      UserError: no distance fits.
    """
    if not self._by_windows:
      length = self._stretches.frames[index]
      frames = random_frames(rng, length, num_frames, frameskips)
      return self._within(index, frames)
    ends_of = lambda skip: self._ends_at(span(num_frames, skip))
    skip = _draw_skip(rng, frameskips, lambda skip: ends_of(skip)[-1] > 0)
    if skip is None:
      longest = self._stretches.frames.max()
      raise _too_short('the longest video', longest, num_frames, frameskips)
    ends = ends_of(skip)
    # In whole numbers: index * total + r is uniform below num_examples * total.
    total = int(ends[-1])
    place = (index * total + int(rng.integers(total))) // self.num_examples
    stretch = int(np.searchsorted(ends, place, 'right'))
    start = place - (int(ends[stretch - 1]) if stretch else 0)
    return self._within(stretch, start + skip * np.arange(num_frames))

  def _within(self, stretch, frames):
    videos, starts = self._stretches.videos, self._stretches.starts
    return Window(int(videos[stretch]), int(starts[stretch]) + frames)

  def _ends_at(self, frames):
    """int64 [n]: windows of so many frames in a stretch and all before it."""
    if frames not in self._ends:  # several threads may find the same
      counts = np.maximum(self._stretches.frames - frames + 1, 0)
      self._ends[frames] = np.cumsum(counts)
    return self._ends[frames]


def _draw_skip(
    rng: np.random.Generator,
    frameskips: Sequence[int],
    fits: Callable[[int], bool],
) -> int | None:
  """A random frameskip of those that fit; a single one draws no number."""
  fitting = [skip for skip in frameskips if fits(skip)]
  if len(fitting) > 1:
    return fitting[rng.integers(len(fitting))]
  return fitting[0] if fitting else None


def _too_short(what, length, num_frames, frameskips) -> UserError:
  return UserError(
      f'{what} has {length} frames, fewer than the '
      f'{span(num_frames, min(frameskips))} wanted.'
  )
