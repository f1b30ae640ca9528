"""Sampling plans: from the sample fields to a plan, and its execution.

A plan is executed block by block; what is finished lies on disk, so a call
that was interrupted continues with the same frames.
"""
import dataclasses
import json

from etils import epath
import jax
import ml_collections
import numpy as np
import tqdm

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
    config: ml_collections.ConfigDict, init: np.ndarray | None
) -> extension.Plan:
  """The plan that the sample fields ask for.

  Without init_video: sample.frames frames, as one block up to the training
  length and by extension beyond. With it: its extension to sample.frames, its
  interpolation by sample.factor, or its enlargement by sample.upscale.

  Raises:
    ValueError: lengths that do not fit.
  """
  options, block = config.sample, config.data.frames
  overlap = options.overlap or max(1, block // 2)
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


def execute(
    config: ml_collections.ConfigDict,
    plan: extension.Plan,
    sampler,
    params,
    labels: np.ndarray | None,
    *,
    init: np.ndarray | None,
    mesh: jax.sharding.Mesh,
    folder: epath.Path,
    batch: int,
) -> np.ndarray:
  """Draws one batch of videos by a plan.

  Args:
    config: of the run, with this call's sample fields.
    plan: from `make_plan`.
    sampler: from `sample.make_sampler`.
    params: EMA parameters.
    labels: int32 [sample.batch_size, 1, slots] or None.
    init: the given frames, or the low-resolution video, [f, h, w, 3] from
      `read_init`, or one for each clip of the batch.
    mesh: of all devices.
    folder: finished blocks are kept in folder/blocks until all are done.
    batch: number of the batch; names its random stream and its files.

  Returns:
    float32 [sample.batch_size, plan.num_frames, height, width, 3]; given frames
    exactly as they were.
  """
  options, data = config.sample, config.data
  shape = (options.batch_size, plan.num_frames, data.height, data.width, 3)
  canvas = np.zeros(shape, np.float32)
  low_res = None
  if init is not None and options.upscale > 1:
    low_res = np.broadcast_to(init, (shape[0], *init.shape[-4:]))
  elif init is not None:
    canvas[:, list(plan.given)] = init
  key = train_state.stream_key(options.seed, 'sample', batch)
  blocks = claim_blocks(config, plan, init, folder)
  title = f'sampling batch {batch}'
  for i, block in enumerate(
      tqdm.tqdm(plan.blocks, desc=title, unit='block')
  ):
    path = blocks / f'batch_{batch}_block_{i}.npy'
    frames = list(block.frames)
    if path.exists():
      canvas[:, frames] = np.load(path)
      continue
    inputs = {}
    if any(block.known):
      inputs['known'] = canvas[:, frames]
      inputs['known_mask'] = np.array(block.known)[None]
    if low_res is not None:
      inputs['low_res'] = low_res[:, frames]
    with jax.set_mesh(mesh):
      x = sampler(params, jax.random.fold_in(key, i), labels, **inputs)
    canvas[:, frames] = jax.device_get(x)
    part = path.with_suffix('.part')
    with part.open('wb') as f:
      np.save(f, canvas[:, frames])
    part.replace(path)
  return canvas


def claim_blocks(config, plan, init, folder: epath.Path) -> epath.Path:
  """folder/blocks, emptied unless it is of this very call."""
  blocks = epath.Path(folder) / 'blocks'
  mark = json.dumps({
      'plan': dataclasses.asdict(plan),
      'sample': config.sample.to_dict(),
      'init': 0.0 if init is None else float(np.sum(init, dtype=np.float64)),
  })
  path = blocks / 'call.json'
  if not path.exists() or path.read_text() != mark:
    if blocks.exists():
      blocks.rmtree()
    blocks.mkdir(parents=True)
    path.write_text(mark)
  return blocks
