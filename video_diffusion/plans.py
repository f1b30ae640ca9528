"""Sampling plans: from the sample fields to a plan, and its execution.

A plan is executed block by block; what is finished lies on disk, so a call
that was interrupted continues with the same frames.
"""
from collections.abc import Sequence
import dataclasses
import json
from typing import Any, NamedTuple

from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion import train_state
from video_diffusion.data import video as video_lib
from video_diffusion.diffusion import extension
from video_diffusion.validation import require


def read_init(config: ml_collections.ConfigDict) -> np.ndarray | None:
  """The frames of sample.init_video, float32 [f, h, w, 3] in [-1, 1].

  Cropped and resized to the size of the model, or to that divided by
  sample.upscale. None without a file.

  Raises:
    ValueError: the file cannot be used, or the size does not divide.
  """
  options, data = config.sample, config.data
  if not options.init_video:
    require(
        options.upscale == 1,
        f'sample.upscale is {options.upscale}, but there is no '
        'sample.init_video to enlarge.',
    )
    return None
  for side in ('height', 'width'):
    require(
        data[side] % options.upscale == 0,
        f'sample.upscale is {options.upscale}; it must divide data.{side}, '
        f'{data[side]}.',
    )
  path = epath.Path(options.init_video).expanduser()
  require(path.is_file(), f'sample.init_video {path} is not a file.')
  size = dict(
      height=data.height // options.upscale, width=data.width // options.upscale
  )
  frames = [
      video_lib.resize_and_crop(frame[None], **size)
      for frame in video_lib.read_frames(path)
  ]
  return np.concatenate(frames).astype(np.float32) / 127.5 - 1.0


def make_plan(
    config: ml_collections.ConfigDict,
    init: np.ndarray | None,
    refiner: ml_collections.ConfigDict | None = None,
) -> extension.Plan:
  """The plan that the sample fields ask for.

  With a refiner, the config of a second run: the paper's cascade to
  sample.frames. Without init_video: sample.frames frames, as one block up to
  the training length and by extension beyond. With it: its extension to
  sample.frames, its interpolation by sample.factor, or its enlargement by
  sample.upscale.

  Raises:
    ValueError: lengths that do not fit.
  """
  options, block = config.sample, config.data.frames
  overlap = options.overlap or max(1, block // 2)
  if refiner is not None:
    return extension.cascade(
        options.frames or block * options.stride,
        base_frames=block,
        stride=options.stride,
        block_frames=refiner.data.frames,
        overlap=options.overlap or 1,
    )
  if init is None:
    require(
        options.task == 'extend',
        f'sample.task is {options.task!r}, which needs a sample.init_video.',
    )
    frames = options.frames or block
    if frames <= block:
      empty = (False,) * frames
      return extension.Plan(
          frames, (), (extension.Block(tuple(range(frames)), empty, empty),)
      )
    return extension.extend(frames, block_frames=block, overlap=overlap)
  if options.upscale > 1:
    return extension.super_resolve(
        len(init), block_frames=block, overlap=overlap
    )
  if options.task == 'interpolate':
    return extension.interpolate(
        len(init), factor=options.factor, block_frames=block
    )
  return extension.extend(
      options.frames or len(init) + block - overlap,
      block_frames=block,
      overlap=overlap,
      num_given=len(init),
      backwards=options.task == 'extend_backwards',
  )


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
    plan: from `make_plan`.
    stages: one for each model of the plan; the first one's config gives
      num_clips, batch_size and seed.
    mesh: of all devices.
    init: see `execute`.
    folder: finished blocks are kept in folder/blocks, for a call that is
      interrupted and made again; None keeps none.
    steps: of the checkpoints that the stages hold, to know them again.

  Returns:
    uint8 [num_clips, plan.num_frames, height, width, 3] of the last stage.
  """
  import tqdm  # a single block is drawn without it, by benchmarks

  options = stages[0].config.sample
  n, size = options.num_clips, options.batch_size
  blocks = folder and claim_blocks(plan, stages, init, folder, steps)
  starts = range(0, n, size)
  videos = []
  with tqdm.tqdm(
      total=len(starts) * len(plan.blocks), desc='sampling', unit='block'
  ) as bar:
    for batch, start in enumerate(starts):
      rows = np.arange(start, start + size) % n
      members = [
          stage._replace(
              condition=stage.condition
              and {name: x[rows] for name, x in stage.condition.items()}
          )
          for stage in stages
      ]
      key = train_state.stream_key(options.seed, 'sample', batch)
      x = execute(
          plan, members, key, mesh=mesh, init=init, bar=bar,
          prefix=blocks and blocks / f'batch_{batch}',
      )
      videos.append(media.to_uint8(x))
  return np.concatenate(videos)[:n]


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
    plan: from `make_plan`.
    stages: one for each model of the plan, with the conditions of this batch.
    key: of the batch.
    mesh: of all devices.
    init: the plan's given frames or, where it has none, the low-resolution
      video, float32 [f, h, w, 3], or one for each clip of the batch.
    prefix: of the files that hold finished blocks; None keeps none.
    bar: of tqdm, counts blocks.

  Returns:
    float32 [batch, plan.num_frames, height, width, 3] of the last stage; given
    frames exactly as they were.
  """
  batch = stages[0].config.sample.batch_size
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
  for i, block in enumerate(plan.blocks):
    frames, stage = list(block.frames), stages[block.model]
    canvas = canvases[block.model]
    path = prefix and prefix.with_name(f'{prefix.name}_block_{i}.npy')
    if path and path.exists():
      canvas[:, frames] = np.load(path)
    else:
      inputs = {}
      if any(block.known):
        inputs['known'] = canvas[:, frames]
        inputs['known_mask'] = np.array(block.known)[None]
      if block.model in partnered:
        small = canvases[block.model - 1] if block.model else init
        inputs['low_res'] = small[:, frames]
        inputs['low_res_mask'] = np.array(block.low_res)[None]
      with jax.set_mesh(mesh):
        x = stage.sampler(
            stage.params, jax.random.fold_in(key, i), stage.condition, **inputs
        )
      canvas[:, frames] = jax.device_get(x)
      if path:
        part = path.with_suffix('.part')
        with part.open('wb') as f:
          np.save(f, canvas[:, frames])
        part.replace(path)
    if bar is not None:
      bar.update()
  return canvases[-1]


def claim_blocks(plan, stages, init, folder: epath.Path, steps) -> epath.Path:
  """folder/blocks, emptied unless it is of this very call."""
  blocks = epath.Path(folder) / 'blocks'
  mark = json.dumps({
      'plan': dataclasses.asdict(plan),
      'sample': [stage.config.sample.to_dict() for stage in stages],
      'steps': list(steps),
      'init': 0.0 if init is None else float(np.sum(init, dtype=np.float64)),
  })
  path = blocks / 'call.json'
  if not path.exists() or path.read_text() != mark:
    if blocks.exists():
      blocks.rmtree()
    blocks.mkdir(parents=True)
    path.write_text(mark)
  return blocks
