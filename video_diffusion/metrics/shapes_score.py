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
  shown = ~_near(videos, background)
  coloured = np.zeros_like(shown)
  for colour in palette:
    coloured |= _near(videos, colour)
  centroid, seen = _centroids(shown)
  path = np.linalg.norm(np.diff(centroid, axis=1), axis=-1)
  both = seen[:, 1:] & seen[:, :-1]
  motion = float((path * both).mean()) if path.size else 0.0
  return {
      'palette': float(coloured[shown].mean()) if shown.any() else 0.0,
      'area': float(shown.mean()),
      'motion': motion,
  }


def path_errors(videos: np.ndarray, background: np.ndarray) -> np.ndarray:
  """How far shapes stray from straight and even motion (this project's own).

  Args:
    videos: uint8 [n, time, height, width, 3], of moving_shapes that do not
      bounce.
    background: uint8 [3].

  Returns:
    float [n], pixels: the rms distance of the centroid of the non-background
    pixels from the straight path of even speed that fits it best; infinite
    where a frame has no such pixels.
  """
  centroid, seen = _centroids(~_near(videos, background))
  t = np.arange(centroid.shape[1])
  terms = np.stack([np.ones(len(t)), t], axis=1)
  fit = terms @ (np.linalg.pinv(terms) @ centroid)
  errors = np.sqrt(((centroid - fit) ** 2).sum(-1).mean(-1))
  return np.where(seen.all(axis=1), errors, np.inf)


def _near(videos, colour):
  """bool [n, time, height, width]: the pixels near a colour, uint8 [3]."""
  distance = np.abs(videos - np.asarray(colour, np.float32)) / 255.0
  return distance.max(axis=-1) <= NEAR


def _centroids(shown):
  """Of pixels: (row, column) [n, time, 2], and whether there are any."""
  count = shown.sum((-2, -1))
  height, width = shown.shape[-2:]
  row = (shown * np.arange(height)[:, None]).sum((-2, -1))
  column = (shown * np.arange(width)).sum((-2, -1))
  centroid = np.stack([row, column], -1) / np.maximum(count, 1)[..., None]
  return centroid, count > 0
