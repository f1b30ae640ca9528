"""Rollouts: videos of any length, sampled block by block by a plan."""
from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

from etils import epath
import jax
import numpy as np

from video_diffusion import media
from video_diffusion.checkpoints import digests
from video_diffusion.diffusion import extension
from video_diffusion.diffusion import rng
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.inference import block_files
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding


class NotFiniteError(ArgumentError):
  """Sampled frames hold a NaN or an infinity, which would be shown as black."""


class Stage(NamedTuple):
  """A model that samples blocks of a plan.

  Attributes:
    sample_block: see `block_sampler.make_block_sampler`.
    params: EMA parameters.
    condition: what the model's encoder takes, by name, each
      [num_videos, 1, ...]; None for the null condition.
    size: (height, width) of its frames.
    identity: everything beside the arrays that decides its frames, as JSON
      values, to know finished blocks again.
  """

  sample_block: Callable[..., jax.Array]
  params: Any
  condition: dict[str, np.ndarray] | None
  size: tuple[int, int]
  identity: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Batches:
  """How videos are divided into batches, and these among processes.

  Attributes:
    num_videos: videos in all.
    size: videos of a batch, over all devices. A batch that goes beyond the last
      video samples the first ones again.
    mesh: all devices.
  """

  num_videos: int
  size: int
  mesh: jax.sharding.Mesh

  def rows(self) -> list[np.ndarray]:
    """For each batch, the videos that this process samples."""
    own = collectives.own_rows(self.mesh, self.size)
    starts = range(0, self.num_videos, self.size)
    return [(start + own) % self.num_videos for start in starts]

  def own(self) -> np.ndarray:
    """The numbers of the videos that `run` returns in this process."""
    own = collectives.own_rows(self.mesh, self.size)
    starts = range(0, self.num_videos, self.size)
    videos = np.concatenate([start + own for start in starts])
    return videos[videos < self.num_videos]

  def first(self, videos: np.ndarray, count: int) -> np.ndarray:
    """The first `count` videos or all, in every process.

    Args:
      videos: what `run` has returned in this process.
      count: number of videos wanted.
    """
    count = min(count, self.num_videos)
    if jax.process_count() == 1:
      return videos[:count]
    rows = len(collectives.own_rows(self.mesh, self.size))
    batches = [
        collectives.gather(videos[i * rows : (i + 1) * rows], self.mesh)
        for i in range(-(-count // self.size))
    ]
    return np.concatenate(batches)[:count]


def run(
    plan: extension.Plan,
    stages: Sequence[Stage],
    batches: Batches,
    *,
    seed: int,
    given: np.ndarray | None = None,
    resume_dir: epath.PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
  """Samples videos by a plan, batch by batch.

  Args:
    plan: see `sampling_plan`.
    stages: one for each model of the plan.
    batches: how many videos, and how they are divided.
    seed: of all randomness.
    given: the plan's given frames or, where it has none, the low-resolution
      video: float32 [f, h, w, 3] in [-1, 1] for all videos, or
      [num_videos, f, h, w, 3].
    resume_dir: finished blocks are kept below this folder, for a call that is
      interrupted and made again; None keeps none.
    progress: called with (blocks done, blocks in all).

  Returns:
    uint8 [n, plan.num_frames, height, width, 3] of the last stage: the videos
    that `batches.own` names, which are all where there is one process. Given
    frames are exactly as they were.

  Raises:
    NotFiniteError: a block holds a NaN or an infinity.
  """
  kept = None
  if resume_dir is not None:
    kept = block_files.BlockFiles(
        block_files.folder_of(resume_dir),
        _call(plan, stages, batches, seed, given),
    )
  rows = batches.rows()
  total = len(rows) * len(plan.blocks)
  videos = []
  for batch, own in enumerate(rows):
    members = [
        stage._replace(
            condition=stage.condition
            and {name: x[own] for name, x in stage.condition.items()}
        )
        for stage in stages
    ]
    done = batch * len(plan.blocks)
    x = run_batch(
        plan,
        members,
        rng.stream_key(seed, 'sample', batch),
        batches,
        given=given[own] if given is not None and given.ndim == 5 else given,
        load=kept and functools.partial(kept.load, batch),
        save=kept and functools.partial(kept.save, batch),
        progress=progress and (lambda n, done=done: progress(done + n, total)),
    )
    videos.append(media.to_uint8(x))
  return np.concatenate(videos)[: len(batches.own())]


def run_batch(
    plan: extension.Plan,
    stages: Sequence[Stage],
    key: jax.Array,
    batches: Batches,
    *,
    given: np.ndarray | None = None,
    load: Callable[..., np.ndarray | None] | None = None,
    save: Callable[[int, np.ndarray], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
  """Samples one batch of videos by a plan.

  Args:
    plan: see `run`.
    stages: as in `run`, with the conditions of this process's rows.
    key: of the batch.
    batches: see `run`.
    given: as in `run`, for all rows or for each of this process's.
    load: (block, agree) -> a finished block or None; see `BlockFiles.load`.
    save: (block, x) keeps a finished block.
    progress: called with the number of blocks done.

  Returns:
    float32 [rows, plan.num_frames, height, width, 3] of the last stage, this
    process's rows of the batch (`collectives.own_rows`).

  Raises:
    NotFiniteError: a block holds a NaN or an infinity.
  """
  mesh = batches.mesh
  rows = len(collectives.own_rows(mesh, batches.size))
  canvases = [
      np.zeros((rows, plan.num_frames, *stage.size, 3), np.float32)
      for stage in stages
  ]
  if plan.given:
    canvases[0][:, list(plan.given)] = given
  elif given is not None:
    given = np.broadcast_to(given, (rows, *given.shape[-4:]))
  # Blocks of such a model without a partner get an empty mask: one program.
  partnered = {block.model for block in plan.blocks if any(block.low_res)}
  conditions = [
      stage.condition and collectives.global_batch(stage.condition, mesh)
      for stage in stages
  ]
  agree = functools.partial(_by_all, mesh=mesh)
  for i, block in enumerate(plan.blocks):
    frames, stage = list(block.frames), stages[block.model]
    canvas = canvases[block.model]
    finished = load(i, agree) if load else None
    if finished is not None:
      canvas[:, frames] = finished
    else:
      inputs, masks = {}, {}
      if any(block.known):
        inputs['known'] = canvas[:, frames]
        masks['known_mask'] = np.array(block.known)[None]
      if block.model in partnered:
        small = canvases[block.model - 1] if block.model else given
        inputs['low_res'] = small[:, frames]
        masks['low_res_mask'] = np.array(block.low_res)[None]
      if block.context:
        # -1, where there is no frame, takes any one: the mask leaves it out.
        inputs['previous'] = canvas[:, list(block.context)]
        masks['previous_mask'] = np.array(block.context)[None] >= 0
      inputs = collectives.global_batch(inputs, mesh)
      with jax.set_mesh(mesh), memory.explained(_too_large(batches)):
        x = stage.sample_block(
            stage.params, jax.random.fold_in(key, i), conditions[block.model],
            **inputs, **masks,
        )
        canvas[:, frames] = collectives.own_part(x)
      if not agree(bool(np.isfinite(canvas[:, frames]).all())):
        raise NotFiniteError(
            'sampling gave frames that are no numbers (NaN or infinite): the '
            'weights, or a large ', Argument('guidance_weight'), ' or other '
            'weight of guidance, make them overflow; lower it, or take weights '
            'of another step.',
        )
      if save:
        save(i, canvas[:, frames])
    if progress:
      progress(i + 1)
  return canvases[-1]


def _too_large(batches):
  """memory.Need -> the error about a batch that does not fit."""
  size, devices = batches.size, sharding.batch_devices(batches.mesh)
  return functools.partial(
      memory.batch_too_large, Argument('batch_size'), size,
      allowed=[
          n for n in range(devices, size, devices)
          if jax.process_count() == 1 or batches.num_videos % n == 0
      ],
  )


def _by_all(here: bool, mesh: jax.sharding.Mesh) -> bool:
  """Whether it is so in every process, which must all do the same."""
  if jax.process_count() == 1:
    return here
  return not int(collectives.largest(int(not here), mesh))


def _call(plan, stages, batches, seed, given) -> dict[str, Any]:
  """Everything that decides a frame of a call."""
  return {
      'processes': jax.process_count(),
      'rows': [rows.tolist() for rows in batches.rows()],
      'seed': seed,
      'plan': dataclasses.asdict(plan),
      'stages': [stage.identity for stage in stages],
      'weights': [digests.digests(stage.params) for stage in stages],
      'conditions': [
          {
              name: block_files.digest(x)
              for name, x in (stage.condition or {}).items()
          }
          for stage in stages
      ],
      'given': None if given is None else block_files.digest(given),
  }
