"""How near the samples of a video_folder run are to the videos.

  python -m benchmarks.folder_figures RECORDS TRAINED.npz UNTRAINED.npz

RECORDS is the prepared directory of the run's videos; the two files are
samples.npz of `--mode=sample` from the trained model and from one of a single
step. Prints, beside the source's, the mean colour and the standard deviation
per pixel, and the mean distance of a frame to the nearest training frame, from
`video_diffusion/evaluation/folder_figures.py`.
"""
import argparse

import numpy as np

from video_diffusion.data import records
from video_diffusion.evaluation import folder_figures
from video_diffusion.training import writers


def main(argv: list[str] | None = None) -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  for name in ('records', 'trained', 'untrained'):
    parser.add_argument(name)
  args = parser.parse_args(argv)
  source = records.VideoRecords(args.records, 'train')
  train = np.concatenate([
      source.read(video, start + np.arange(frames))['video']
      for video, start, frames, *_ in zip(*source.stretches, strict=True)
  ])
  rows = []
  for name, path in (
      ('source', None), ('trained', args.trained),
      ('untrained', args.untrained),
  ):
    frames = train
    if path is not None:
      with np.load(path) as arrays:
        video = arrays['video']
      frames = video.reshape(-1, *video.shape[2:])
    found = folder_figures.figures(frames, None if path is None else train)
    distance = found['nearest']
    rows.append([
        f'{name} ({len(frames)} frames)',
        ' '.join(f'{c:.1f}' for c in found['colour']),
        f'{found["spread"]:.2f}',
        '-' if distance is None else f'{distance:.2f}',
    ])
  headings = ['of 0 to 255', 'mean colour', 'std per pixel', 'nearest frame']
  print(writers.table(headings, rows))


if __name__ == '__main__':
  main()
