"""Draws videos by a plan, block by block.

What is finished lies on disk, so a call that was interrupted continues with
the same frames.
"""
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion.checkpoints import digests
from video_diffusion.diffusion import extension
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import state as state_lib


class NotFiniteError(UserError):
  """Sampled frames hold a NaN or an infinity, which would be shown as black."""

# Groups of a run's config that decide the frames drawn from its weights.
DECIDING = ('data', 'diffusion', 'model', 'sample', 'text')


class Stage(NamedTuple):
  """A model that draws blocks of a plan.

  Attributes:
    config: of its run, with this call's sample fields.
    sampler: from `sample.make_sampler`.
    params: EMA parameters.
    condition: what the model's encoder takes, by name, each
      [sample.num_clips, 1, ...]; None for the null condition.
  """

  config: ml_collections.ConfigDict
  sampler: Any
  params: Any
  condition: dict[str, np.ndarray] | None


def draw(
    plan: extension.Plan,
    stages: Sequence[Stage],
    *,
    mesh: jax.sharding.Mesh,
    init: np.ndarray | None = None,
    folder: epath.Path | None = None,
    steps: Sequence[int] = (),
) -> np.ndarray:
  """Draws sample.num_clips videos by a plan, batch by batch.

  Args:
    plan: from `plans.make_plan`.
    stages: one for each model of the plan; the first one's config gives
      num_clips, batch_size and seed.
    mesh: of all devices.
    init: see `execute`.
    folder: finished blocks are kept in folder/blocks, for a call that is
      interrupted and made again; None keeps none.
    steps: of the checkpoints that the stages hold, to know them again.

  Returns:
    uint8 [clips, plan.num_frames, height, width, 3] of the last stage: those
    that `own_clips` names, which are all where there is one process.
  """
  import tqdm  # a single block is drawn without it, by benchmarks

  options = stages[0].config.sample
  n, size = options.num_clips, options.batch_size
  blocks = folder and claim_blocks(plan, stages, init, folder, steps, mesh)
  starts = range(0, n, size)
  own = collectives.own_rows(mesh, size)
  videos = []
  with tqdm.tqdm(
      total=len(starts) * len(plan.blocks), desc='sampling', unit='block',
      disable=jax.process_index() > 0,
  ) as bar:
    for batch, start in enumerate(starts):
      rows = (start + own) % n
      members = [
          stage._replace(
              condition=stage.condition
              and {name: x[rows] for name, x in stage.condition.items()}
          )
          for stage in stages
      ]
      key = state_lib.stream_key(options.seed, 'sample', batch)
      x = execute(
          plan, members, key, mesh=mesh, init=init, bar=bar,
          prefix=blocks and blocks / f'batch_{batch}',
      )
      videos.append(media.to_uint8(x))
  # A batch that goes beyond the last clip draws the first ones again.
  return np.concatenate(videos)[: len(own_clips(stages[0].config, mesh))]


def own_clips(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Which of sample.num_clips this process draws, as `draw` returns them."""
  n, size = config.sample.num_clips, config.sample.batch_size
  own = collectives.own_rows(mesh, size)
  clips = np.concatenate([start + own for start in range(0, n, size)])
  return clips[clips < n]


def first_clips(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    videos: np.ndarray,
    count: int,
) -> np.ndarray:
  """The first `count` clips or all, whichever process drew them, in all.

  Args:
    config: of `draw`.
    mesh: of `draw`.
    videos: from `draw`, of each process its own.
    count: of clips wanted.
  """
  count = min(count, config.sample.num_clips)
  if jax.process_count() == 1:
    return videos[:count]
  size = config.sample.batch_size
  rows = len(collectives.own_rows(mesh, size))
  batches = [
      collectives.gather(videos[i * rows : (i + 1) * rows], mesh)
      for i in range(-(-count // size))
  ]
  return np.concatenate(batches)[:count]


def execute(
    plan: extension.Plan,
    stages: Sequence[Stage],
    key: jax.Array,
    *,
    mesh: jax.sharding.Mesh,
    init: np.ndarray | None = None,
    prefix: epath.Path | None = None,
    bar: Any = None,
) -> np.ndarray:
  """Draws one batch of videos by a plan.

  Args:
    plan: from `plans.make_plan`.
    stages: one for each model of the plan, with the conditions of this batch.
    key: of the batch.
    mesh: of all devices.
    init: the plan's given frames or, where it has none, the low-resolution
      video, float32 [f, h, w, 3], or one for each of this process's clips.
    prefix: of the files that hold finished blocks; None keeps none.
    bar: of tqdm, counts blocks.

  Returns:
    float32 [rows, plan.num_frames, height, width, 3] of the last stage, this
    process's rows of the batch (`collectives.own_rows`); given frames exactly
    as they were.

  Raises:
    NotFiniteError: a block holds what is no number.
  """
  batch = len(collectives.own_rows(mesh, stages[0].config.sample.batch_size))
  canvases = [
      np.zeros((batch, plan.num_frames, data.height, data.width, 3), np.float32)
      for data in (stage.config.data for stage in stages)
  ]
  if plan.given:
    canvases[0][:, list(plan.given)] = init
  elif init is not None:
    init = np.broadcast_to(init, (batch, *init.shape[-4:]))
  # Blocks of such a model without a partner get an empty mask: one program.
  partnered = {block.model for block in plan.blocks if any(block.low_res)}
  conditions = [
      stage.condition and collectives.global_batch(stage.condition, mesh)
      for stage in stages
  ]
  options = stages[0].config.sample
  size, devices = options.batch_size, sharding.batch_devices(mesh)
  too_large = functools.partial(
      memory.batch_too_large, 'sample.batch_size', size,
      allowed=[
          n for n in range(devices, size, devices)
          if jax.process_count() == 1 or options.num_clips % n == 0
      ],
  )
  for i, block in enumerate(plan.blocks):
    frames, stage = list(block.frames), stages[block.model]
    canvas = canvases[block.model]
    path = prefix and prefix.with_name(f'{prefix.name}_block_{i}.npy')
    if path and _by_all(path.exists(), mesh):
      canvas[:, frames] = np.load(path)
    else:
      inputs, masks = {}, {}
      if any(block.known):
        inputs['known'] = canvas[:, frames]
        masks['known_mask'] = np.array(block.known)[None]
      if block.model in partnered:
        small = canvases[block.model - 1] if block.model else init
        inputs['low_res'] = small[:, frames]
        masks['low_res_mask'] = np.array(block.low_res)[None]
      inputs = collectives.global_batch(inputs, mesh)
      with jax.set_mesh(mesh), memory.explained(too_large):
        x = stage.sampler(
            stage.params, jax.random.fold_in(key, i), conditions[block.model],
            **inputs, **masks,
        )
        canvas[:, frames] = collectives.own_part(x)
      if not _by_all(bool(np.isfinite(canvas[:, frames]).all()), mesh):
        raise NotFiniteError(
            'sampling gave frames that are no numbers (NaN or infinite): the '
            'weights, or a large sample.guidance_weight or other weight of '
            'guidance, make them overflow; lower it, or take weights of '
            'another step.'
        )
      if path:
        with files.writing(path) as part:
          np.save(part, canvas[:, frames])
    if bar is not None:
      bar.update()
  return canvases[-1]


def _by_all(here: bool, mesh: jax.sharding.Mesh) -> bool:
  """Whether it is so in every process, which must all do the same."""
  if jax.process_count() == 1:
    return here
  return not int(collectives.largest(int(not here), mesh))


def blocks_folder(folder: epath.PathLike) -> epath.Path:
  """Where a process keeps its part of the finished blocks of a call."""
  return epath.Path(folder) / f'blocks_{jax.process_index()}'


def claim_blocks(
    plan, stages, init, folder: epath.Path, steps, mesh
) -> epath.Path:
  """Returns `blocks_folder`, emptied unless its blocks are of this very call.

  Everything that decides a frame is compared: the plan, the configs of the
  runs, the sample fields, the weights, what conditions the clips, the given
  clip, the rows of this process, and the code that draws.
  """
  blocks = blocks_folder(folder)
  size = stages[0].config.sample.batch_size
  call = {
      'processes': jax.process_count(),
      'rows': collectives.own_rows(mesh, size).tolist(),
      'plan': dataclasses.asdict(plan),
      'configs': [
          {name: stage.config[name].to_dict() for name in DECIDING}
          for stage in stages
      ],
      'steps': list(steps),
      'weights': [digests.digests(stage.params) for stage in stages],
      'conditions': [
          {name: _digest(x) for name, x in (stage.condition or {}).items()}
          for stage in stages
      ],
      'init': None if init is None else _digest(init),
      'code': [jax.__version__, _code()],
  }
  mark = json.dumps(call, sort_keys=True, default=str)
  path = blocks / 'call.json'
  if not path.exists() or path.read_text() != mark:
    if blocks.exists():
      blocks.rmtree()
    blocks.mkdir(parents=True)
    files.write(path, mark)
  return blocks


def _digest(x) -> str:
  """SHA-256 of an array: dtype, shape and bytes."""
  x = np.ascontiguousarray(x)
  sha = hashlib.sha256(f'{x.dtype} {x.shape}'.encode())
  sha.update(x.tobytes())
  return sha.hexdigest()


@functools.cache
def _code() -> str:
  """SHA-256 of this package's source, which an update may change."""
  sha = hashlib.sha256()
  root = pathlib.Path(__file__).parent
  for path in sorted(root.rglob('*.py')):
    sha.update(f'{path.relative_to(root)}\n'.encode())
    sha.update(path.read_bytes())
  return sha.hexdigest()
