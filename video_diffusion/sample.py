"""Samples from the EMA weights of a run, or of two in a cascade."""
import functools
import math
from typing import Any, NamedTuple

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion import media
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import validate
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import sampling
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.inference import conditioning as conditioning_lib
from video_diffusion.inference import outputs
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.parallel import distributed
from video_diffusion.parallel import sharding
from video_diffusion.text import text_input
from video_diffusion.training import writers


def make_sampler(
    config: ml_collections.ConfigDict,
    model,
    mesh,
    *,
    frames: int,
    upscale: int = 1,
):
  """A jitted draw of one block.

  Args:
    config: of the run.
    model: from `experiment.make_model`.
    mesh: of all devices.
    frames: of a block.
    upscale: how much larger frames are than their low-resolution partners.

  Returns:
    (params, key, condition, known, known_mask, low_res, low_res_mask, weight)
    -> x, float32 [batch, frames, height, width, 3] in [-1, 1]. condition is
    what the model's encoder takes, each [batch, 1, ...], or None; known [batch,
    frames, height, width, 3] and low_res [batch, frames, height / upscale,
    width / upscale, 3], each with a mask bool [1, frames], may be left out.
    All that has a batch axis is split by `sharding.batch_sharding`.
    Masks are data: blocks that know other frames share one program. weight is
    of classifier-free guidance, in place of sample.guidance_weight.
  """
  options, data = config.sample, config.data
  if config.model.cond_dim:
    w = options.guidance_weight
    logging.info('Classifier-free guidance: w = %g (1 + w = %g).', w, 1 + w)
  shape = (options.batch_size, frames, data.height, data.width, 3)

  def sampler(
      params,
      key,
      condition,
      known=None,
      known_mask=None,
      low_res=None,
      low_res_mask=None,
      weight=options.guidance_weight,
  ):
    make = functools.partial(build.make_denoise_fn, config, model, params)
    denoise_fn = make(condition)
    if condition is not None:
      denoise_fn = guidance.classifier_free(
          denoise_fn, make(None), weight=weight
      )
    terms = []
    if known is not None and options.reconstruction_weight:
      error = guidance.known_error(known, known_mask)
      terms.append((options.reconstruction_weight, error))
    if low_res is not None:
      error = guidance.low_res_error(
          low_res, guidance.area(upscale), low_res_mask
      )
      terms.append((options.super_resolution_weight, error))
    if terms:
      denoise_fn = guidance.descend(denoise_fn, terms, held=known_mask)
    return sampling.sample(
        key,
        guidance.clip(denoise_fn, method=options.clip),
        shape=shape,
        num_steps=options.num_steps,
        sampler=options.sampler,
        gamma=options.gamma,
        eta=options.eta,
        corrector_delta=options.corrector_delta or None,
        known=known,
        known_mask=known_mask,
        replacement=options.replacement,
        logsnr_fn=build.make_logsnr_fn(config),
    )

  return jax.jit(sampler, out_shardings=sharding.batch_sharding(mesh))


def make_grid_sampler(config: ml_collections.ConfigDict, model, mesh):
  """(plan, sampler) of the grids that a training run draws.

  Raises:
    UserError: sample fields that do not fit.
  """
  plan = sampling_plan.make_plan(config, None)
  frames = len(plan.blocks[0].frames)
  return plan, make_sampler(config, model, mesh, frames=frames)


class Run(NamedTuple):
  """A trained run, restored to be sampled."""

  config: ml_collections.ConfigDict
  source: Any  # of held-out clips, where sampling needs them; else None
  model: Any
  params: Any
  step: int
  drawn: conditioning_lib.Drawn


def restore(
    overrides: dict[str, Any], workdir: epath.Path, base: Run | None = None
) -> Run:
  """The run in workdir, with the sample fields of this call.

  Args:
    overrides: those fields.
    workdir: of the run.
    base: the run that this one refines, whose labels or captions it takes. Of
      the overrides that name data and text, it may lack fields.

  Raises:
    UserError: no run or no checkpoint in workdir; bad sample fields.
  """
  config = run_dir.saved_config(
      overrides, workdir, ('sample', 'mesh'), optional=overrides if base else ()
  )
  # Clips on disk are needed for their labels or captions alone, which a second
  # model has from the first.
  taken = config.sample.prompts or (base and config.text.encoder)
  wanted = (config.model.cond_dim and not taken) or inputs.drawn(config)
  named = text_input.places(config, workdir)
  run_dir.require_places(
      overrides, workdir, *named, *(('data',) if wanted else ()),
      advice='; or give --prompt' if config.text.encoder and wanted else '',
  )
  run_dir.tell_places(overrides, workdir)
  validate.check(config, 'sample')
  source = inputs.make_source(config, 'test') if wanted else None
  encode = functools.partial(text_input.encode, config, workdir)
  if base is None:
    drawn = conditioning_lib.sample_condition(config, source, encode)
  elif config.text.encoder:
    validate.require(
        len(base.drawn.captions) > 0,
        f'sample.refine_workdir {workdir} holds a model that takes text, and '
        'the run that it refines has none.',
    )
    drawn = conditioning_lib.of_captions(base.drawn.captions, encode)
  elif config.model.cond_dim:
    validate.require(
        'labels' in (base.drawn.condition or {}),
        f'sample.refine_workdir {workdir} holds a model that takes labels, and '
        'the run that it refines has none.',
    )
    drawn = base.drawn
  else:
    drawn = conditioning_lib.Drawn(None)
  sizes = inputs.label_sizes(source)
  model = build.make_model(config, sizes)
  params, step = build.restore_ema(config, workdir, model, sizes)
  return Run(config, source, model, params, step, drawn)


def restore_refiner(overrides: dict[str, Any], base: Run) -> Run | None:
  """The run in sample.refine_workdir; None without one.

  Raises:
    UserError: it does not fit the base run.
  """
  options, small = base.config.sample, base.config.data
  if not options.refine_workdir:
    return None
  validate.require(
      not options.init_video,
      'sample.init_video and sample.refine_workdir are both set; a cascade '
      'begins from noise.',
  )
  path = epath.Path(
      files.expand(options.refine_workdir, 'sample.refine_workdir', bucket=True)
  )
  fields = overrides | {
      f'sample.{name}': options[name] for name in ('num_clips', 'batch_size')
  }
  # Before its weights are read.
  large = run_dir.saved_config(
      fields, path, ('sample', 'mesh'), optional=fields
  ).data
  factor = large.height // small.height
  validate.require(
      (large.height, large.width)
      == (factor * small.height, factor * small.width),
      f'sample.refine_workdir {path} holds a model of {large.height}x'
      f'{large.width}, no whole multiple of {small.height}x{small.width}.',
  )
  check_stride(options.stride, small, large)
  refiner = restore(fields, path, base)
  sizes = [inputs.label_sizes(run.source) for run in (base, refiner)]
  by_labels = refiner.config.model.cond_dim and not refiner.config.text.encoder
  validate.require(
      not by_labels or sizes[0] == sizes[1],
      f'sample.refine_workdir {path} holds a model with other labels.',
  )
  return refiner


def check_stride(stride: int, base, refiner) -> None:
  """Requires that the base's frames lie `stride` of the refiner's apart.

  Args:
    stride: sample.stride.
    base: config.data of the run that draws first.
    refiner: config.data of the run that refines. Where the frames of one of
      the two are counted and those of the other timed (data.fps), they cannot
      be compared, and any stride will do.

  Raises:
    UserError: they lie otherwise.
  """
  rates = [data.get('fps', 0.0) for data in (base, refiner)]
  if bool(rates[0]) != bool(rates[1]):
    return
  sparse, dense = (
      [skip / (rate or 1) for skip in data.frameskips]
      for data, rate in zip((base, refiner), rates, strict=True)
  )
  unit = ' seconds' if rates[0] else ''
  words = lambda distances: ' or '.join(f'{d:g}' for d in distances) + unit
  validate.require(
      any(math.isclose(s, stride * d) for s in sparse for d in dense),
      f'sample.stride is {stride}, but the first model draws frames '
      f'{words(sparse)} apart and that of sample.refine_workdir frames '
      f'{words(dense)} apart (data.frameskips); set it to their ratio.',
  )


def sample(overrides: dict[str, Any], workdir: str) -> None:
  """Draws clips from the run in workdir.

  `overrides` are the config fields of the command line ('sample.frames': 32);
  all else is as the run was trained.

  Writes to workdir/samples/step_<step>_seed_<seed>: an MP4 and a GIF of each
  clip, of a grid of the first 64, and samples.npz ('video' uint8 [n, t, h, w,
  3], and 'labels' or 'captions'). Captions stand in the grid, and in each MP4's
  metadata as its comment. Several processes write the clips that each drew.

  Videos longer than the training clips, those that continue a given one, and
  the cascade of two runs are drawn by a plan of blocks (`plans.make_plan`); an
  interrupted call, made again, continues behind its last finished block.

  Raises:
    UserError: no run or no checkpoint in workdir; bad sample fields; another
      process writes to the same folder.
  """
  workdir = epath.Path(files.expand(workdir, '--workdir', bucket=True))
  base = restore(overrides, workdir)
  config, step = base.config, base.step
  captions = base.drawn.captions
  refiner = restore_refiner(overrides, base)
  init = sampling_plan.read_init(config)
  plan = sampling_plan.make_plan(config, init, refiner and refiner.config)
  mesh = build.make_mesh(config)
  stages, upscale = [], config.sample.upscale
  for i, run in enumerate([base, refiner] if refiner else [base]):
    frames = next(len(b.frames) for b in plan.blocks if b.model == i)
    if i:
      upscale = run.config.data.height // config.data.height
    sampler = make_sampler(
        run.config, run.model, mesh, frames=frames, upscale=upscale
    )
    stages.append(
        rollout.Stage(run.config, sampler, run.params, run.drawn.condition)
    )
  folder = workdir / 'samples' / f'step_{step}_seed_{config.sample.seed}'
  run_dir.require_own(folder, workdir)
  steps = [run.step for run in (base, refiner) if run]
  lock = locks.Lock(
      folder, advice='wait until that has ended, or pass another sample.seed'
  )
  with distributed.holding(lock):
    if jax.process_index() == 0:
      files.remove_parts(folder)  # what killed processes have left
    videos = rollout.draw(
        plan, stages, mesh=mesh, init=init, folder=folder, steps=steps
    )
    outputs.write_clips(folder, config, mesh, videos, base.drawn)
    shown = rollout.first_clips(config, mesh, videos, outputs.GRID_CLIPS)
    rollout.blocks_folder(folder).rmtree()  # all that they held is written
    if jax.process_index():
      return
    outputs.write_video(
        folder / 'grid',
        media.grid(media.with_texts(shown, captions[: len(shown)])),
        fps=config.sample.fps, comment='\n'.join(captions[: len(shown)]),
    )
  last = refiner or base
  if inputs.drawn(last.config):
    writers.log_lines(outputs.figures_table(last.config, shown, last.source))
  logging.info(
      'Wrote %d clips of step %d to %s.', config.sample.num_clips, step, folder
  )
