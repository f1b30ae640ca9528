"""Sampled videos as files: MP4, GIF, a grid, and the arrays."""
from collections.abc import Sequence

from absl import logging
from etils import epath
import jax
import numpy as np

from video_diffusion import media
from video_diffusion.filesystem import files
from video_diffusion.inference import conditioning
from video_diffusion.inference import rollout

GRID_VIDEOS = 64  # the first of all videos are shown together


def grid_path(run_dir: epath.PathLike, step: int) -> epath.Path:
  """Where `write_training_grid` leaves the animated grid of a step."""
  return epath.Path(run_dir) / 'samples' / f'step_{step}.gif'


def write_training_grid(
    path: epath.Path,
    videos: np.ndarray,
    captions: Sequence[str],
    *,
    fps: float,
) -> tuple[bytes, tuple[int, ...], list[str]]:
  """Writes a grid of videos as path.mp4 and, last, path, a GIF.

  Where the GIF is, everything is.

  Args:
    path: from `grid_path`.
    videos: uint8 [n, frames, height, width, 3].
    captions: of the videos, or ().
    fps: frames per second.

  Returns:
    (the GIF, its shape [frames, height, width, 3], sentences about what the
    disk refused, which are logged as well).
  """
  shown = media.with_texts(videos, captions[: len(videos)])
  picture = media.enlarge(media.grid(shown), min_side=256)
  gif = media.encode_gif(picture, fps=fps)
  missing = []
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_mp4(path.with_suffix('.mp4'), picture, fps=fps)
    files.write(path, gif)
  except OSError as error:
    missing.append(
        f'{path} could not be written ({error.strerror or error}): make '
        'room, or make the folder writable; the same command writes that of '
        'the newest step.'
    )
    logging.error('%s', missing[0])
  return gif, picture.shape, missing


def write(
    folder: epath.Path,
    videos: np.ndarray,
    conditions: conditioning.Conditions,
    batches: rollout.Batches,
    *,
    fps: float,
) -> np.ndarray:
  """Writes what a process has sampled, and a grid of the first videos.

  Each video becomes clip_<number>.mp4 and .gif; the arrays are samples.npz
  ('video', and 'captions' or 'labels') or, where several processes sampled,
  samples_<i>.npz with the numbers of its videos as 'clip'. Process 0 writes
  grid.mp4 and grid.gif.

  Args:
    folder: of this call.
    videos: what `rollout.run` has returned in this process.
    conditions: of all videos.
    batches: their division.
    fps: frames per second of the files.

  Returns:
    The videos of the grid, uint8 [n, frames, height, width, 3].
  """
  numbers, captions = batches.own(), conditions.captions
  arrays, names = {'video': videos}, ['samples']
  if jax.process_count() > 1:
    arrays['clip'] = numbers
    names = [f'samples_{i}' for i in range(jax.process_count())]
  if captions:
    arrays['captions'] = np.array(captions)[numbers]
  elif conditions.arrays:
    arrays |= {key: value[numbers] for key, value in conditions.arrays.items()}
  if jax.process_index() == 0:
    # An earlier call, with more videos or processes, may have left others.
    kept = {f'clip_{i:04d}' for i in range(batches.num_videos)}
    for old in [*folder.glob('clip_*'), *folder.glob('samples*.npz')]:
      if old.stem not in kept | set(names):
        old.unlink()
  with files.writing(folder / f'{names[jax.process_index()]}.npz') as part:
    np.savez_compressed(part, **arrays)
  for number, video in zip(numbers, videos, strict=True):
    comment = captions[number] if captions else ''
    _write_video(folder / f'clip_{number:04d}', video, fps, comment)
  shown = batches.first(videos, GRID_VIDEOS)
  if jax.process_index() == 0:
    grid = media.grid(media.with_texts(shown, captions[: len(shown)]))
    comment = '\n'.join(captions[: len(shown)])
    _write_video(folder / 'grid', grid, fps, comment)
  return shown


def _write_video(path, video, fps, comment):
  """Writes path.gif and path.mp4, large enough to look at."""
  video = media.enlarge(video)
  media.write_gif(path.with_suffix('.gif'), video, fps=fps)
  media.write_mp4(path.with_suffix('.mp4'), video, fps=fps, comment=comment)
