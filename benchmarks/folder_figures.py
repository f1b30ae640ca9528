"""How near the samples of a video_folder run are to the videos.

  python -m benchmarks.folder_figures RECORDS TRAINED.npz UNTRAINED.npz

RECORDS is the prepared directory of the run's videos; the two files are
samples.npz of `--mode=sample` from the trained model and from one of a single
step. Prints, beside the source's, the mean colour and the standard deviation
per pixel, and the mean distance of a frame to the nearest training frame.
"""
import sys

import numpy as np

from video_diffusion.data import records
from video_diffusion.training import writers


def nearest(frames: np.ndarray, train: np.ndarray) -> float:
  """Mean over frames of the root mean square distance to the nearest one.

  Args:
    frames: float [n, d] in [0, 255].
    train: float [m, d].
  """
  squares = (
      (frames**2).sum(1)[:, None]
      + (train**2).sum(1)[None]
      - 2 * frames @ train.T
  )
  return float(np.sqrt(np.maximum(squares.min(1), 0) / frames.shape[1]).mean())


def main(directory: str, trained: str, untrained: str) -> None:
  """Prints the table."""
  source = records.VideoRecords(directory, 'train')
  rng = np.random.default_rng(0)
  clips = [
      source.example(i, rng, source.length(i))['video']
      for i in range(source.num_examples)
  ]
  train = np.concatenate(clips).astype(np.float64)
  flat = train.reshape(len(train), -1)
  rows = []
  for name, path in (
      ('source', None), ('trained', trained), ('untrained', untrained)
  ):
    if path is None:
      frames, distance = train, '-'
    else:
      with np.load(path) as arrays:
        video = arrays['video']
      frames = video.reshape(-1, *video.shape[2:]).astype(np.float64)
      distance = f'{nearest(frames.reshape(len(frames), -1), flat):.2f}'
    colour = frames.mean((0, 1, 2))
    spread = frames.std(0).mean()
    rows.append([
        f'{name} ({len(frames)} frames)',
        ' '.join(f'{c:.1f}' for c in colour),
        f'{spread:.2f}',
        distance,
    ])
  headings = ['of 0 to 255', 'mean colour', 'std per pixel', 'nearest frame']
  print(writers.table(headings, rows))


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  main(*sys.argv[1:])
