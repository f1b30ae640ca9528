"""How often sampled clips of moving_shapes show what their captions say.

The clips are those that --mode=sample has written, of a cascade too.
`evaluation.alignment` samples by itself and scores more.
"""
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
import numpy as np

from video_diffusion.config import saved_config
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import shapes_clips
from video_diffusion.filesystem import files
from video_diffusion.metrics import shapes_reader
from video_diffusion.metrics import shapes_score

WINDOW = 16  # frames at the start and the end that have rows of their own


def load(folder: epath.Path) -> tuple[np.ndarray, list[str]]:
  """(uint8 [n, t, h, w, 3], captions) that --mode=sample wrote.

  Raises:
    UserError: the folder holds no samples, or samples without captions.
  """
  videos, captions = [], []
  for path, arrays in _files(folder):
    if 'captions' not in arrays:
      raise UserError(f'{path} holds no captions: the run knows no text.')
    videos.append(arrays['video'])
    captions += arrays['captions'].tolist()
  return np.concatenate(videos), captions


def load_videos(folder: epath.Path) -> np.ndarray:
  """uint8 [n, t, h, w, 3] that --mode=sample wrote, with captions or without.

  Raises:
    UserError: the folder holds no samples.
  """
  return np.concatenate([arrays['video'] for _, arrays in _files(folder)])


def _files(folder):
  """Yields (path, arrays) of the files of samples, one for each process."""
  paths = sorted(folder.glob('samples*.npz'))
  if not paths:
    raise UserError(f'{folder / "samples.npz"} does not exist; give a folder '
                     'that --mode=sample has written.')
  for path in paths:
    with path.open('rb') as file, np.load(file) as arrays:
      yield path, arrays


def read(folders: Sequence[epath.PathLike]) -> dict[str, Any]:
  """Scores the clips of some folders, as of several seeds, as one set.

  Args:
    folders: each is WORKDIR/samples/step_N_seed_M of a run. The config of the
      first one says how large shapes are.

  Returns:
    'rows', which are those of `score`; 'folders'; 'frames' of a clip; and
    'size', its height and width.

  Raises:
    UserError: a folder has no samples with captions of moving_shapes, or clips
      of another size.
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
  return {
      'rows': score(videos, captions, radius=config.data.radius),
      'folders': [str(path) for path in paths],
      'frames': videos.shape[1],
      'size': list(videos.shape[2:4]),
  }


def score(
    videos: np.ndarray, captions: Sequence[str], *, radius: float
) -> list[dict[str, Any]]:
  """A row for all clips and for each of `parts`.

  Args:
    videos: uint8 [n, t, h, w, 3].
    captions: of each clip.
    radius: radius of a shape, as a share of the shorter side.

  Returns:
    Rows of 'part', the name; 'clips', their number; the shares of
    `shapes_reader.match_shares`; 'path', the mean of `shapes_score.path_errors`
    in pixels over the clips without an empty frame, None where there are none;
    and 'empty', the number of clips with an empty frame.

  Raises:
    UserError: a caption is none of moving_shapes.
  """
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=1, num_frames=1,
      height=videos.shape[2], width=videos.shape[3], radius=radius,
  )
  reader = shapes_clips.make_reader(source)
  # People's case and full stops, which the tokenizer takes as well.
  plain = [caption.lower().rstrip(' .!?') for caption in captions]
  wanted = np.stack([shapes.parse_caption(caption) for caption in plain])
  rows = []
  for name, clips, frames in parts(wanted, videos.shape[1]):
    part = videos[clips][:, frames]
    errors = shapes_score.path_errors(part, shapes.BACKGROUND)
    whole = np.isfinite(errors)
    rows.append({
        'part': name,
        'clips': int(clips.sum()),
        **shapes_reader.match_shares(reader(part), wanted[clips]),
        'path': float(errors[whole].mean()) if whole.any() else None,
        'empty': int((~whole).sum()),
    })
  return rows


def parts(
    wanted: np.ndarray, num_frames: int
) -> Iterator[tuple[str, np.ndarray, slice]]:
  """Yields (name, which clips, which frames) of what has a row of its own.

  Args:
    wanted: int32 [n, 2, 3], the labels of all clips.
    num_frames: number of frames of a clip.
  """
  every = np.ones(len(wanted), bool)
  two = wanted[:, 1, 0] >= 0
  yield 'all frames', every, slice(None)
  if two.any() and not two.all():
    yield '- one object', ~two, slice(None)
    yield '- two objects', two, slice(None)
  if num_frames > WINDOW:
    yield f'first {WINDOW}', every, slice(WINDOW)
    yield f'last {WINDOW}', every, slice(-WINDOW, None)
