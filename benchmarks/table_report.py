"""The files of `benchmarks.tables`, and the tables that are made of them."""
from collections.abc import Sequence
import json
import pathlib
import re
from typing import Any

import numpy as np

from video_diffusion.errors import UserError

SAME = ('config', 'fields', 'steps', 'samples', 'protocol', 'network')


def path(out: pathlib.Path, table: str, seed: int) -> pathlib.Path:
  """The file of a table and a seed."""
  return out / f'{table}_seed_{seed}.json'


def read(out: pathlib.Path, table: str, seed: int) -> dict[str, Any] | None:
  """What the file of a table and a seed holds; None where there is none."""
  file = path(out, table, seed)
  return json.loads(file.read_text()) if file.exists() else None


def seeds(out: pathlib.Path, table: str) -> list[int]:
  """The seeds that a table has files of."""
  pattern = re.compile(rf'{table}_seed_(\d+)\.json')
  names = [pattern.fullmatch(file.name) for file in out.glob('*.json')]
  return sorted(int(name[1]) for name in names if name)


def mean_and_error(
    values: Sequence[float | None],
) -> tuple[float, float | None] | None:
  """The mean over seeds and its standard error.

  Args:
    values: one for each seed; None where a seed has no such figure.

  Returns:
    The mean, and the sample standard deviation over the root of the number of
    values; no error of a single value. None without any value.
  """
  known = [value for value in values if value is not None]
  if not known:
    return None
  error = np.std(known, ddof=1) / np.sqrt(len(known)) if known[1:] else None
  return float(np.mean(known)), error if error is None else float(error)


def report(
    out: pathlib.Path,
    table: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
) -> str:
  """A Markdown table of the seeds that are there, and its protocol.

  Args:
    out: folder of the files.
    table: name of the table.
    title: stands above it.
    columns: figures that it shows.
    rows: in their order; those that no seed has are left out.

  Raises:
    UserError: two seeds were measured in different ways.
  """
  found = {seed: read(out, table, seed) for seed in seeds(out, table)}
  if not found:
    return f'**{title}**: nothing is measured in {out}.\n'
  first = _require_same(out, table, found)
  lines = [
      f'**{title}**', '',
      f'| | seeds | {" | ".join(columns)} |', '|---' * (len(columns) + 2) + '|',
  ]
  for row in rows:
    measured = [f['rows'][row] for f in found.values() if row in f['rows']]
    if measured:
      cells = [
          _cell(column, [figures[column] for figures in measured])
          for column in columns
      ]
      lines.append(f'| {row} | {len(measured)} | {" | ".join(cells)} |')
  everything = [row for f in found.values() for row in f['rows'].values()]
  where = {
      name: ', '.join(sorted({row[name] for row in everything}))
      for name in ('date', 'device', 'jax')
  }
  fields = f' with {" ".join(first["fields"])}' if first['fields'] else ''
  lines += [
      '', f'{where["date"]}, {where["device"]}, jax {where["jax"]}. '
      f'{first["config"]}{fields}, {first["steps"]} training steps. '
      f'{first["protocol"]}. FVD by {first["network"]}. Means over the seeds '
      f'{", ".join(map(str, found))} and their standard errors.', '',
  ]
  return '\n'.join(lines)


def _require_same(out, table, found):
  """The first file; all others must be made in the same way."""
  (seed, first), *others = found.items()
  for other, content in others:
    for key in SAME:
      if content[key] != first[key]:
        raise UserError(
            f'{path(out, table, other)} has {key} {content[key]!r}, but '
            f'{path(out, table, seed)} has {first[key]!r}; move one of them '
            'away.'
        )
  return first


def _cell(column: str, values: Sequence[float | None]) -> str:
  """'mean ± error', or '-' without any value."""
  found = mean_and_error(values)
  if found is None:
    return '-'
  digits = 1 if column.startswith('fvd') else 3
  return ' ± '.join(f'{x:.{digits}f}' for x in found if x is not None)
