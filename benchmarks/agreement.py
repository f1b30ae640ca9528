"""Whether several devices give the losses of one, for `benchmarks.scaling`."""
from collections.abc import Callable, Sequence
from concurrent import futures
import functools
import json
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
# In float32: updates -> the largest relative difference of their losses.
BOUNDS = {5: 1e-5, UPDATES: 1e-3}
# Case -> (variant of configs/moving_shapes.py, fields): small enough to compile
# for every mesh, large enough that FSDP splits most of the parameters.
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
            'data.frames': 2,
            'data.images': 1,
            'data.height': 8,
            'data.width': 8,
            'data.loader': 'threads',
            'mesh.min_sharded': 64,
            # Two heads, so that two devices can share an attention.
            'model.base_channels': 8,
            'model.head_dim': 4,
            'model.channel_mults': (1,),
            'model.attention_resolutions': (8,),
            'model.emb_dim': 16,
            'model.cond_dim': 8,
            'optim.name': 'adam',
            'optim.warmup_steps': 10,
        },
    ),
}
COLUMNS = {
    'relative difference': 'what',
    'within 5': 'within_5',
    f'within {UPDATES}': f'within_{UPDATES}',
    'after so many': 'largest_after',
    f'after {UPDATES}': 'after_all',
    'loss, first': 'first_loss',
    'last': 'last_loss',
}


def check_config(case: str, dtype: str, batch: int):
  """The config that is trained."""
  variant, fields = CHECKS[case]
  config = cases.load_config('moving_shapes', variant)
  config.update_from_flattened_dict(fields)
  config.batch_size, config.model.dtype = batch, dtype
  return config


def compile_losses(
    config, mesh, precision: str | None = None
) -> Callable[[int], list[float]]:
  """(updates) -> the loss before any update, after one, ..., after so many.

  Everything is compiled when this returns, and nothing has run.

  Args:
    config: from `check_config`.
    mesh: of the devices that train.
    precision: of matrix products, see `jax.default_matmul_precision`.
  """
  source = inputs.make_source(config, 'train')
  model = build.make_model(config, inputs.label_sizes(source))
  learning_rate, optimizer = build_step.make_optimizer(config)
  shapes = build.batch_shapes(config, model)
  init, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  layout = jax.tree.map(lambda x: x.sharding, abstract)
  with jax.default_matmul_precision(precision):
    init = jax.jit(init, out_shardings=layout).lower().compile()
    step, _ = build_step.compile_step(
        config, model, optimizer, learning_rate, abstract, shapes, mesh
    )

  def losses(updates):
    state, found = init(), []
    for batch in inputs.make_batches(
        config, source, start=0, stop=updates + 1
    ):
      state, metrics = step(state, collectives.global_batch(batch, mesh))
      found.append(metrics['loss'])
    return [float(loss) for loss in found]

  return losses


def differences(curves: dict[str, list[float]]) -> list[dict]:
  """How far the other curves are from the first, relative to it.

  Args:
    curves: name -> losses before any update, after one, and so on.
  """
  one, *_ = (np.array(curve) for curve in curves.values())
  rows = []
  for name, curve in list(curves.items())[1:]:
    gap = np.abs(np.array(curve) - one) / np.abs(one)
    rows.append({
        'what': name,
        **{f'within_{n}': float(f'{gap[: n + 1].max():.2g}') for n in BOUNDS},
        'largest_after': int(gap.argmax()),
        'after_all': float(f'{gap[-1]:.2g}'),
        'first_loss': round(float(one[0]), 4),
        'last_loss': round(float(one[-1]), 4),
    })
  return rows


def too_far(row: dict) -> list[str]:
  """A sentence about every bound that a row of float32 is beyond."""
  return [
      f'{row["what"]}: {row[f"within_{n}"]} within {n} updates is more than '
      f'{bound}.'
      for n, bound in BOUNDS.items() if not row[f'within_{n}'] <= bound
  ]


def check(
    case: str,
    batch: int,
    sizes: Sequence[cases.MeshSize],
    out: str,
    updates: int = UPDATES,
) -> tuple[list[dict], list[str]]:
  """Measures the agreement, and writes curves and picture to `out`.

  Args:
    case: one of CHECKS.
    batch: clips of all devices together.
    sizes: the meshes, the one device first.
    out: folder, made where it is not there.
    updates: of every curve.

  Returns:
    Rows, and sentences about what is beyond BOUNDS.
  """
  out = epath.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  most = max(size.devices for size in sizes)
  report = {
      'devices': f'{most} x {jax.devices()[0].device_kind}',
      'software': f'jax {jax.__version__}',
      'date': timing.today(),
      'case': case,
      'batch': batch,
      'losses': {},
  }
  rows, sentences = [], []
  for dtype, precision in DTYPES.items():
    began = time.perf_counter()
    compiled = functools.partial(
        compile_losses, check_config(case, dtype, batch), precision=precision
    )
    # All at once: compilation is nearly all of the time.
    with futures.ThreadPoolExecutor(len(sizes)) as pool:
      runs = pool.map(compiled, [cases.make_mesh(*s) for s in sizes])
    print(f'{dtype}: compiled in {time.perf_counter() - began:.0f} s')
    curves = report['losses'][dtype] = {}
    for size, losses in zip(sizes, runs, strict=True):
      curves[str(size)] = losses(updates)
      # What is there remains, should the rest not end in time.
      (out / 'scaling.json').write_text(json.dumps(report, indent=1))
    for row in differences(curves):
      rows.append(timing.emit(row | {'what': f'{dtype}, {row["what"]}'}))
      if dtype == 'float32':
        sentences += too_far(rows[-1])
  plot(report['losses'], out / 'scaling.png')
  return rows, sentences


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
    for i, (name, curve) in enumerate(named.items()):
      # Wider lines below: equal curves hide one another otherwise.
      axis.plot(curve, linewidth=2 * (len(named) - i) - 1, label=name)
    axis.set(title=dtype, xlabel='updates')
  axes[0].set_ylabel('loss')
  axes[0].legend()
  with path.open('wb') as f:
    figure.savefig(f, dpi=100)
  pyplot.close(figure)
