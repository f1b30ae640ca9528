"""A table of figures about samples of moving_shapes."""
from collections.abc import Iterable
from typing import Any

import numpy as np

from video_diffusion.data import shapes
from video_diffusion.metrics import shapes_score
from video_diffusion.training import writers


def figures(videos: np.ndarray) -> dict[str, float]:
  """`shapes_score.shape_figures` of uint8 [n, time, height, width, 3]."""
  return shapes_score.shape_figures(
      videos, np.array(list(shapes.PALETTE.values())), shapes.BACKGROUND
  )


def table(videos: np.ndarray, examples: Iterable[dict[str, Any]]) -> str:
  """`shape_figures` of samples beside real clips, noise and blank clips.

  Args:
    videos: samples, uint8 [n, frames, height, width, 3].
    examples: as many held-out ones; see `data.mixture.Source.example`.
  """
  rng = np.random.default_rng(0)
  rows = []
  for name, clips in (
      ('samples', videos),
      ('real clips', np.stack([example['video'] for example in examples])),
      ('noise', rng.integers(0, 256, videos.shape, np.uint8)),
      ('blank', np.broadcast_to(np.uint8(shapes.BACKGROUND), videos.shape)),
  ):
    rows.append([name, *(f'{value:.3f}' for value in figures(clips).values())])
  return writers.table(
      [f'{len(videos)} clips', 'palette share', 'area',
       'motion (pixels a frame)'],
      rows,
  )
