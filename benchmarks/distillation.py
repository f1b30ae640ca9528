"""What distillation costs in quality, and gives in speed: teacher and students.

  python -m benchmarks.distillation TEACHER STUDENTS --out DIR
      [--parts steps,guidance,extension,rounds,strip] [--samples 2048]
      [--steps 64,16,8,4,2] [--weights 0,1,2] [--frames 64] [--draws 200]
      [--config.FIELD=VALUE ...]
  python -m benchmarks.distillation TEACHER STUDENTS --out DIR --report

TEACHER is the folder of a trained run, and STUDENTS the --workdir of the
--mode=distill that was called with it. The parts are
  steps      each number of steps by the teacher with 'ddim' and with
             'dpmpp_2m', and by the student of that number, where there is one:
             FVD with a bootstrap interval, flicker, and the seconds of a batch
             without compilation
  guidance   students that take the weight w, beside the teacher's two calls of
             its network in the largest number of steps, for each of --weights
  extension  videos of --frames frames: the FVD of each block of T frames, and
             the change from frame to frame within blocks and at their seams
  rounds     the updates and the minutes of each round, by its own log
  strip      DIR/strip.gif: a row of samples of the teacher in the largest
             number of steps, then one of each student, from the same noise

Of a run of moving_shapes with captions or labels, steps and guidance also have
the share of samples that show what they were asked for ('colour', 'shape',
'motion', 'all'). All samples are made from the conditions of the same held-out
clips, with sample.seed, and compared with as many further held-out clips, which
repeat where the data have fewer. Each row is written to DIR/PART.json as soon
as it is measured: a call that was stopped continues where it was. --report
prints the tables of what is there. --config.FIELD sets a field of the groups
eval and sample, or names data, for teacher and students alike.
"""
import argparse
import functools
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from benchmarks import arguments as arguments_lib
from benchmarks import cases as cases_lib
from benchmarks import distillation_rows
from benchmarks import tables
from benchmarks import timing
from video_diffusion import media
from video_diffusion.config import distill_config
from video_diffusion.errors import UserError
from video_diffusion.evaluation import features as features_lib
from video_diffusion.filesystem import files

# Part -> its figures, in the order of the columns.
_MATCH = ('colour', 'shape', 'motion', 'all')
COLUMNS = {
    'steps': ('fvd', 'fvd_low', 'fvd_high', 'flicker', *_MATCH,
              'seconds_a_batch'),
    'guidance': ('fvd', 'fvd_low', 'fvd_high', 'flicker', *_MATCH),
    'extension': ('change_within', 'change_at_seams', 'flicker'),
    'rounds': ('updates', 'minutes'),
}
PARTS = (*COLUMNS, 'strip')
SHOWN = 4  # videos of a row of the strip


def weights(text: str) -> list[float]:
  """A flag's weights of guidance, with commas between them."""
  return [float(x) for x in text.split(',')]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments; those of config fields are in `fields`."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('teacher', metavar='TEACHER')
  parser.add_argument('students', metavar='STUDENTS', type=pathlib.Path)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument(
      '--parts', type=arguments_lib.names(PARTS), default=list(PARTS)
  )
  parser.add_argument('--samples', type=tables.positive, default=2048)
  parser.add_argument(
      '--steps', type=tables.numbers, default=[64, 16, 8, 4, 2]
  )
  parser.add_argument('--weights', type=weights, default=[0.0, 1.0, 2.0])
  parser.add_argument('--frames', type=tables.positive, default=64)
  parser.add_argument('--draws', type=tables.positive, default=200)
  parser.add_argument('--report', action='store_true')
  args, args.fields = parser.parse_known_args(argv)
  return args


class Runner:
  """Measures what is missing of the parts of one call."""

  def __init__(self, args: argparse.Namespace):
    """Loads the models, before anything is sampled.

    Args:
      args: from `parse`.

    Raises:
      UserError: there is no such run, no student, or a field does not fit.
    """
    self._args = args
    fields = cases_lib.values(args.fields)
    self._teacher = distillation_rows.load(args.teacher, fields)
    self._students = {
        steps: distillation_rows.load(path, fields)
        for steps in sorted(args.steps, reverse=True)
        if (path := args.students / f'steps_{steps}').is_dir()
    }
    if not self._students:
      raise UserError(
          f'{args.students} holds no student of {args.steps} steps, in a '
          'folder steps_N; give the --workdir of --mode=distill.'
      )

  @functools.cached_property
  def clips(self) -> distillation_rows.Clips:
    """The held-out clips, read when they are first needed."""
    args, options = self._args, self._teacher.config.eval
    features = features_lib.I3DFeatures(
        options.i3d or None, resize=options.resize
    )
    return distillation_rows.Clips(
        self._teacher.config, args.samples, features, draws=args.draws
    )

  def run(self) -> None:
    """All parts of the call."""
    self._args.out.mkdir(parents=True, exist_ok=True)
    for part in self._args.parts:
      if part == 'strip':
        self._strip()
        continue
      for row, measure in getattr(self, f'_{part}')().items():
        self._measure(part, row, measure)

  def _measure(self, part: str, row: str, measure) -> None:
    """One row, unless it is there, written at once.

    Raises:
      UserError: the file has rows of other arguments.
    """
    args = self._args
    path, wanted = args.out / f'{part}.json', {
        'teacher': str(args.teacher),
        'step': self._teacher.step,
        'students': str(args.students),
        'student_steps': {
            str(steps): model.step for steps, model in self._students.items()
        },
        'samples': args.samples,
        'frames': args.frames,
        'draws': args.draws,
        'fields': args.fields,
        'rows': {},
    }
    found = read(path) or wanted
    for key in wanted.keys() - {'rows'}:
      if found.get(key) != wanted[key]:
        raise UserError(
            f'{path} has rows of {key} {found.get(key)!r}, not '
            f'{wanted[key]!r}; pass another --out.'
        )
    if row in found['rows']:
      return
    figures = measure()
    found['rows'][row] = figures | {
        'date': timing.today(),
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'jax': jax.__version__,
    }
    files.write(path, json.dumps(found, indent=1))
    timing.emit({'part': part, 'row': row} | figures)

  def _steps(self) -> dict[str, Any]:
    rows = {'real clips': lambda: self.clips.real()}
    for steps in self._args.steps:
      for sampler in ('ddim', 'dpmpp_2m'):
        rows[f'{sampler}, {steps} steps'] = lambda steps=steps, name=sampler: (
            self.clips.measure(
                self._teacher, timed=True, **_settings(steps, name)
            )
        )
      if steps in self._students:
        rows[f'student, {steps} steps'] = lambda steps=steps: (
            self.clips.measure(self._students[steps], timed=True)
        )
    return rows

  def _guidance(self) -> dict[str, Any]:
    args, rows = self._args, {}
    models = {
        f'student, {steps} steps': (student, {})
        for steps, student in self._students.items()
        if student.config.distill.max_guidance_weight
    }
    if not models:
      print('No student takes a weight of guidance: its part is left out.')
      return {}
    most = max(args.steps)
    two = (self._teacher, _settings(most, 'ddim'))
    models = {f'two calls, {most} steps': two} | models
    for name, (model, settings) in models.items():
      for weight in args.weights:
        model.with_settings(**settings, guidance_weight=weight)  # or a sentence
        rows[f'{name}, w = {weight:g}'] = (
            lambda model=model, settings=settings, weight=weight:
            self.clips.measure(model, **settings, guidance_weight=weight)
        )
    return rows

  def _extension(self) -> dict[str, Any]:
    args, most = self._args, max(self._args.steps)
    models = {f'ddim, {most} steps': (self._teacher, _settings(most, 'ddim'))}
    models |= {
        f'student, {steps} steps': (student, {})
        for steps, student in self._students.items()
    }
    return {
        name: lambda model=model, settings=settings: self.clips.extend(
            model, args.frames, **settings
        )
        for name, (model, settings) in models.items()
    }

  def _rounds(self) -> dict[str, Any]:
    numbered = {
        int(steps): path for path in self._args.students.glob('steps_*')
        if (steps := path.name.removeprefix('steps_')).isdigit()
    }
    folders = [self._args.students / distill_config.FIRST]
    folders += [path for _, path in sorted(numbered.items(), reverse=True)]
    return {
        folder.name: lambda folder=folder: distillation_rows.round_cost(folder)
        for folder in folders if (folder / 'metrics.jsonl').exists()
    }

  def _strip(self) -> None:
    path = self._args.out / 'strip.gif'
    if path.exists():
      return
    most = max(self._args.steps)
    models = [(self._teacher, _settings(most, 'ddim'))]
    models += [(student, {}) for student in self._students.values()]
    rows = [
        distillation_rows.sample(self.clips.asked(model, SHOWN), **settings)
        for model, settings in models
    ]
    picture = media.grid(np.concatenate(rows), columns=len(rows[0]))
    media.write_gif(
        path, media.enlarge(picture, 400), fps=self._teacher.config.sample.fps
    )


def _settings(steps: int, sampler: str) -> dict[str, Any]:
  """How the teacher samples."""
  return {'num_steps': steps, 'sampler': sampler, 'eta': 0.0}


def read(path: pathlib.Path) -> dict[str, Any] | None:
  """What the file of a part holds; None where there is none."""
  return json.loads(path.read_text()) if path.exists() else None


def report(out: pathlib.Path, part: str) -> str:
  """The Markdown table of a part; columns without any figure are left out."""
  found = read(out / f'{part}.json')
  if found is None:
    return f'**{part}**: nothing is measured in {out}.\n'
  rows = found['rows']
  known = {name for figures in rows.values() for name in figures}
  blocks = sorted(
      name for name in known
      if name.startswith('fvd_') and name not in COLUMNS['steps']
  )
  columns = [c for c in (*blocks, *COLUMNS[part]) if c in known]
  lines = [
      f'**{part}**', '', f'| | {" | ".join(columns)} |',
      '|---' * (len(columns) + 1) + '|',
  ]
  for row, figures in rows.items():
    cells = [
        '-' if figures.get(c) is None else f'{figures[c]:.4g}' for c in columns
    ]
    lines.append(f'| {row} | {" | ".join(cells)} |')
  where = [
      ', '.join(sorted({figures[name] for figures in rows.values()}))
      for name in ('date', 'device', 'jax')
  ]
  fields = f' with {" ".join(found["fields"])}' if found['fields'] else ''
  return '\n'.join([
      *lines, '', f'{where[0]}, {where[1]}, jax {where[2]}; '
      f'{found["samples"]} samples{fields}.', '',
  ])


def main(argv: list[str] | None = None) -> None:
  """Measures what is missing, and prints the tables."""
  args = parse(argv)
  try:
    if not args.report:
      Runner(args).run()
  except UserError as error:
    sys.exit(f'distillation: {error}')
  for part in args.parts:
    if part in COLUMNS:
      print(report(args.out, part))


if __name__ == '__main__':
  main()
