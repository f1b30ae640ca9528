"""What holds the frames of a clip together: one cause at a time.

  python -m benchmarks.causes CASE [CASE ...] --out DIR --data DIR
      [--config moving_mnist] [--steps 2500] [--clips 256]
      [--config.FIELD=VALUE ...]

Trains a small network on one config once for each CASE, a name of CASES which
changes a field or two of the reference, then samples and writes to
DIR/CASE.json how much the clips flicker, beside held-out clips and clips of
unrelated frames, and to DIR/CASE.npz the first samples in grey. NAME@SEED
trains with another seed. Both files are written again after each of the
--samplers, and the checkpoint is deleted after the last: a call that was
stopped continues where it was. A case that is complete, or that another call is
busy with, is passed over, so that several calls may share a list. The file has
the milliseconds of a step as it ran, which say nothing where several calls
share a device. DIR of --data is a folder with MNIST's files, or with videos.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import time

import jax
import numpy as np

from benchmarks import arguments as arguments_lib
from benchmarks import cases as cases_lib
from benchmarks import claims
from benchmarks import timing
import video_diffusion
from video_diffusion.config import data_options
from video_diffusion.config import inputs
from video_diffusion.evaluation import beside_real
from video_diffusion.filesystem import files
from video_diffusion.metrics import flicker

REFERENCE = {
    'model.base_channels': 32,
    'model.channel_mults': (1, 2, 3, 4),
    'model.head_dim': 32,
    'model.group_size': 1,
    'model.patch_size': 1,
    'model.spacetime_resolutions': (),
    'model.position_stddev': 0.0,
    'data.images': 4,
    'diffusion.logsnr_shift': 0.0,
    'optim.name': 'adam',
    'optim.lr': 1e-3,
    'optim.warmup_steps': 125,
    'optim.ema_decay': 0.995,
    'log.eval_every': 0,
    'log.sample_every': 0,
    'log.every': 100,
    'eval.num_clips': 256,
    'sample.num_videos': 1,
    'sample.batch_size': 1,
    'sample.num_steps': 1,
    'sample.sampler': 'dpmpp_2m',
}
CASES = {
    'reference': {},
    'shift_1': {'diffusion.logsnr_shift': -1.0},
    'shift_2': {'diffusion.logsnr_shift': -2.0},
    'shift_3': {'diffusion.logsnr_shift': -3.0},
    'shift_4': {'diffusion.logsnr_shift': -4.0},
    'pure_noise': {'diffusion.pure_noise': 0.1},
    'group_2': {'model.group_size': 2},
    'group_4': {'model.group_size': 4},
    'group_8': {'model.group_size': 8},
    'bias_spread': {'model.position_stddev': 1.0},
    'shaw': {'model.position': 'shaw_exact'},
    'shaw_spread': {
        'model.position': 'shaw_exact', 'model.position_stddev': 1.0,
    },
    'shaw_small_spread': {
        'model.position': 'shaw_exact', 'model.position_stddev': 0.1,
    },
    'both_spread': {'model.position': 'both', 'model.position_stddev': 1.0},
    'temporal_full': {'model.temporal_resolutions': (64,)},
    'temporal_input': {'model.temporal_input': True},
    'attention_8_16': {'model.attention_resolutions': (8, 16)},
    'images_0': {'data.images': 0},
    'images_8': {'data.images': 8},
    'images_share_noise': {'diffusion.images_share_noise': True},
    'min_snr': {'diffusion.weighting': 'min_snr'},
    'sigmoid': {'diffusion.weighting': 'sigmoid'},
    'sigmoid_low': {
        'diffusion.weighting': 'sigmoid', 'diffusion.sigmoid_bias': -3.0,
    },
    'dropout': {'model.dropout': 0.1},
    'ema_short': {'optim.ema_decay': 0.98},
    'ema_long': {'optim.ema_decay': 0.999},
    'lr_half': {'optim.lr': 5e-4},
    'lr_twice': {'optim.lr': 2e-3},
    'muon': {'optim.name': 'muon'},
    'eps': {'diffusion.prediction': 'eps'},
    'longer': {},  # twice the steps
}
# What helped, together; and one more cause beside these.
_BEST = {
    'optim.name': 'muon', 'model.group_size': 4,
    'model.position': 'shaw_exact', 'model.position_stddev': 1.0,
}
CASES |= {
    'best': _BEST,
    **{f'best_{name}': _BEST | CASES[name] for name in (
        'lr_half', 'lr_twice', 'images_0', 'images_8', 'temporal_input',
        'temporal_full', 'both_spread', 'shift_1', 'shift_2', 'sigmoid',
        'min_snr', 'dropout', 'ema_long', 'group_8',
    )},
}
# The same on the network of the recipes for a GPU: on pixels, on patches of
# them, and one more cause beside the patches.
_PIXELS = {
    'optim.name': 'muon', 'model.group_size': 4, 'model.position_stddev': 1.0,
    'data.images': 0, 'model.base_channels': 64, 'model.head_dim': 64,
}
_PATCHES = _PIXELS | {
    'model.patch_size': 2, 'model.channel_mults': (2, 3, 4),
}
_PATCHES_4 = _PIXELS | {
    'model.patch_size': 4, 'model.channel_mults': (3, 4, 6),
    'model.attention_resolutions': (4, 8, 16),
}
_SPACETIME = {'model.spacetime_resolutions': (8, 16)}
CASES |= {
    'pixels': _PIXELS,
    'pixels_spacetime': _PIXELS | _SPACETIME,
    'patches': _PATCHES,
    'patches_spacetime': _PATCHES | _SPACETIME,
    'patches_shift_2': _PATCHES | CASES['shift_2'],
    'patches_shaw': _PATCHES | CASES['shaw_spread'],
    'patches_spacetime_shift_1': _PATCHES | _SPACETIME | CASES['shift_1'],
    'patches_spacetime_shift_2': _PATCHES | _SPACETIME | CASES['shift_2'],
    'patches_spacetime_lr_twice': _PATCHES | _SPACETIME | CASES['lr_twice'],
    'patches_4': _PATCHES_4,
    'patches_4_wide': _PATCHES_4 | {
        'model.channel_mults': (4, 6, 8),
        'model.spacetime_resolutions': (4, 8, 16),
    },
}
# Name -> (sampler, steps, shift of its times; None is that of the training).
SAMPLERS = {
    'dpmpp_64': ('dpmpp_2m', 64, None),
    'dpmpp_64_shift_2': ('dpmpp_2m', 64, -2.0),
    'dpmpp_64_shift_3': ('dpmpp_2m', 64, -3.0),
    'ancestral_256': ('ancestral', 256, None),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
  """The arguments; those of config fields are in `fields`."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('cases', nargs='+')
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--data', required=True)
  parser.add_argument('--config', default='moving_mnist')
  parser.add_argument('--steps', type=int, default=2500)
  parser.add_argument('--clips', type=int, default=256)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--kept', type=int, default=96)
  parser.add_argument(
      '--samplers', type=arguments_lib.names(SAMPLERS), default=['dpmpp_64']
  )
  args, args.fields = parser.parse_known_args(arguments)
  for case in args.cases:
    if case.partition('@')[0] not in CASES:
      parser.error(f'{case!r} is no case; there are {", ".join(CASES)}.')
  return args


def make_config(case: str, args: argparse.Namespace):
  """The config of a case.

  Raises:
    UserError: a field that does not exist.
  """
  name, _, seed = case.partition('@')
  config = video_diffusion.get_config(args.config)
  steps = args.steps * (2 if name == 'longer' else 1)
  config.update_from_flattened_dict(REFERENCE)
  cases_lib.set_fields(config, args.fields)
  config.update_from_flattened_dict({
      **CASES[name],
      'seed': int(seed or 0),
      'train.steps': steps,
      'optim.decay_steps': steps,
      'checkpoint.every': steps,
      'data.path': args.data,
      'data.dir': str(args.out / 'records'),
      'eval.num_clips': args.clips,
      'eval.batch_size': args.batch,
  })
  return config


def figures(videos: np.ndarray) -> dict[str, float]:
  """How much uint8 clips [n, t, h, w, 3] flicker, and how they differ."""
  ink = flicker.ink_flicker(videos)
  return {
      'flicker': float(ink.mean()),
      'median_flicker': float(np.median(ink)),
      'flicker_of_luma': float(flicker.flicker(videos)[1].mean()),
      'ink_spread': flicker.ink_spread(videos),
  }


def run(case: str, args: argparse.Namespace) -> None:
  """Trains a case, and measures it by each sampler."""
  config = make_config(case, args)
  run_dir = args.out / 'runs' / case
  video_diffusion.train(config, run_dir)
  row = _found(case, args) or _row(case, config, args, run_dir)
  frames, kept = args.out / f'{case}.npz', {}
  if frames.exists():
    with np.load(frames) as arrays:
      kept = dict(arrays)
  for name in args.samplers:
    if name in row:
      continue
    sampler, steps, shift = SAMPLERS[name]
    model = video_diffusion.load(run_dir)
    if shift is not None:
      model.config.diffusion.logsnr_shift = shift
    began = time.time()
    videos = model.sample(
        num_videos=args.clips, batch_size=args.batch, sampler=sampler,
        num_steps=steps, seed=1,
    )
    row[name] = figures(videos) | {'seconds': round(time.time() - began, 1)}
    kept[name] = videos[: args.kept].mean(-1).round().astype(np.uint8)
    with files.writing(frames) as part:
      np.savez_compressed(part, **kept)
    files.write(_path(case, args), json.dumps(row, indent=1))
  timing.emit(row)
  shutil.rmtree(run_dir / 'checkpoints')


def _row(case: str, config, args: argparse.Namespace, run_dir) -> dict:
  """What is said of a case before its samples."""
  lines = (run_dir / 'metrics.jsonl').read_text().splitlines()
  metrics = [json.loads(line) for line in lines]
  rates = [m['clips_per_second'] for m in metrics if 'clips_per_second' in m]
  data_options.complete(config)
  source = inputs.make_source(config, 'test')
  beside = beside_real.BesideReal(case, source, figures)
  return {
      'case': case,
      'config': args.config,
      'fields': args.fields,
      'changes': {k: repr(v) for k, v in CASES[case.split('@')[0]].items()},
      'steps': config.train.steps,
      'ms': round(1e3 * config.batch_size / statistics.median(rates), 1),
      'clips': args.clips,
      'date': timing.today(),
      'device': jax.devices()[0].device_kind,
      'jax': jax.__version__,
      **beside_real.by_kind(beside.real(config)),
      'last_metrics': metrics[-1],
      'losses': [m['loss'] for m in metrics if 'loss' in m],
  }


def _path(case: str, args: argparse.Namespace) -> pathlib.Path:
  """The file of a case."""
  return args.out / f'{case}.json'


def _found(case: str, args: argparse.Namespace) -> dict:
  """What the file of a case holds; nothing where there is none."""
  path = _path(case, args)
  return json.loads(path.read_text()) if path.exists() else {}


def main(argv: list[str] | None = None) -> None:
  """Runs the cases that have not been run."""
  args = parse(argv)
  for case in claims.claimed(args.out, {case: case for case in args.cases}):
    # Another call may have completed it in the meantime.
    if not _found(case, args).keys() >= set(args.samplers):
      run(case, args)


if __name__ == '__main__':
  main()
