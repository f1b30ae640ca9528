"""Training and sampling on one GPU and on several of one host.

  python -m benchmarks.scaling --devices N [--case base64] [--batch 16]
  python -m benchmarks.scaling --devices N --what sample [--case base64]
  python -m benchmarks.scaling --devices N --check --out DIR

The first is weak scaling of the train step, --batch clips a GPU: one GPU, and N
of them data-parallel ('data'), sharing one state ('fsdp'), in two groups that
share one each ('fsdp_data'), and in pairs that share each example
('tensor_fsdp'). Efficiency is clips/s over N times those of one GPU. Each row
is a process of benchmarks/step.py, so that its peak memory is its own. Nearly
all of the time is compilation: one GPU is compiled and timed first, then the
others are compiled together, with the kernels that the first has found to be
the fastest, and timed one after another. They share a compilation cache, by
default one that is deleted at the end.

The second is the same for the sampler of benchmarks/sampler.py, unguided and
with reconstruction guidance, by which a video is extended: all in one process,
and the peak is that of the program.

The third trains a small model on moving shapes from the same seed, --batch
clips in all (default 16), 50 updates on each of the meshes: in float32 at the
highest precision of matrix products, where the losses must agree up to rounding
that grows with the updates (relative to one GPU, 1e-5 within 5 updates and 1e-3
within 50), and in bfloat16. Writes scaling.json and, where matplotlib is,
scaling.png to DIR. With --what sample it compares the samples of random weights
in float32 instead, --batch of them, which must agree within 1e-3 of [-1, 1].

The exit code is 1 where a row failed or a bound is not kept. --meshes takes
some of the meshes beside one GPU. `--case smoke` shows on CPUs that it runs,
with JAX_NUM_CPU_DEVICES=N; speeds mean nothing there.
"""
import argparse
from collections.abc import Sequence
from concurrent import futures
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile

import jax
import numpy as np

from benchmarks import agreement
from benchmarks import arguments
from benchmarks import cases
from benchmarks import sampler
from benchmarks import step
from benchmarks import timing
from video_diffusion.config import build

WHAT = ('train', 'sample')
CHECK_BATCH = 16
EXTENDING = ('none', 'reconstruction')  # guidance of new and of extended videos
SAMPLE_BOUND = 1e-3  # of values in [-1, 1], in float32
COLUMNS = timing.COLUMNS | {'efficiency': 'efficiency'}
SAMPLE_COLUMNS = {
    'what': 'case',
    **{k: v for k, v in sampler.COLUMNS.items() if k != 'sampler'},
    'efficiency': 'efficiency',
}
GAP_COLUMNS = {
    'largest difference': 'what', 'guidance': 'guidance', 'value': 'largest',
    'standard deviation': 'deviation',
}


def add_row(rows: list[dict], size: cases.MeshSize, row: dict) -> None:
  """Adds a row with its efficiency, and prints it; the first is of one."""
  row = row | {'case': f'{row["case"]}, {size}'}
  alone = (rows or [row])[0]['clips_per_second']
  row['efficiency'] = round(row['clips_per_second'] / alone / size.devices, 3)
  rows.append(timing.emit(row))


@contextlib.contextmanager
def compilation_cache():
  """Yields the environment of processes that share one cache."""
  environment = {
      **os.environ,
      # All processes hold all devices; each takes memory once it needs it.
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  }
  with tempfile.TemporaryDirectory() as folder:
    environment.setdefault('JAX_COMPILATION_CACHE_DIR', folder)
    yield environment


def start_row(case: str, batch: int, size: cases.MeshSize, environment):
  """A process of benchmarks/step.py that compiles, and waits then."""
  return subprocess.Popen(
      [
          sys.executable, '-m', 'benchmarks.step', '--wait', f'--case={case}',
          f'--batch={batch * size.devices}', f'--devices={size.devices}',
          f'--fsdp={size.fsdp}', f'--model={size.model}',
      ],
      env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )


def is_compiled(process: subprocess.Popen) -> bool:
  """Waits until the process has compiled; False where it has ended."""
  return any(line.strip() == step.COMPILED for line in process.stdout)


def measure_together(
    rows: list[dict], case: str, batch: int, sizes: Sequence[cases.MeshSize],
    environment,
) -> list[str]:
  """Compiles all at once, times one after another, and adds their rows.

  Returns:
    Sentences about those that failed, which have printed why.
  """
  failed = []
  with contextlib.ExitStack() as stack:
    processes = []
    for size in sizes:
      process = stack.enter_context(start_row(case, batch, size, environment))
      stack.callback(process.kill)
      processes.append(process)
    compiled = [is_compiled(process) for process in processes]
    for size, process, there in zip(sizes, processes, compiled, strict=True):
      output = process.communicate('\n')[0] if there else ''
      if process.wait() or not output:
        failed.append(f'{size}: the process has failed.')
      else:
        add_row(rows, size, json.loads(output.splitlines()[-1]))
  return failed


def train_rows(
    case: str, batch: int, sizes: Sequence[cases.MeshSize]
) -> tuple[list[dict], list[str]]:
  """Rows of the train step, and sentences about those that failed."""
  rows = []
  with compilation_cache() as environment:
    measure = functools.partial(
        measure_together, rows, case, batch, environment=environment
    )
    failed = measure(sizes=sizes[:1])
    if not failed:  # else there is nothing to compare with
      failed = measure(sizes=sizes[1:])
  return rows, failed


def compile_draws(
    case: str,
    guided: str,
    batches: Sequence[int],
    sizes: Sequence[cases.MeshSize],
    dtype: str = 'bfloat16',
    precision: str | None = None,
) -> list[sampler.Draw]:
  """Ancestral samplers of 16 steps, compiled together, one for each mesh.

  Args:
    case: one of `cases.CASES`.
    guided: one of `sampler.GUIDANCE`.
    batches: clips of all devices, for each mesh.
    sizes: the meshes.
    dtype: of the network.
    precision: of matrix products, see `jax.default_matmul_precision`.
  """

  def one(batch, size):
    config = sampler.make_config(case, steps=16)
    config.model.dtype = dtype
    config.sample.update(
        batch_size=batch, **sampler.SAMPLERS['ancestral'],
        **sampler.GUIDANCE[guided],
    )
    model = build.make_model(config, (sampler.CLASSES,))
    mesh = cases.make_mesh(*size)
    params = sampler.make_weights(config, model, mesh)
    with jax.default_matmul_precision(precision):
      return sampler.compile_draw(config, model, params, mesh, guided)

  with futures.ThreadPoolExecutor(len(sizes)) as pool:
    return list(pool.map(one, batches, sizes))


def sample_rows(
    case: str, batch: int, sizes: Sequence[cases.MeshSize]
) -> list[dict]:
  """Rows of the sampler without and with reconstruction guidance."""
  found = []
  for guided in EXTENDING:
    draws = compile_draws(
        case, guided, [batch * size.devices for size in sizes], sizes
    )
    config = draws[0].config
    flops = sampler.call_flops(
        config, build.make_model(config, (sampler.CLASSES,)), draws[0].params,
        guided,
    )
    rows = []
    for size, draw in zip(sizes, draws, strict=True):
      row = {'case': case, 'guidance': guided} | sampler.measure(draw, flops)
      add_row(rows, size, row)
    found += rows
  return found


def sample_differences(
    case: str, batch: int, sizes: Sequence[cases.MeshSize]
) -> list[dict]:
  """How far samples in float32 are from those of one device, in [-1, 1]."""
  rows = []
  for guided in EXTENDING:
    draws = compile_draws(
        case, guided, [batch] * len(sizes), sizes, 'float32', 'highest'
    )
    one, *others = (np.asarray(draw()) for draw in draws)
    for size, x in zip(sizes[1:], others, strict=True):
      gap = float(f'{np.abs(x - one).max():.2g}')
      rows.append(timing.emit({
          'what': f'{size}', 'guidance': guided, 'largest': gap,
          'deviation': round(float(one.std()), 3),
      }))
  return rows


def parse(
    argv: list[str] | None
) -> tuple[argparse.Namespace, list[cases.MeshSize]]:
  """The flags, and the meshes that they ask for, one device first."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--devices', type=int, required=True)
  parser.add_argument('--what', choices=WHAT, default='train')
  parser.add_argument('--case', choices=cases.CASES, default='base64')
  parser.add_argument('--batch', type=int, help='default: that of the case')
  parser.add_argument(
      '--meshes', type=arguments.names(list(cases.mesh_sizes(8))[1:])
  )
  parser.add_argument('--check', action='store_true')
  parser.add_argument('--out', help='folder of the curves')
  args = parser.parse_args(argv)
  if args.devices < 2:
    parser.error('--devices is the larger number, at least 2')
  sizes = cases.mesh_sizes(args.devices)
  for name in args.meshes or ():
    if name not in sizes:
      parser.error(f'--meshes: {args.devices} devices have no {name}')
  if args.check and args.what == 'train' and (
      not args.out or args.case not in agreement.CHECKS
  ):
    names = ', '.join(agreement.CHECKS)
    parser.error(f'--check needs --out DIR and a case of {names}')
  if args.batch is None:
    args.batch = CHECK_BATCH if args.check else cases.CASES[args.case][-1]
  if args.batch < 1 or args.check and args.batch % args.devices:
    parser.error('--batch is at least 1, and with --check divides by --devices')
  wanted = ['one', *(args.meshes or [*sizes][1:])]
  return args, [sizes[name] for name in wanted]


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the rows and their table."""
  args, sizes = parse(argv)
  wrong = []
  if args.check and args.what == 'train':
    columns = agreement.COLUMNS
    rows, wrong = agreement.check(args.case, args.batch, sizes, args.out)
  elif args.check:
    columns = GAP_COLUMNS
    rows = sample_differences(args.case, args.batch, sizes)
    wrong = [
        f'{row["what"]}: {row["largest"]} is more than {SAMPLE_BOUND}.'
        for row in rows if not row['largest'] <= SAMPLE_BOUND
    ]
  elif args.what == 'train':
    columns = COLUMNS
    rows, wrong = train_rows(args.case, args.batch, sizes)
  else:
    columns = SAMPLE_COLUMNS
    rows = sample_rows(args.case, args.batch, sizes)
  timing.print_table(rows, columns)
  if wrong:
    raise SystemExit('\n'.join(wrong))
  return rows


if __name__ == '__main__':
  main()
