"""Held-out loss by log-SNR bucket, on fixed seeds."""
import datetime
import functools
import json
from typing import Any

from absl import logging
from etils import epath
import jax
import ml_collections
import numpy as np

from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import saved_config
from video_diffusion.config import validate
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.diffusion import rng
from video_diffusion.filesystem import files
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import step as step_lib
from video_diffusion.training import writers

SEED = 0  # of times and noise, whatever the run's seed


def make_eval_step(config: ml_collections.ConfigDict, model, mesh):
  """(params, batch, batch number) -> {'loss', bucket sums and counts}."""
  draw_noise, loss_fn = step_lib.make_loss(
      model,
      num_images=0,
      prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config),
  )

  def eval_step(params, batch, i):
    key = rng.stream_key(SEED, 'evaluate', i)
    loss, metrics = loss_fn(params, draw_noise(key, batch), key)
    return metrics | {'loss': loss}

  return jax.jit(eval_step, out_shardings=sharding.replicated(mesh))


def mean_losses(
    config, model, eval_step, params, source, mesh, encode=None
) -> dict[str, float]:
  """Loss over eval.num_clips windows, and by log-SNR bucket, noisiest first."""
  size, devices = config.eval.batch_size, sharding.batch_devices(mesh)
  too_large = functools.partial(
      memory.batch_too_large, 'eval.batch_size', size,
      allowed=[
          n for n in range(devices, size, devices)
          if config.eval.num_clips % n == 0
      ],
  )
  results = []
  with jax.set_mesh(mesh), memory.explained(too_large):
    for i, batch in enumerate(
        inputs.heldout_batches(config, source, encode)
    ):
      batch = collectives.global_batch(model.inputs_of(batch), mesh)
      results.append(eval_step(params, batch, i))
    results = jax.device_get(results)
  sums = np.sum([r['bucket_sum'] for r in results], axis=0)
  counts = np.sum([r['bucket_count'] for r in results], axis=0)
  losses = {'loss': float(np.mean([r['loss'] for r in results]))}
  for i in range(step_lib.NUM_BUCKETS):
    # A bucket that no clip fell into has no loss, not a loss of zero.
    mean = float(sums[i] / counts[i]) if counts[i] else None
    losses[f'loss_bucket_{i}'] = mean
  return losses


def heldout_losses(
    config, model, eval_step, state, source, mesh, encode=None
):
  """{'raw': losses, 'ema': losses} of a train state's weights."""
  return {
      name: mean_losses(
          config, model, eval_step, params, source, mesh, encode
      )
      for name, params in (('raw', state.params), ('ema', state.ema_params))
  }


def as_scalars(losses: dict[str, dict[str, float]]) -> dict[str, float]:
  """{'heldout_loss/raw': ..., ...} for the writer."""
  return {
      f'heldout_{name}/{weights}': value
      for weights, values in losses.items()
      for name, value in values.items()
      if value is not None
  }


def as_table(losses: dict[str, dict[str, float]]) -> str:
  """A row per set of weights, the buckets from noisiest to cleanest."""
  rows = [
      [name, *('-' if v is None else f'{v:.4f}' for v in values.values())]
      for name, values in losses.items()
  ]
  buckets = [f'bucket {i}' for i in range(step_lib.NUM_BUCKETS)]
  return writers.table(['held-out loss', 'all', *buckets], rows)


def evaluate(overrides: dict[str, Any], workdir: str) -> dict[str, Any]:
  """Writes workdir/evaluation.json and logs it as a table.

  `overrides` are the config fields of the command line ('eval.num_clips': 64).
  The losses are those of the EMA weights of the newest checkpoint, under times
  and noise that are the same for every run.

  Raises:
    UserError: no run or no checkpoint in workdir; bad eval fields, or no data.
  """
  workdir = epath.Path(files.expand(workdir, '--workdir', bucket=True))
  config = saved_config.load(overrides, workdir, ('eval', 'mesh'))
  named = ('data', *inputs.text_places(config, workdir))
  saved_config.require_places(overrides, workdir, *named)
  validate.check(config, 'evaluate')
  source = inputs.make_source(config, 'test')
  text = inputs.open_text(config, workdir, source)
  sizes = inputs.label_sizes(source)
  model = build.make_model(config, sizes)
  inputs.require_arrays(config, model, source)
  mesh = build.make_mesh(config)
  params, step = build.restore_ema(config, workdir, model)
  eval_step = make_eval_step(config, model, mesh)
  losses = mean_losses(
      config, model, eval_step, params, source, mesh, text
  )
  result = {
      'losses': losses,
      'step': step,
      'windows': config.eval.num_clips,
      'clips': mixture_lib.as_mixture(source).distinct(config.eval.num_clips),
      'data': ' + '.join(
          fields['name']
          for prefix, fields in inputs.data_sets(config).items()
          if not prefix.startswith('data.image_mixture.')
      ),
      'prediction': config.diffusion.prediction,
      'buckets': 'equal parts of the log-SNR range, noisiest first',
      'seed': SEED,
      'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'date': datetime.date.today().isoformat(),
  }
  path = workdir / 'evaluation.json'
  if jax.process_index() == 0:
    files.write(path, json.dumps(result, indent=1))
  writers.log_lines(as_table({f'EMA, step {step}': losses}))
  logging.info('Wrote %s.', path)
  return result
