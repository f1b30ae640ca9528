"""Milliseconds, clips/s and TFLOP/s of the train step, with its peak memory.

  python -m benchmarks.step [--case base64] [--batch 16] [--trace DIR]

The step is the one that training compiles: EMA, gradient clip, Adam, bfloat16
compute, 16 frames and no images unless the case says otherwise, random data on
the device. Ten steps to warm up, then three windows of ten, each ended by a
wait. TFLOP/s counts the operations of the step as written, without
recomputation. One case a process, so that the peak memory is its own.
"""
import argparse
import collections
import datetime
import importlib.util
import json
import pathlib
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion import experiment
from video_diffusion import partitioning
from video_diffusion import train
from video_diffusion import train_state

PEAK_TFLOPS = 790.0  # dense bfloat16 on random data, as measured on one H200
# Name -> (config, fields, batch size).
CASES = {
    'base64': (
        'kinetics',
        {'model.base_channels': 64, 'model.dropout': 0.0, 'data.images': 0},
        16,
    ),
    'kinetics': ('kinetics', {'data.images': 0, 'model.dropout': 0.0}, 8),
    'kinetics_joint': ('kinetics', {}, 8),
}


def load_config(name: str, variant: str | None = None):
  """configs/NAME.py, imported by path as the command line does it."""
  path = pathlib.Path(__file__).parents[1] / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant) if variant else module.get_config()


def case_config(case: str, batch: int | None = None):
  """The config of a case."""
  name, fields, default_batch = CASES[case]
  config = load_config(name)
  config.batch_size = batch or default_batch
  for field, value in fields.items():
    group, _, leaf = field.partition('.')
    config[group][leaf] = value
  return config


def random_tree(abstract):
  """Small random numbers in every leaf: a GPU is faster on zeros."""
  largest = max(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract))
  noise = 0.02 * jax.random.normal(jax.random.key(0), (largest,))

  def fill(leaf):
    values = noise[: int(np.prod(leaf.shape))].reshape(leaf.shape)
    # Second moments are not negative, and counters are whole.
    return jax.device_put(jnp.abs(values).astype(leaf.dtype), leaf.sharding)

  return jax.tree.map(fill, abstract)


def measure(config, trace: str | None = None) -> dict:
  """One row of the table."""
  model = experiment.make_model(config, ())
  rate, optimizer = train.make_optimizer(config)
  mesh = partitioning.make_mesh()
  shapes = experiment.batch_shapes(config, ())

  def init():
    params = train_state.init_params(model, shapes, seed=0)
    return train_state.init_state(params, optimizer)

  abstract = partitioning.abstract(jax.eval_shape(init), mesh)
  began = time.time()
  step, flops = train.compile_step(
      config, model, optimizer, rate, abstract, shapes, mesh
  )
  compile_seconds = time.time() - began
  state = random_tree(abstract)
  rng = np.random.default_rng(0)
  batch = partitioning.global_batch(
      {'video': rng.integers(0, 256, shapes['video'].shape, np.uint8)}, mesh
  )

  def run(n):
    nonlocal state
    began = time.time()
    for _ in range(n):
      state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return (time.time() - began) / n

  run(10)
  seconds = [run(10) for _ in range(3)]
  if trace:
    with jax.profiler.trace(trace):
      run(3)
  best, median = min(seconds), float(np.median(seconds))
  peak = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  tflops = flops / median / 1e12
  return {
      'parameters': experiment.tree_size(abstract.params),
      'batch': config.batch_size,
      'frames': f'{config.data.frames} + {config.data.images}',
      'dropout': config.model.dropout,
      'remat': bool(config.model.remat),
      'ms': round(1e3 * median, 1),
      'ms_best': round(1e3 * best, 1),
      'clips_per_second': round(config.batch_size / median, 1),
      'tflop': round(flops / 1e12, 2),
      'tflops_per_second': round(tflops, 1),
      'share_of_790': round(tflops / PEAK_TFLOPS / jax.device_count(), 3),
      'peak_gib': peak and round(peak / 2**30, 1),
      'compile_seconds': round(compile_seconds, 1),
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'jax': jax.__version__,
      'date': datetime.date.today().isoformat(),
  }


def top_kernels(trace: str, count: int = 25) -> list[tuple[float, int, str]]:
  """(milliseconds, calls, name) of the kernels of a trace, largest first."""
  path = max(pathlib.Path(trace).rglob('*.xplane.pb'))
  total, calls = collections.Counter(), collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    if 'GPU' not in plane.name:
      continue
    for line in plane.lines:
      if not line.name.startswith('Stream'):
        continue
      for event in line.events:
        name = re.sub(r'[_.]?\d+$', '', event.name)
        total[name] += event.duration_ns / 1e6
        calls[name] += 1
  return [(ms, calls[name], name) for name, ms in total.most_common(count)]


def main() -> None:
  """Parses the arguments, prints a row as JSON and the kernels of a trace."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--case', choices=CASES, default='base64')
  parser.add_argument('--batch', type=int)
  parser.add_argument('--remat', action='store_true')
  parser.add_argument('--trace')
  args = parser.parse_args()
  config = case_config(args.case, args.batch)
  config.model.remat = (64, 32, 16, 8) if args.remat else ()
  row = {'case': args.case} | measure(config, args.trace)
  print(json.dumps(row), flush=True)
  if args.trace:
    for ms, calls, name in top_kernels(args.trace):
      print(f'{ms / 3:9.2f} ms  {calls / 3:6.0f}  {name[:100]}')


if __name__ == '__main__':
  main()
