"""What a report of a model holds, and its numbers as strict JSON.

`report_page.write` makes the two files of a report: report.json and
report.html.
"""
from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
from typing import Any

import numpy as np

Value = str | int | float | bool | None
# (x, y), or (x, y, low, high) where the curve has a band.
Point = Sequence[float | None]


@dataclasses.dataclass(frozen=True)
class Score:
  """One number that the model is judged by.

  Attributes:
    name: name of the metric, as 'FVD'.
    value: value of the metric. None or NaN says that there is none.
    low: lower end of the 95 % bootstrap interval, if there is an interval.
    high: upper end of the interval.
    note: says what the score is compared with and which direction is better.
  """

  name: str
  value: float | None
  low: float | None = None
  high: float | None = None
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Curve:
  """A diagram of one or several curves.

  Attributes:
    title: title of the diagram.
    x_label: name of the x axis.
    y_label: name of the y axis.
    series: maps the name of a curve to its points, (x, y) or, with a band,
      (x, y, low, high). A point that is not finite interrupts its curve.
    log_x: whether the x axis is logarithmic. Points with x <= 0 are then not
      shown.
    note: a sentence beneath the title.
  """

  title: str
  x_label: str
  y_label: str
  series: Mapping[str, Sequence[Point]]
  log_x: bool = False
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Clips:
  """Videos that play in the page.

  Attributes:
    title: title of the section.
    groups: the clips that belong side by side, one mapping for each group,
      from a caption to a video, uint8 [time, height, width, 3].
    note: a sentence beneath the title.
  """

  title: str
  groups: Sequence[Mapping[str, np.ndarray]]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """A free table, as of controls, or of files that were skipped.

  Attributes:
    title: title of the section.
    columns: heads of the columns.
    rows: cells of each row, as many as there are columns. The first cell is
      the head of its row.
    note: a sentence beneath the title.
  """

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[Value]]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
  """All that is known of how good a model is.

  Attributes:
    title: title of the report.
    scores: the scores, the most important one first.
    protocol: says how the scores were measured. It is printed in its order.
    tables: further numbers.
    curves: diagrams.
    clips: videos.
  """

  title: str
  scores: Sequence[Score] = ()
  protocol: Mapping[str, Value] = dataclasses.field(default_factory=dict)
  tables: Sequence[Table] = ()
  curves: Sequence[Curve] = ()
  clips: Sequence[Clips] = ()


def as_json(report: Report) -> str:
  """Returns a report without its pixels as strict JSON.

  Clips are listed by their captions. NaN and infinities are null, since JSON
  has no such numbers.
  """
  content = {
      'title': report.title,
      'scores': [dataclasses.asdict(score) for score in report.scores],
      'protocol': report.protocol,
      'tables': [vars(table) for table in report.tables],
      'curves': [vars(curve) for curve in report.curves],
      'clips': [
          {**vars(clips), 'groups': [list(group) for group in clips.groups]}
          for clips in report.clips
      ],
  }
  return json.dumps(_plain(content), indent=2, allow_nan=False) + '\n'


def _plain(value: Any) -> Any:
  """Returns a value in the types of JSON alone."""
  value = scalar(value)
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (bool, int)):
    return value
  if isinstance(value, str):
    return text(value)
  if isinstance(value, Mapping):
    return {text(str(key)): _plain(item) for key, item in value.items()}
  if isinstance(value, (Sequence, np.ndarray)):
    return [_plain(item) for item in value]
  raise TypeError(f'A report holds no {type(value).__name__}: {value!r}')


def scalar(value: Any) -> Any:
  """Returns a scalar of NumPy or JAX as Python's; others as they are."""
  return value.item() if getattr(value, 'ndim', None) == 0 else value


def text(value: str) -> str:
  """Returns a text that can be written as UTF-8.

  Names of files may have bytes that are not UTF-8, which Python keeps as lone
  surrogates. They become \\udcNN.
  """
  return value.encode(errors='backslashreplace').decode()


def number(value: Value, *, zeros: bool = True) -> str:
  """Returns a value as a reader wants it, numbers with 4 significant digits.

  Args:
    value: a number, a text, a truth value, or None.
    zeros: whether zeros at the end are kept, as in 12.00.

  Returns:
    The text; a dash for None and NaN, whole numbers in full.
  """
  value = scalar(value)
  if value is None or value != value:
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, int):
    # Years and small counts need no comma.
    shown = f'{value:,}' if abs(value) >= 10_000 else str(value)
  elif not isinstance(value, float):
    return text(str(value))
  elif math.isinf(value):
    shown = '∞' if value > 0 else '-∞'
  elif value and not 1e-4 <= abs(value) < 1e7:
    mantissa, exponent = f'{value:.3e}'.split('e')
    if not zeros:
      mantissa = _without_zeros(mantissa)
    power = str(int(exponent)).translate(_SUPERSCRIPT)
    shown = f'{mantissa} × 10{power}'
  else:
    # After rounding to 4 digits, so that 9.9999 is 10.00.
    rounded = abs(float(f'{value:.3e}'))
    decimals = 3 - math.floor(math.log10(rounded)) if rounded else 0
    shown = f'{value:,.{max(0, decimals)}f}'
    if abs(value) < 10_000:
      shown = shown.replace(',', '')
    if not zeros:
      shown = _without_zeros(shown)
  return shown.replace('-', '−')


_SUPERSCRIPT = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')


def _without_zeros(shown):
  return shown.rstrip('0').rstrip('.') if '.' in shown else shown
