"""The paper's tables 2 to 6 in miniature, on moving_shapes, with any seeds.

There are two more, of mechanisms that the paper does not have.

  python -m benchmarks.tables TABLE [TABLE ...] --out DIR [--seeds 0,1,2]
      [--config moving_shapes:demo] [--steps 2000] [--samples N]
      [--config.FIELD=VALUE ...]
  python -m benchmarks.tables --report --out DIR

TABLE is one of
  joint       table 4: image frames K = 0, 4, 8, without guidance
  guidance    table 5: weight w = 0, 1, 2, 5 of classifier-free guidance, K = 4
  extension   table 6: 64 frames by reconstruction guidance, or by replacement
  prediction  tables 2 and 3: 2N ancestral steps, or N with a Langevin step
              after each but the last, which are 2N - 1 calls of the network;
              N = 16, 32, 64, from 1 and from 5 known frames
  summary     the options of docs/summary.md beside the paper's own, K = 4,
              without guidance
  summary_extension
              the same, extended to 64 frames: by reconstruction guidance, or
              frame by frame with extension.context=aligned

The models, MODELS of `table_cases`, are trained below DIR/runs, once for each
seed, and shared by the tables. Those of joint, guidance and summary take
captions. Those of the others take no condition, and are trained on shapes that
bounce: such clips go on for as many frames as one likes, and any 16 frames of
them are like any others. --config.FIELD sets a field of all models; one that
MODELS sets stays.

Each row is written to DIR/TABLE_seed_S.json as soon as it is measured, and a
training saves itself every 500 steps: a call that was stopped continues where
it was. A seed that another call is busy with is passed over. Checkpoints are
deleted when all tables that need them are complete. DIR/compiled keeps compiled
programs, unless the environment variable JAX_COMPILATION_CACHE_DIR says where.

At its end a call prints the tables: the mean over the seeds that are there, and
its standard error. --report prints them alone.
"""
import argparse
import functools
import json
import pathlib
import shutil
import sys
import time
from typing import Any

import jax

from benchmarks import claims
from benchmarks import table_cases
from benchmarks import table_report
from benchmarks import timing
import video_diffusion
from video_diffusion.api import model as model_lib
from video_diffusion.config import startup
from video_diffusion.errors import UserError
from video_diffusion.evaluation import features as features_lib
from video_diffusion.filesystem import files


def positive(text: str) -> int:
  """A flag's whole number from 1 on."""
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'is {text}; it must be at least 1')
  return value


def numbers(text: str) -> list[int]:
  """A flag's whole numbers, with commas between them."""
  found = [int(x) for x in text.split(',')]
  if min(found) < 0:
    raise argparse.ArgumentTypeError(f'is {text}; each must be at least 0')
  return found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments; those of config fields are in `fields`."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('tables', nargs='*', metavar='TABLE')
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', type=numbers, default=[0, 1, 2])
  parser.add_argument('--config', default='moving_shapes:demo')
  parser.add_argument('--steps', type=positive, default=2000)
  parser.add_argument('--samples', type=positive)
  parser.add_argument('--report', action='store_true')
  args, args.fields = parser.parse_known_args(argv)
  known = ', '.join(table_cases.TABLES)
  for name in args.tables:
    if name not in table_cases.TABLES:
      parser.error(f'{name!r} is no table; there are {known}.')
  if not args.tables and not args.report:
    parser.error(f'name a table, one of {known}, or --report.')
  decided = {'data.images', *table_cases.own_fields(0, 1)}
  for field in args.fields:
    name = field.partition('=')[0].removeprefix('--config.')
    if name in decided:
      parser.error(f'--config.{name} must not be given; tables decide it.')
  return args


class Runner:
  """Measures what is missing of the tables of one call."""

  def __init__(self, args: argparse.Namespace):
    """Checks all configs, before anything is trained.

    Args:
      args: from `parse`.

    Raises:
      UserError: see `table_cases.make_config`.
    """
    self._args = args
    for model in table_cases.MODELS:
      self._config(model, 0)

  def _config(self, model: str, seed: int):
    args = self._args
    return table_cases.make_config(
        model, config=args.config, fields=args.fields, seed=seed,
        steps=args.steps,
    )

  @functools.cached_property
  def _features(self) -> features_lib.I3DFeatures:
    options = self._config('free', 0).eval
    return features_lib.I3DFeatures(options.i3d or None, resize=options.resize)

  def run_seed(self, seed: int) -> None:
    """All tables of a seed, with models that they share.

    Raises:
      UserError: a table has rows of other arguments.
    """
    models = {}
    for name in self._args.tables:
      self._run(name, seed, models)
    for model in table_cases.MODELS:
      if not any(
          self._missing(name, seed) for name in table_cases.readers(model)
      ):
        folder = self._run_dir(model, seed) / 'checkpoints'
        shutil.rmtree(folder, ignore_errors=True)

  def _run(self, name: str, seed: int, models: dict[str, Any]) -> None:
    """The rows of a table that are missing, each written at once.

    Args:
      name: of the table.
      seed: of models and samples.
      models: name -> model of this seed; those that are trained are added.
    """
    table, result = table_cases.TABLES[name], self._begun(name, seed)
    missing = self._missing(name, seed)
    if not missing:
      return
    first, *_ = table.rows.values()
    measure = table.measure(
        self._config(first.model, seed), result['samples'], self._features
    )
    result |= {
        'protocol': measure.protocol, 'network': self._features.description,
    }
    for row in missing:
      model, settings = table.rows.get(row, (None, {}))
      if model and model not in models:
        models[model] = self._train(model, seed)
      began = time.time()
      figures = (
          measure.measure(models[model], **settings) if model
          else measure.real()
      )
      result['rows'][row] = figures | {
          'seconds': round(time.time() - began, 1),
          'date': timing.today(),
          'device': jax.devices()[0].device_kind,
          'jax': jax.__version__,
      }
      path = table_report.path(self._args.out, name, seed)
      files.write(path, json.dumps(result, indent=1))
      timing.emit({'table': name, 'seed': seed, 'row': row} | figures)

  def _train(self, name: str, seed: int) -> model_lib.Model:
    """The model, which is trained where it is not yet."""
    config, run_dir = self._config(name, seed), self._run_dir(name, seed)
    sample = {f'sample.{key}': value for key, value in config.sample.items()}
    config.update_from_flattened_dict(table_cases.PICTURE)
    began = time.time()
    video_diffusion.train(config, run_dir)
    seconds = round(time.time() - began, 1)
    timing.emit({'model': name, 'seed': seed, 'seconds': seconds})
    return video_diffusion.load(run_dir, sample)

  def _run_dir(self, model: str, seed: int) -> pathlib.Path:
    return self._args.out / 'runs' / f'{model}_seed_{seed}'

  def _missing(self, name: str, seed: int) -> list[str]:
    """The rows that are not in the file of a table."""
    found = table_report.read(self._args.out, name, seed) or {'rows': ()}
    return [row for row in table_cases.rows(name) if row not in found['rows']]

  def _begun(self, name: str, seed: int) -> dict[str, Any]:
    """What is there of a table, or an empty one.

    Raises:
      UserError: it has rows of other arguments.
    """
    args = self._args
    wanted = {
        'config': args.config,
        'fields': args.fields,
        'steps': args.steps,
        'samples': args.samples or table_cases.TABLES[name].samples,
        'rows': {},
    }
    found = table_report.read(args.out, name, seed) or wanted
    for key in wanted.keys() - {'rows'}:
      if found[key] != wanted[key]:
        raise UserError(
            f'{table_report.path(args.out, name, seed)} has rows of {key} '
            f'{found[key]!r}, not {wanted[key]!r}; pass another --out.'
        )
    return found


def main(argv: list[str] | None = None) -> None:
  """Measures what is missing, and prints the tables."""
  args = parse(argv)
  try:
    if not args.report:
      jax.config.update('jax_compilation_cache_dir', startup.compilation_cache(
          str(args.out / 'compiled'), is_default=False
      ))
      runner = Runner(args)
      seeds = {f'seed_{seed}': seed for seed in args.seeds}
      called = {name: f'Seed {seed}' for name, seed in seeds.items()}
      for name in claims.claimed(args.out, called):
        runner.run_seed(seeds[name])
    for name in args.tables or table_cases.TABLES:
      table = table_cases.TABLES[name]
      print(table_report.report(
          args.out, name, table.title, table.columns, table_cases.rows(name)
      ))
  except UserError as error:
    sys.exit(f'tables: {error}')


if __name__ == '__main__':
  main()
