"""moving_shapes, a synthetic data set: coloured shapes in straight motion.

A clip is a pure function of (seed, split, index), in NumPy alone. Captions and
labels are exact, so that samples of a model can be scored exactly. Edges are
hard and colours saturated: a pixel is the background or a palette colour.
"""
from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

SHAPES = ('circle', 'square', 'triangle')
PALETTE = {
    'red': (255, 0, 0),
    'green': (0, 255, 0),
    'blue': (0, 0, 255),
    'yellow': (255, 255, 0),
    'magenta': (255, 0, 255),
    'cyan': (0, 255, 255),
}
COLOURS = tuple(PALETTE)
BACKGROUND = (0, 0, 0)
# (rows, columns) per step; rows grow downwards.
DIRECTIONS = {
    'right': (0, 1),
    'down and right': (1, 1),
    'down': (1, 0),
    'down and left': (1, -1),
    'left': (0, -1),
    'up and left': (-1, -1),
    'up': (-1, 0),
    'up and right': (-1, 1),
}
DIRECTION_NAMES = tuple(DIRECTIONS)
LABEL_SIZES = (len(SHAPES), len(COLOURS), len(DIRECTIONS)) * 2
SPLITS = ('train', 'test')
PAIRS = ('split', 'seen', 'heldout')
MAX_OVERLAP = 0.25  # of the smaller shape's area, in any frame

_COLOUR_VALUES = np.array(list(PALETTE.values()), np.uint8)
_UNIT_STEPS = np.array(list(DIRECTIONS.values()), np.float64)
_UNIT_STEPS /= np.linalg.norm(_UNIT_STEPS, axis=1, keepdims=True)


class _Paths(NamedTuple):
  """What the paths of a data set share, in pixels.

  Arrays have a row for each of the eight directions.

  Attributes:
    radius: of a shape.
    extent: [2], where the centre of a shape may be, from `radius` on.
    steps: [8, T, 2], from frame to frame, as long as nothing is hit.
    travelled: [8, T, 2], what they add up to.
    lowest: [8, 2], the smallest position at which a path may begin.
    room: [8, 2], how much larger it may be.
  """

  radius: float
  extent: np.ndarray
  steps: np.ndarray
  travelled: np.ndarray
  lowest: np.ndarray
  room: np.ndarray


def caption(labels: np.ndarray) -> str:
  """int32 [objects, 3] -> 'a red circle moves right, a blue square ...'."""
  return ', '.join(
      f'a {COLOURS[colour]} {SHAPES[shape]} moves {DIRECTION_NAMES[direction]}'
      for shape, colour, direction in labels
      if shape >= 0
  )


def parse_caption(text: str) -> np.ndarray:
  """The inverse of `caption`: int32 [2, 3], -1 where there is one object.

  Raises:
    UserError: a text that `caption` does not make.
  """
  labels = np.full((2, 3), -1, np.int32)
  parts = text.split(', ')
  for row, part in enumerate(parts):
    words = part.split(' ', 4)
    if (
        len(parts) > 2
        or len(words) < 5
        or words[0] != 'a'
        or words[1] not in COLOURS
        or words[2] not in SHAPES
        or words[3] != 'moves'
        or words[4] not in DIRECTION_NAMES
    ):
      raise UserError(
          f'{text!r} is no caption of moving_shapes, as "a red circle moves '
          'right" or two such with a comma between them.'
      )
    labels[row] = (
        SHAPES.index(words[2]),
        COLOURS.index(words[1]),
        DIRECTION_NAMES.index(words[4]),
    )
  return labels


def parse_pairs(pairs: Sequence[str]) -> frozenset[tuple[int, int]]:
  """('red circle', ...) -> {(shape, colour), ...}.

  Raises:
    ArgumentError: a pair names no known colour and shape, or all are held out.
  """
  name, parsed = Argument('heldout_pairs'), set()
  for pair in pairs:
    colour, _, shape = pair.partition(' ')
    if colour not in COLOURS or shape not in SHAPES:
      raise ArgumentError(
          name, f' holds {pair!r}; a pair is a colour of {COLOURS} and a shape '
          f'of {SHAPES}, as in "red circle".',
      )
    parsed.add((SHAPES.index(shape), COLOURS.index(colour)))
  if len(parsed) >= len(SHAPES) * len(COLOURS):
    raise ArgumentError(name, ' leaves no colour and shape to train.')
  return frozenset(parsed)


@dataclasses.dataclass(frozen=True)
class MovingShapes(mixture_lib.Source):
  """A source of clips by number, each of them a video of its own.

  Attributes:
    split: 'train' or 'test', which have different random streams.
    seed: seed of the whole data set.
    num_examples: clips in the split.
    num_frames: length T of a clip.
    height: rows of a frame.
    width: columns of a frame.
    radius: radius of a shape, as a share of the shorter side.
    speed: path per frame, as a share of the shorter side.
    bounce: reflect shapes at the walls; their paths may then be longer than
      the frame. Without it a path is drawn that stays inside.
    heldout_pairs: 'colour shape' pairs that never appear in the train split.
    pairs: which pairs are drawn: 'split' leaves the held-out ones out of the
      train split alone, 'seen' draws only the others, 'heldout' only them.
  """

  split: str
  seed: int
  num_examples: int
  num_frames: int
  height: int
  width: int
  radius: float = 0.15
  speed: float = 0.025
  bounce: bool = False
  heldout_pairs: tuple[str, ...] = ()
  pairs: str = 'split'

  label_sizes = LABEL_SIZES

  def __post_init__(self):
    if self.split not in SPLITS:
      raise UserError(f'split is {self.split!r}; it must be one of {SPLITS}.')
    heldout = parse_pairs(self.heldout_pairs)
    if self.pairs not in PAIRS:
      raise UserError(f'pairs is {self.pairs!r}; it must be one of {PAIRS}.')
    if self.pairs == 'heldout' and not heldout:
      raise ArgumentError(Argument('heldout_pairs'), ' names no pair.')
    if self.num_examples < 1:
      raise ArgumentError(
          Argument(f'{self.split}_clips'),
          f' is {self.num_examples}; it must be at least 1.',
      )
    path = 0.0 if self.bounce else self.speed * (self.num_frames - 1)
    if not (self.radius > 0 and path >= 0 and 2 * self.radius + path < 1):
      raise ArgumentError(
          Argument('radius'), f' {self.radius} and ', Argument('speed'),
          f' {self.speed} over {self.num_frames} frames need '
          f'{2 * self.radius + path:.2f} of the frame; twice the radius and '
          'the path must stay below 1.',
      )

  @property
  def summary(self) -> dict[str, int | str | None]:
    """Frames, their duration (none), size and how many clips were skipped."""
    return {
        'frames': self.num_examples * self.num_frames,
        'seconds': None,
        'size': f'{self.height} x {self.width}',
        'skipped': 0,
    }

  def length(self, video: int) -> int:
    """Returns the number of frames of a clip."""
    return self.num_frames

  def read(self, video: int, frames: np.ndarray) -> dict[str, Any]:
    """Returns frames of a clip.

    Args:
      video: number of the clip, in [0, num_examples).
      frames: int64 [n], which of its frames.

    Returns:
      {'video': uint8 [n, height, width, 3], 'labels': int32 [2, 3] (object;
      shape, colour, direction), -1 where there is no second object, 'caption':
      those labels in words}.
    """
    objects = self._draw_objects(video)
    pixels = np.zeros((len(frames), self.height, self.width, 3), np.uint8)
    labels = np.full((2, 3), -1, np.int32)
    for row, (shape, colour, positions, steps) in enumerate(objects):
      mask = self.mask(shape, positions[frames])
      np.copyto(pixels, _COLOUR_VALUES[colour], where=mask[..., None])
      # Bouncing changes the direction: the label is the first frame's.
      direction = int(np.argmax(_UNIT_STEPS @ steps[frames[0]]))
      labels[row] = shape, colour, direction
    return {'video': pixels, 'labels': labels, 'caption': caption(labels)}

  @functools.cached_property
  def _pairs(self):
    """All (shape, colour) of the split."""
    heldout = parse_pairs(self.heldout_pairs)
    every = [
        (shape, colour)
        for shape in range(len(SHAPES))
        for colour in range(len(COLOURS))
    ]
    if self.pairs == 'heldout':
      return [pair for pair in every if pair in heldout]
    if self.pairs == 'seen' or self.split == 'train':
      return [pair for pair in every if pair not in heldout]
    return every

  def captions(self) -> Iterator[str]:
    """Yields all captions that clips of the split can have."""
    objects = [
        (shape, colour, direction)
        for shape, colour in self._pairs
        for direction in range(len(DIRECTIONS))
    ]
    for first in objects:
      yield caption([first])
      for second in objects:
        if second[1] != first[1]:
          yield caption([first, second])

  def _draw_objects(self, index):
    """One or two (shape, colour, positions [T, 2], steps [T, 2])."""
    rng = np.random.default_rng(
        (self.seed, SPLITS.index(self.split), int(index))
    )
    pairs = self._pairs
    shape, colour = pairs[rng.integers(len(pairs))]
    first = (shape, colour, *self._draw_path(rng))
    if rng.random() < 0.5:
      return [first]
    others = [pair for pair in pairs if pair[1] != colour]
    # A second path is drawn until it keeps clear; most do at once.
    for _ in range(64) if others else ():
      shape, colour = others[rng.integers(len(others))]
      second = (shape, colour, *self._draw_path(rng))
      if not self._overlap_too_much(first, second):
        return [first, second]
    return [first]

  def _draw_path(self, rng):
    """The positions of a shape and its steps, both [T, 2], in pixels."""
    paths = self._paths
    direction = rng.integers(len(_UNIT_STEPS))
    travelled, steps = paths.travelled[direction], paths.steps[direction]
    if not self.bounce:
      lowest, room = paths.lowest[direction], paths.room[direction]
      return lowest + rng.random(2) * room + travelled, steps
    # A triangle wave of period 2 * room is a reflection at both walls.
    room = paths.extent
    phase = (rng.random(2) * 2 * room + travelled) % (2 * room)
    forward = phase < room
    positions = paths.radius + np.where(forward, phase, 2 * room - phase)
    return positions, np.where(forward, steps, -steps)

  @functools.cached_property
  def _paths(self):
    """What all paths share, in pixels.

    A second path is drawn up to 64 times, so this is not computed for each.
    """
    side = min(self.height, self.width)
    radius = self.radius * side
    extent = np.array([self.height, self.width], np.float64) - 2 * radius
    step = _UNIT_STEPS * self.speed * side
    path = step * (self.num_frames - 1)
    frames = np.arange(self.num_frames)[:, None]
    steps = np.repeat(step[:, None], self.num_frames, axis=1)
    return _Paths(
        radius=radius,
        extent=extent,
        steps=steps,
        travelled=step[:, None] * frames,
        lowest=radius + np.maximum(-path, 0),
        room=extent - np.abs(path),
    )

  def mask(self, shape: int, positions: np.ndarray) -> np.ndarray:
    """Returns which pixels a shape covers at each of some positions.

    Args:
      shape: index in SHAPES.
      positions: float [n, 2], (row, column) in pixels.

    Returns:
      bool [n, height, width].
    """
    radius = self._paths.radius
    # Offsets of the pixel centres from the shape's centre, in radii.
    y = (np.arange(self.height) + 0.5 - positions[:, :1]) / radius
    x = (np.arange(self.width) + 0.5 - positions[:, 1:]) / radius
    y, x = y.astype(np.float32)[:, :, None], x.astype(np.float32)[:, None, :]
    if SHAPES[shape] == 'circle':
      return y * y + x * x < 1
    if SHAPES[shape] == 'square':
      return (np.abs(y) < 0.85) & (np.abs(x) < 0.85)
    # Apex up: the half-width grows linearly from -1 at the top to 1.
    return (np.abs(x) < 0.5 * (y + 1)) & (y < 0.9)

  def _overlap_too_much(self, first, second):
    apart = np.abs(first[2] - second[2])
    gap = np.maximum(apart[:, 0], apart[:, 1]) / self._paths.radius
    # No two shapes overlap by a quarter from 1.7 radii on, and any two do
    # below 1; between, pixels are counted.
    closest = gap.min()
    if closest >= 1.7:
      return False
    if closest < 1.0:
      return True
    near = gap < 1.7
    a, b = (self.mask(item[0], item[2][near]) for item in (first, second))
    smaller = np.minimum(a.sum((1, 2)), b.sum((1, 2)))
    return bool(np.any((a & b).sum((1, 2)) > MAX_OVERLAP * smaller))
