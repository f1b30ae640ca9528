"""How often sampled clips of moving_shapes show what their captions say.

  python -m benchmarks.read_samples WORKDIR/samples/step_N_seed_M [...]

For clips that `--mode=sample` wrote, of a cascade too: reads samples.npz by
`metrics.shapes_reader` and prints the shares of clips whose colours, shapes,
directions, and all of these on the same object, are those of the caption: of
all clips, of those with one and with two objects, and for their first and last
16 frames. `path`, in pixels, is the mean of `metrics.shapes_score.path_errors`
over the clips without an empty frame, of which `empty` have one. Several
folders, as of several seeds, are read as one. Writes alignment.json into the
first.
"""
import json
import sys

from etils import epath
import numpy as np

from benchmarks import alignment
from benchmarks import timing
from video_diffusion.config import saved_config
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.metrics import shapes_reader
from video_diffusion.metrics import shapes_score

WINDOW = 16


def load(folder: epath.Path) -> tuple[np.ndarray, list[str]]:
  """(uint8 [n, t, h, w, 3], captions) that --mode=sample wrote.

  Raises:
    UserError: no samples, or without captions.
  """
  videos, captions = [], []
  for path in sorted(folder.glob('samples*.npz')):  # one for each process
    with path.open('rb') as file, np.load(file) as arrays:
      if 'captions' not in arrays:
        raise UserError(f'{path} holds no captions: the run knows no text.')
      videos.append(arrays['video'])
      captions += arrays['captions'].tolist()
  if not videos:
    raise UserError(f'{folder / "samples.npz"} does not exist; give a folder '
                     'that --mode=sample has written.')
  return np.concatenate(videos), captions


def read(*folders: str) -> list[dict]:
  """A row for each part of the clips.

  Raises:
    UserError: no samples with captions of moving_shapes, or of several sizes.
  """
  paths = [
      epath.Path(files.expand(folder, 'FOLDER', bucket=True))
      for folder in folders
  ]
  loaded = [load(path) for path in paths]
  sizes = sorted({videos.shape[1:4] for videos, _ in loaded})
  if len(sizes) > 1:
    raise UserError(f'the folders hold clips of several sizes, {sizes}.')
  videos = np.concatenate([videos for videos, _ in loaded])
  captions = sum((captions for _, captions in loaded), [])
  config = saved_config.load({}, paths[0].parent.parent, ())
  if config.data.name != 'moving_shapes':
    raise UserError(f'{paths[0]} holds clips of data.name '
                     f'{config.data.name!r}; only moving_shapes can be read.')
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=1, num_frames=1,
      height=videos.shape[2], width=videos.shape[3], radius=config.data.radius,
  )
  reader = alignment.make_reader(source)
  # People's case and full stops, which the tokenizer takes as well.
  plain = [caption.lower().rstrip(' .!?') for caption in captions]
  wanted = np.stack([shapes.parse_caption(caption) for caption in plain])
  every = np.ones(len(videos), bool)
  two = wanted[:, 1, 0] >= 0
  parts = {'all frames': (every, slice(None))}
  if two.any() and not two.all():
    parts['- one object'] = (~two, slice(None))
    parts['- two objects'] = (two, slice(None))
  if videos.shape[1] > WINDOW:
    parts[f'first {WINDOW}'] = (every, slice(WINDOW))
    parts[f'last {WINDOW}'] = (every, slice(-WINDOW, None))
  rows = []
  for name, (clips, frames) in parts.items():
    part = videos[clips][:, frames]
    errors = shapes_score.path_errors(part, shapes.BACKGROUND)
    whole = np.isfinite(errors)
    rows.append({
        'part': name, 'clips': int(clips.sum()),
        **shapes_reader.match_shares(reader(part), wanted[clips]),
        'path': float(errors[whole].mean()) if whole.any() else None,
        'empty': int((~whole).sum()),
    })
  content = {
      'rows': rows, 'folders': [str(path) for path in paths],
      'frames': videos.shape[1], 'size': list(videos.shape[2:4]),
      'date': timing.today(),
  }
  (paths[0] / 'alignment.json').write_text(json.dumps(content, indent=1))
  timing.print_table(
      [{name: f'{value:.3f}' if isinstance(value, float) else value
        for name, value in row.items()} for row in rows],
      {'': 'part'} | {name: name for name in list(rows[0])[1:]},
  )
  return rows


if __name__ == '__main__':
  if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
    sys.exit(__doc__)
  try:
    read(*sys.argv[1:])
  except UserError as error:
    sys.exit(f'read_samples: {error}')
