"""Milliseconds, clips/s and TFLOP/s of the train step, with its peak memory.

  python -m benchmarks.step [--case base64] [--batch 16] [--remat]
      [--devices N] [--fsdp M] [--model K] [--trace DIR]

The step is the one that training compiles: EMA, gradient clip, Adam, bfloat16
compute, 16 frames and no images unless the case says otherwise, random data on
the device; the protocol is that of benchmarks/timing.py. One case a process, so
that the peak memory is its own. On one GPU about three minutes, nearly all of
them compilation; `--case smoke` shows on a CPU that it runs.
"""
import argparse
import collections
from collections.abc import Callable
import pathlib
import re
import sys
import time

import jax
import numpy as np

from benchmarks import cases
from benchmarks import timing
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.parallel import collectives
from video_diffusion.training import state as state_lib

COMPILED = 'compiled'  # the line that --wait prints


def measure(
    config,
    mesh,
    trace: str | None = None,
    ready: Callable[[], None] = lambda: None,
) -> dict:
  """One row of the table.

  Args:
    config: of the run.
    mesh: all devices.
    trace: folder for a trace of three steps, or None.
    ready: is called when the step is compiled, before it runs.
  """
  model = build.make_model(config, ())
  learning_rate, optimizer = build_step.make_optimizer(config)
  shapes = build.batch_shapes(config, model)
  _, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  began = time.perf_counter()
  step, flops = build_step.compile_step(
      config, model, optimizer, learning_rate, abstract, shapes, mesh
  )
  compile_seconds = time.perf_counter() - began
  ready()
  state = cases.random_tree(abstract)
  rng = np.random.default_rng(0)
  batch = collectives.global_batch(
      {'video': rng.integers(0, 256, shapes['video'].shape, np.uint8)}, mesh
  )

  def run(n):
    nonlocal state
    for _ in range(n):
      state, metrics = step(state, batch)
    jax.block_until_ready(metrics)

  seconds = timing.windows(run)
  if trace:
    with jax.profiler.trace(trace):
      run(3)
  device = mesh.devices.flat[0]
  peak = (device.memory_stats() or {}).get('peak_bytes_in_use')
  return {
      'parameters': state_lib.tree_size(abstract.params),
      'batch': config.batch_size,
      'frames': f'{config.data.frames} + {config.data.images}',
      'dropout': config.model.dropout,
      'remat': bool(config.model.remat),
      **timing.rates(
          seconds, batch=config.batch_size, flops=flops, devices=mesh.size
      ),
      'peak_gib': timing.gib(peak),
      'compile_seconds': round(compile_seconds, 1),
      'devices': f'{mesh.size} x {device.device_kind}',
      'mesh': dict(mesh.shape),
      'software': f'jax {jax.__version__}',
      'date': timing.today(),
  }


def wait_for_turn() -> None:
  """Prints COMPILED, and returns when a line comes in.

  Raises:
    SystemExit: none will come, since whoever started this process has ended.
  """
  print(COMPILED, flush=True)
  if not sys.stdin.readline():
    raise SystemExit('Nobody waits for this row any more.')


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


def main(argv: list[str] | None = None) -> dict:
  """Parses the arguments, prints a row as JSON and the kernels of a trace."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--case', choices=cases.CASES, default='base64')
  parser.add_argument('--batch', type=int, help='of all devices')
  parser.add_argument('--remat', action='store_true')
  parser.add_argument('--devices', type=int, help='the first so many; or all')
  parser.add_argument('--fsdp', type=int, default=1, help='that share a state')
  parser.add_argument(
      '--model', type=int, default=1, help='that share an example'
  )
  parser.add_argument('--trace')
  parser.add_argument(
      '--wait', action='store_true',
      help=f'print {COMPILED!r}, and run the step once a line comes in',
  )
  args = parser.parse_args(argv)
  config = cases.case_config(args.case, args.batch)
  config.model.remat = (64, 32, 16, 8) if args.remat else ()
  mesh = cases.make_mesh(args.devices, args.fsdp, args.model)
  ready = wait_for_turn if args.wait else lambda: None
  row = {'case': args.case} | measure(config, mesh, args.trace, ready)
  timing.emit(row)
  if args.trace:
    for ms, calls, name in top_kernels(args.trace):
      print(f'{ms / 3:9.2f} ms  {calls / 3:6.0f}  {name[:100]}')
  return row


if __name__ == '__main__':
  main()
