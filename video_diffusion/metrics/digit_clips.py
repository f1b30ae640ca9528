"""Whether clips of two moving digits hold together.

All figures are this project's own. They take a digit for the same as long as
its class is: a reader names it in every frame that shows the two digits apart.
"""
from typing import NamedTuple

import numpy as np

from video_diffusion.metrics import digit_reader
from video_diffusion.metrics import flicker
from video_diffusion.metrics import parts as parts_lib

BLOCK = 64  # clips that are looked at together
# Shares of the side of a digit's whole image. MNIST's digits fill a box of 20
# of the 28 pixels, 0.71; with another digit's pieces a part is larger or
# smaller.
SIDES = (0.6, 0.85)
SPECK = 1 / 64  # of the area of that image; less is no part


class Readings(NamedTuple):
  """What the frames of some clips show.

  Attributes:
    parts: int [n, time], the number of connected parts.
    apart: bool [n, time], whether a frame has exactly two parts, each of the
      size of a digit: only there digits are judged.
    centres: float [n, time, 2, 2], (digit; row, column) in pixels, where apart.
    classes: int [n, time, 2], where apart. From a frame to the next, if both
      are apart, a digit keeps its place in the order: of the two ways to match
      their digits it is the shorter one.
  """

  parts: np.ndarray
  apart: np.ndarray
  centres: np.ndarray
  classes: np.ndarray


def read(
    videos: np.ndarray, reader: digit_reader.DigitReader, *, share: float = 0.5
) -> Readings:
  """Reads the digits of clips, frame by frame.

  Args:
    videos: uint8 [n, time, height, width, 3], light digits on black.
    reader: has learned from digits.
    share: side of a digit's whole image of 28 x 28, as a share of the height.

  Raises:
    UserError: SciPy is not installed.
  """
  blocks = [
      _read(videos[start : start + BLOCK], reader, share * videos.shape[2])
      for start in range(0, len(videos), BLOCK)
  ]
  return _followed(Readings(*map(np.concatenate, zip(*blocks, strict=True))))


def identity(readings: Readings) -> tuple[np.ndarray, np.ndarray]:
  """Whether the digits of clips stay what they are.

  Returns:
    (kept, judged), bool [n] each. A clip is judged if two frames at least show
    the digits apart. It is kept if all of these show the same two classes, and
    no digit changes its own between two frames that follow each other.
  """
  judged = readings.apart.sum(1) >= 2
  pairs = np.sort(readings.classes, 2)
  first = np.take_along_axis(
      pairs, readings.apart.argmax(1)[:, None, None], axis=1
  )
  same = (pairs == first).all(2) | ~readings.apart
  still = (np.diff(readings.classes, axis=1) == 0).all(2) | ~_steps(readings)
  return judged & same.all(1) & still.all(1), judged


def steadiness(readings: Readings) -> float | None:
  """The share of steps at which both digits keep their classes.

  Steps are those of `displacement`. Where hardly any clip keeps its digits to
  the end, this still tells better clips from worse ones.
  """
  same = (np.diff(readings.classes, axis=1) == 0).all(2)[_steps(readings)]
  return float(same.mean()) if same.size else None


def displacement(readings: Readings) -> float | None:
  """The mean distance that a digit's centre of mass moves, pixels a frame.

  It is that of all digits and steps between two frames that follow each other
  and show the digits apart; None where there are none.
  """
  path = np.linalg.norm(np.diff(readings.centres, axis=1), axis=3)
  path = path[_steps(readings)]
  return float(path.mean()) if path.size else None


def figures(
    videos: np.ndarray, reader: digit_reader.DigitReader, *, share: float = 0.5
) -> dict[str, float | None]:
  """All figures of a set of clips.

  Args:
    videos: uint8 [n, time, height, width, 3], with two frames at least.
    reader: see `read`.
    share: see `read`.

  Returns:
    'flicker': the mean of `flicker.ink_flicker`.
    'ink_spread': see `flicker.ink_spread`.
    'displacement': see `displacement`.
    'identity': the share of kept clips among those that are judged; see
      `identity`. None where none is.
    'judged': the share of clips that are judged.
    'steady': see `steadiness`.
    'apart': the share of frames that show the digits apart.
    'parts': the mean number of parts of a frame; digits that overlap are one.

  Raises:
    UserError: SciPy is not installed.
  """
  readings = read(videos, reader, share=share)
  kept, judged = identity(readings)
  return {
      'flicker': float(flicker.ink_flicker(videos).mean()),
      'ink_spread': flicker.ink_spread(videos),
      'displacement': displacement(readings),
      'identity': float(kept[judged].mean()) if judged.any() else None,
      'judged': float(judged.mean()),
      'steady': steadiness(readings),
      'apart': float(readings.apart.mean()),
      'parts': float(readings.parts.mean()),
  }


def _read(videos, reader, side):
  """The readings of a block of clips, whose digits are in no certain order."""
  n, time = videos.shape[:2]
  frames = videos.mean(4, dtype=np.float32).reshape(-1, *videos.shape[2:4])
  parts = parts_lib.find(frames, smallest=SPECK * side**2)
  low, high = (limit * side for limit in SIDES)
  fitting = (parts.side >= low) & (parts.side <= high)
  count, fit = (
      np.bincount(frame, minlength=len(frames))
      for frame in (parts.frame, parts.frame[fitting])
  )
  apart = (count == 2) & (fit == 2)
  pairs = parts.where(apart[parts.frame])
  centres = np.zeros((len(frames), 2, 2))
  centres[apart] = parts_lib.centres(pairs.pixels).reshape(-1, 2, 2)
  classes = np.full((len(frames), 2), -1)
  classes[apart] = reader(pairs.pixels, side).reshape(-1, 2)
  return Readings(*(
      array.reshape(n, time, *array.shape[1:])
      for array in (count, apart, centres, classes)
  ))


def _steps(readings):
  """bool [n, time - 1]: steps between two frames that show digits apart."""
  return readings.apart[:, 1:] & readings.apart[:, :-1]


def _followed(readings):
  """The readings with the digits of each frame in the order of the one before.
  """
  centres, classes = readings.centres.copy(), readings.classes.copy()
  for t, both in enumerate(_steps(readings).T, start=1):
    before, now = centres[:, t - 1], centres[:, t]
    straight, crossed = (
        np.linalg.norm(after - before, axis=2).sum(1)
        for after in (now, now[:, ::-1])
    )
    swapped = both & (crossed < straight)
    centres[swapped, t] = centres[swapped, t, ::-1]
    classes[swapped, t] = classes[swapped, t, ::-1]
  return readings._replace(centres=centres, classes=classes)
