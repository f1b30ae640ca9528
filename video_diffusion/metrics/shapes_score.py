"""Figures that tell moving shapes from noise and from nothing."""
import numpy as np

NEAR = 0.2  # of the pixel range [0, 1], in every channel


def shape_figures(
    videos: np.ndarray, palette: np.ndarray, background: np.ndarray
) -> dict[str, float]:
  """Three figures of a set of moving_shapes clips (this project's own).

  Args:
    videos: uint8 [n, time, height, width, 3].
    palette: uint8 [colours, 3].
    background: uint8 [3].

  Returns:
    'palette': share of the non-background pixels within 0.2 (of the range, in
      every channel) of a palette colour; 0 where there are none.
    'area': share of all pixels that are not within 0.2 of the background.
    'motion': path of the centroid of the non-background pixels per frame, in
      pixels; 0 where a frame has none, and for clips of one frame.
  """
  x = videos.astype(np.float32) / 255.0

  def near(colour):
    distance = np.abs(x - np.asarray(colour, np.float32) / 255.0)
    return distance.max(axis=-1) <= NEAR

  shown = ~near(background)
  coloured = np.zeros_like(shown)
  for colour in palette:
    coloured |= near(colour)
  count = shown.sum((-2, -1))
  height, width = shown.shape[-2:]
  row = (shown * np.arange(height)[:, None]).sum((-2, -1))
  column = (shown * np.arange(width)).sum((-2, -1))
  centroid = np.stack([row, column], -1) / np.maximum(count, 1)[..., None]
  path = np.linalg.norm(np.diff(centroid, axis=1), axis=-1)
  seen = (count[:, 1:] > 0) & (count[:, :-1] > 0)
  motion = float((path * seen).mean()) if path.size else 0.0
  return {
      'palette': float(coloured[shown].mean()) if shown.any() else 0.0,
      'area': float(shown.mean()),
      'motion': motion,
  }
