"""How often sampled clips of moving_shapes show what their captions say.

  python -m benchmarks.read_samples WORKDIR/samples/step_N_seed_M

For clips that `--mode=sample` wrote, of a cascade too: reads samples.npz by
`metrics.shapes_reader` and prints the shares of clips whose colours, shapes,
directions, and all of these on the same object, are those of the caption, for
the whole clip and for its first and last 16 frames. Writes alignment.json
beside it.
"""
import json
import sys

from etils import epath
import numpy as np

from benchmarks import alignment
from benchmarks import timing
from video_diffusion import workdirs
from video_diffusion import writers
from video_diffusion.data import shapes
from video_diffusion.metrics import shapes_reader

WINDOW = 16


def read(folder: str) -> list[dict]:
  """A row for each part of the clips.

  Raises:
    ValueError: no samples with captions of moving_shapes.
  """
  folder = epath.Path(folder).expanduser()
  path = folder / 'samples.npz'
  if not path.exists():
    raise ValueError(f'{path} does not exist; give a folder that --mode=sample '
                     'has written.')
  with path.open('rb') as file, np.load(file) as arrays:
    if 'captions' not in arrays:
      raise ValueError(f'{path} holds no captions: the run knows no text.')
    videos, captions = arrays['video'], arrays['captions'].tolist()
  config = workdirs.saved_config({}, folder.parent.parent, ())
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=1, num_frames=1,
      height=videos.shape[2], width=videos.shape[3], radius=config.data.radius,
  )
  reader = alignment.make_reader(source)
  wanted = np.stack([shapes.parse_caption(caption) for caption in captions])
  parts = {'all frames': videos}
  if videos.shape[1] > WINDOW:
    parts[f'first {WINDOW}'] = videos[:, :WINDOW]
    parts[f'last {WINDOW}'] = videos[:, -WINDOW:]
  rows = [
      {'part': name, **shapes_reader.match_shares(reader(part), wanted)}
      for name, part in parts.items()
  ]
  content = {
      'rows': rows, 'clips': len(videos), 'frames': videos.shape[1],
      'size': list(videos.shape[2:4]), 'date': timing.today(),
  }
  (folder / 'alignment.json').write_text(json.dumps(content, indent=1))
  columns = ('colour', 'shape', 'motion', 'all')
  print(writers.table(
      [f'{len(videos)} clips', *columns],
      [[row['part'], *(f'{row[c]:.3f}' for c in columns)] for row in rows],
  ))
  return rows


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  try:
    read(sys.argv[1])
  except ValueError as error:
    sys.exit(f'read_samples: {error}')
