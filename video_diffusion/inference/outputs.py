"""Drawn clips as files: MP4, GIF, a grid, the arrays, a table of figures."""
from absl import logging
from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion.config import inputs
from video_diffusion.data import shapes
from video_diffusion.filesystem import files
from video_diffusion.inference import rollout
from video_diffusion.metrics import shapes_score
from video_diffusion.training import writers

GRID_CLIPS = 64  # of all, the first


def grid_path(workdir: epath.PathLike, step: int) -> epath.Path:
  """Where `write_grid` leaves the animated grid of a step."""
  return epath.Path(workdir) / 'samples' / f'step_{step}.gif'


def figures_table(config: ml_collections.ConfigDict, videos, source) -> str:
  """shape_figures of samples beside real clips, noise and blank clips."""
  n, t = videos.shape[:2]
  rng = np.random.default_rng(0)
  real = [
      source.example(
          i % source.num_examples, rng, min(t, config.data.frames),
          config.data.frameskips,
      )
      for i in range(n)
  ]
  rows = []
  for name, clips in (
      ('samples', videos),
      ('real clips', np.stack([example['video'] for example in real])),
      ('noise', rng.integers(0, 256, videos.shape, np.uint8)),
      ('blank', np.broadcast_to(np.uint8(shapes.BACKGROUND), videos.shape)),
  ):
    figures = shapes_score.shape_figures(
        clips, np.array(list(shapes.PALETTE.values())), shapes.BACKGROUND
    )
    rows.append([name, *(f'{value:.3f}' for value in figures.values())])
  return writers.table(
      [f'{n} clips', 'palette share', 'area', 'motion (pixels a frame)'], rows
  )


def write_grid(
    config, plan, sampler, params, step, *, drawn, source, workdir, writer, mesh
) -> list[str]:
  """A grid of the first samples as samples/<step>.mp4 and .gif, and to
  TensorBoard; every process takes part, the first one writes.

  The GIF is written last, so that where it is all is.

  Returns:
    Sentences about what the disk refused, which are logged as well.
  """
  try:
    videos = rollout.draw(
        plan, [rollout.Stage(config, sampler, params, drawn.condition)],
        mesh=mesh,
    )
  except rollout.NotFiniteError as error:
    # The training goes on, and may recover.
    logging.error('No samples of step %d: %s', step, error)
    return []
  videos = rollout.first_clips(config, mesh, videos, GRID_CLIPS)
  missing = []
  if jax.process_index() == 0:
    path = grid_path(workdir, step)
    shown = media.with_texts(videos, drawn.captions[: len(videos)])
    picture = media.enlarge(media.grid(shown), min_side=256)
    fps = config.sample.fps
    gif = media.encode_gif(picture, fps=fps)
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
    writer.gif(step, 'samples', gif, picture.shape)
  if inputs.drawn(config):
    writers.log_lines(figures_table(config, videos, source))
  return missing


def write_clips(
    folder: epath.Path, config, mesh, videos: np.ndarray, drawn
) -> None:
  """This process's clips: an MP4 and a GIF of each, and the arrays of all.

  The arrays are samples.npz or, where several processes drew, samples_<i>.npz
  with the numbers of its clips as 'clip'.
  """
  clips = rollout.own_clips(config, mesh)
  arrays, names = {'video': videos}, ['samples']
  if jax.process_count() > 1:
    arrays['clip'] = clips
    names = [f'samples_{i}' for i in range(jax.process_count())]
  if drawn.captions:
    arrays['captions'] = np.array(drawn.captions)[clips]
  elif drawn.condition:
    arrays |= {key: value[clips] for key, value in drawn.condition.items()}
  if jax.process_index() == 0:
    # An earlier call, with more clips or processes, may have left others.
    kept = {f'clip_{i:04d}' for i in range(config.sample.num_clips)}
    for old in [*folder.glob('clip_*'), *folder.glob('samples*.npz')]:
      if old.stem not in kept | set(names):
        old.unlink()
  with files.writing(folder / f'{names[jax.process_index()]}.npz') as part:
    np.savez_compressed(part, **arrays)
  for clip, video in zip(clips, videos, strict=True):
    text = drawn.captions[clip] if drawn.captions else ''
    write_video(
        folder / f'clip_{clip:04d}', video, fps=config.sample.fps, comment=text
    )


def write_video(path: epath.Path, video, *, fps: float, comment: str) -> None:
  """path.gif and path.mp4, large enough to look at."""
  video = media.enlarge(video)
  media.write_gif(path.with_suffix('.gif'), video, fps=fps)
  media.write_mp4(path.with_suffix('.mp4'), video, fps=fps, comment=comment)
