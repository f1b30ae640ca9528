"""Clips of moving_shapes for scores: real ones, and their reader."""
from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from video_diffusion.data import shapes
from video_diffusion.metrics import shapes_reader


def make_reader(
    source: shapes.MovingShapes, *, subpixels: int = shapes_reader.SUBPIXELS
) -> shapes_reader.ShapesReader:
  """A reader of the clips of a source, and of what models draw like them.

  Args:
    source: of the clips.
    subpixels: see `shapes_reader.ShapesReader`.
  """
  return shapes_reader.ShapesReader(
      source.mask,
      num_shapes=len(shapes.SHAPES),
      palette=np.array(list(shapes.PALETTE.values())),
      background=shapes.BACKGROUND,
      directions=np.array(list(shapes.DIRECTIONS.values())),
      subpixels=subpixels,
  )


def by_pairs(source: shapes.MovingShapes) -> dict[str, shapes.MovingShapes]:
  """The clips of 'seen' pairs and, where some are held out, of 'heldout' ones.
  """
  kinds = ('seen', 'heldout') if source.heldout_pairs else ('seen',)
  return {pairs: dataclasses.replace(source, pairs=pairs) for pairs in kinds}


def real_clips(
    source: shapes.MovingShapes,
    *,
    frames: int,
    frameskips: Sequence[int] = (1,),
    first: int = 0,
) -> Iterator[dict[str, Any]]:
  """Yields windows of the clips of a source without end.

  Args:
    source: of clips.
    frames: number of frames of a window.
    frameskips: distances of its frames; each window takes one of them.
    first: number of the first clip.
  """
  rng = np.random.default_rng(0)
  for i in itertools.count(first):
    yield source.example(i, rng, frames, frameskips)
