"""The mode that samples from a run, or from two in a cascade, to files."""
import contextlib
from typing import Any

from absl import logging
from etils import epath
import jax

from video_diffusion.api import cascade as cascade_lib
from video_diffusion.api import load as load_lib
from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import given_video
from video_diffusion.config import run_dir as run_dir_lib
from video_diffusion.config.validate import require
from video_diffusion.errors import naming
from video_diffusion.evaluation import samples
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.inference import block_files
from video_diffusion.inference import outputs
from video_diffusion.parallel import distributed

# Arguments of the API -> the fields of the command line, where these differ.
_FIELDS = {'refiner': 'refine_workdir', 'backwards': 'task'}


def sample(
    overrides: dict[str, Any],
    run_dir: epath.PathLike,
    step: int | None = None,
) -> None:
  """Samples videos from the run in run_dir.

  `overrides` are the config fields of the command line ('sample.frames': 32);
  everything else is as the run was trained. `step` is that of the checkpoint;
  None takes the newest.

  Writes to run_dir/samples/step_<step>_seed_<seed> what `outputs.write`
  describes. A call that was interrupted and is made again goes on behind its
  last finished block.

  Raises:
    UserError: no run or no checkpoint in run_dir; sample fields that do not
      fit; another process writes to the same folder.
  """
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  base = load_lib.load(run_dir, overrides, step=step)
  options = base.config.sample
  with naming(lambda name: f'sample.{_FIELDS.get(name, name)}'):
    arguments = build.sample_arguments(base.config)
    frames = arguments.pop('frames')
    conditions = base.conditions(
        *(arguments[name] for name in ('num_videos', 'prompts', 'labels'))
    )
    method, last = _method(base, overrides, frames)
    folder = run_dir / 'samples' / f'step_{base.step}_seed_{options.seed}'
    run_dir_lib.require_own(folder, run_dir)
    batches = base.batches(conditions.num_videos)
    with _holding(folder):
      with _progress_bar() as progress:
        videos = method(**arguments, progress=progress, resume_dir=folder)
      shown = outputs.write(
          folder, videos, conditions, batches, fps=options.fps
      )
      # Everything that the finished blocks held is written.
      block_files.folder_of(folder).rmtree()
  if jax.process_index():
    return
  samples.log_figures(last.config, shown)
  logging.info(
      'Wrote %d %s of step %d to %s.', conditions.num_videos,
      'video' if conditions.num_videos == 1 else 'videos', base.step, folder,
  )


def _method(
    base: model_lib.Model, overrides: dict[str, Any], frames: int | None
):
  """(what samples, with the arguments of its own; the model it ends with).

  Raises:
    UserError: sample fields that do not fit.
  """
  options = base.config.sample
  if options.refine_workdir:
    require(
        not options.video,
        'sample.video and sample.refine_workdir are both set; a cascade '
        'begins from noise.',
    )
    refiner = _load_refiner(base, overrides)
    cascade = cascade_lib.Cascade(base, refiner, options.stride)
    return lambda **more: cascade.sample(frames=frames, **more), refiner
  video = given_video.read(base.config)
  # A model without such blocks refuses those of this call, not its run's.
  how = {'overlap': overrides.get('sample.overlap') or None}
  if video is None:
    require(
        options.task == 'extend',
        f'sample.task is {options.task!r}, which needs a sample.video.',
    )
    return lambda **more: base.sample(frames=frames, **how, **more), base
  if options.upscale > 1:
    method = lambda **more: base.upscale(video, factor=options.upscale, **more)
  elif options.task == 'interpolate':
    method = lambda **more: base.interpolate(
        video, factor=options.factor, **more
    )
  else:
    method = lambda **more: base.extend(
        video, frames=frames, backwards=options.task == 'extend_backwards',
        **how, **more,
    )
  return method, base


def _load_refiner(base, overrides):
  """The model of the run in sample.refine_workdir.

  Sample fields of the command line are for both models; of those that name
  data and text, the refiner's run may lack some.
  """
  options = base.config.sample
  path = files.expand(
      options.refine_workdir, 'sample.refine_workdir', bucket=True
  )
  fields = overrides | {'sample.batch_size': options.batch_size}
  return load_lib.load(path, fields, optional=fields)


@contextlib.contextmanager
def _holding(folder: epath.Path):
  """Holds the folder of a call, without what killed processes have left."""
  lock = locks.Lock(
      folder, advice='wait until that has ended, or pass another sample.seed'
  )
  with distributed.holding(lock):
    if jax.process_index() == 0:
      files.remove_parts(folder)
    yield


@contextlib.contextmanager
def _progress_bar():
  """Yields a callable (blocks done, blocks in all) that draws a bar."""
  import tqdm

  with tqdm.tqdm(
      desc='sampling', unit='block', disable=jax.process_index() > 0
  ) as bar:

    def progress(done, total):
      bar.total = total
      bar.update(done - bar.n)

    yield progress
