"""The train step on one GPU and on several of one host: speed and agreement.

  python -m benchmarks.scaling --devices N [--case base64] [--batch 16]
  python -m benchmarks.scaling --devices N --check --out DIR

The first is weak scaling, --batch clips a GPU: one GPU, N data-parallel
(fsdp=1) and N that share one state (fsdp=N), each a process of
benchmarks/step.py so that peak memory is its own. Efficiency is clips/s over N
times those of one GPU. About three minutes a row, nearly all compilation.

The second trains a small model on moving shapes from the same seed, --batch
clips in all (default 16), 50 updates on each of the three meshes: in float32 at
the highest precision of matrix products, where the losses must agree up to
rounding that grows with the updates, and in bfloat16. Writes scaling.json and,
where matplotlib is, scaling.png to DIR. About five minutes, six compilations.

`--case smoke` shows on CPUs that either runs, with JAX_NUM_CPU_DEVICES=N.
"""
import argparse
import json
import subprocess
import sys
import time

from etils import epath
import jax
import numpy as np

from benchmarks import cases
from benchmarks import timing
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import inputs
from video_diffusion.parallel import collectives

UPDATES = 50
DTYPES = {'float32': 'highest', 'bfloat16': None}  # precision of products
# Case -> (variant of configs/moving_shapes.py, fields): small enough to compile
# six times, large enough that FSDP splits most of the parameters.
CHECKS = {
    'base64': (
        'accelerator',
        {
            'data.height': 32,
            'data.width': 32,
            'data.loader': 'threads',
            'model.channel_mults': (1, 2),
            'optim.warmup_steps': 10,
        },
    ),
    'smoke': (
        'laptop',
        {
            'data.frames': 4,
            'data.images': 2,
            'mesh.min_sharded': 64,
            'model.head_dim': 16,
            'model.channel_mults': (1,),
            'model.attention_resolutions': (16,),
            'optim.warmup_steps': 10,
        },
    ),
}


def variants(devices: int) -> dict[str, tuple[int, int]]:
  """Name -> (devices, how many of them share a state)."""
  return {
      '1 device': (1, 1),
      f'{devices}, data-parallel': (devices, 1),
      f'{devices}, FSDP': (devices, devices),
  }


def scaling(case: str, batch: int, devices: int) -> list[dict]:
  """Rows of benchmarks/step.py with their efficiency; one process each.

  Raises:
    subprocess.CalledProcessError: a row failed, and has printed why.
  """
  rows = []
  for name, (count, fsdp) in variants(devices).items():
    command = [
        sys.executable, '-m', 'benchmarks.step', f'--case={case}',
        f'--batch={batch * count}', f'--devices={count}', f'--fsdp={fsdp}',
    ]
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    row = json.loads(output.splitlines()[-1])
    row['case'] = f'{case}, {name}'
    alone = (rows or [row])[0]['clips_per_second']
    row['efficiency'] = round(row['clips_per_second'] / alone / count, 3)
    rows.append(timing.emit(row))
  return rows


def check_config(case: str, dtype: str, batch: int):
  """The config of the second measurement."""
  variant, fields = CHECKS[case]
  config = cases.load_config('moving_shapes', variant)
  config.update_from_flattened_dict(fields)
  config.batch_size, config.model.dtype = batch, dtype
  return config


def losses(config, mesh, num_updates: int = UPDATES) -> list[float]:
  """The loss before any update, after one, ..., after so many."""
  source = inputs.make_source(config, 'train')
  sizes = inputs.label_sizes(source)
  model = build.make_model(config, sizes)
  learning_rate, optimizer = build_step.make_optimizer(config)
  shapes = build.batch_shapes(config, model)
  init, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  layout = jax.tree.map(lambda x: x.sharding, abstract)
  state = jax.jit(init, out_shardings=layout)()
  step, _ = build_step.compile_step(
      config, model, optimizer, learning_rate, abstract, shapes, mesh
  )
  found = []
  for batch in inputs.make_batches(
      config, source, start=0, stop=num_updates + 1
  ):
    state, metrics = step(state, collectives.global_batch(batch, mesh))
    found.append(metrics['loss'])
  return [float(loss) for loss in found]


def agreement(curves: dict[str, list[float]]) -> list[dict]:
  """How far the curves of several devices are from that of one."""
  one, *_ = (np.array(curve) for curve in curves.values())
  rows = []
  for name, curve in list(curves.items())[1:]:
    gap = np.abs(np.array(curve) - one) / np.abs(one)
    rows.append({
        'what': name,
        'after_5': float(f'{gap[5]:.2g}'),
        'after_all': float(f'{gap[-1]:.2g}'),
        'largest': float(f'{gap.max():.2g}'),
        'largest_after': int(gap.argmax()),
        'first_loss': round(float(one[0]), 4),
        'last_loss': round(float(one[-1]), 4),
    })
  return rows


def check(case: str, batch: int, devices: int, out: str) -> list[dict]:
  """Measures the agreement, and writes curves and picture to `out`."""
  out = epath.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  report = {
      'devices': f'{devices} x {jax.devices()[0].device_kind}',
      'software': f'jax {jax.__version__}',
      'date': timing.today(),
      'case': case,
      'batch': batch,
      'losses': {},
  }
  rows = []
  for dtype, precision in DTYPES.items():
    curves = report['losses'][dtype] = {}
    for name, (count, fsdp) in variants(devices).items():
      began = time.perf_counter()
      with jax.default_matmul_precision(precision):
        curves[name] = losses(
            check_config(case, dtype, batch), cases.make_mesh(count, fsdp)
        )
      seconds = time.perf_counter() - began
      print(f'{dtype}, {name}: {seconds:.0f} s', flush=True)
      # What is there remains, should the rest not end in time.
      (out / 'scaling.json').write_text(json.dumps(report, indent=1))
    for row in agreement(curves):
      rows.append(timing.emit(row | {'what': f'{dtype}, {row["what"]}'}))
  plot(report['losses'], out / 'scaling.png')
  return rows


def plot(curves: dict[str, dict[str, list[float]]], path: epath.Path) -> None:
  """The curves of each dtype in a panel of its own."""
  try:
    import matplotlib
  except ImportError:
    print('No picture: matplotlib is not installed.')
    return
  matplotlib.use('agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(
      1, len(curves), figsize=(10, 4), sharey=True, layout='constrained'
  )
  for axis, (dtype, named) in zip(axes, curves.items(), strict=True):
    # Wider lines below: equal curves hide one another otherwise.
    for width, (name, curve) in zip((6, 3, 1), named.items(), strict=True):
      axis.plot(curve, linewidth=width, label=name)
    axis.set(title=dtype, xlabel='updates')
  axes[0].set_ylabel('loss')
  axes[0].legend()
  with path.open('wb') as f:
    figure.savefig(f, dpi=100)
  pyplot.close(figure)


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the rows of either measurement and their table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--devices', type=int, required=True)
  parser.add_argument('--case', choices=cases.CASES, default='base64')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--check', action='store_true')
  parser.add_argument('--out')
  args = parser.parse_args(argv)
  if args.devices < 2:
    parser.error('--devices is the larger number, at least 2')
  if not args.check:
    rows = scaling(args.case, args.batch, args.devices)
    columns = timing.COLUMNS | {'efficiency': 'efficiency'}
  else:
    if not args.out or args.case not in CHECKS:
      parser.error(
          f'--check needs --out DIR and a case of {", ".join(CHECKS)}'
      )
    if args.batch % args.devices:
      parser.error('--batch must divide by --devices')
    rows = check(args.case, args.batch, args.devices, args.out)
    columns = {
        'relative difference': 'what',
        'after 5': 'after_5',
        f'after {UPDATES}': 'after_all',
        'largest': 'largest',
        'after so many': 'largest_after',
        'loss, first': 'first_loss',
        'last': 'last_loss',
    }
  timing.print_table(rows, columns)
  return rows


if __name__ == '__main__':
  main()
