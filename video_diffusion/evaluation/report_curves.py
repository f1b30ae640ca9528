"""Diagrams of a report as SVG within HTML; `report_page` has their colours."""
from collections.abc import Iterator, Sequence
import html
import itertools
import math

from video_diffusion.evaluation import report as report_lib

NUM_COLOURS = 6  # classes k0 ... of the page's style
# In the units of the drawing, which are pixels where there is room.
_WIDTH, _HEIGHT = 480, 300
_TOP, _RIGHT, _BOTTOM = 32, 22, 48
_DIGIT = 8  # width of a digit, at most
_MARKED = 60  # points; curves with fewer have a mark at each


def figure(curve: report_lib.Curve) -> str:
  """Returns a diagram with its title and its legend."""
  names = [
      f'<li class="k{i % NUM_COLOURS}"><svg viewBox="0 0 28 10" width="28" '
      f'height="10" aria-hidden="true"><path class="line" d="M1 5H27"/></svg>'
      f'<bdi>{escape(name)}</bdi></li>'
      for i, name in enumerate(curve.series)
  ]
  note = f'<p class="note">{escape(curve.note)}</p>\n' if curve.note else ''
  return (
      f'<figure class="curve">\n<figcaption><h3>{escape(curve.title)}</h3>\n'
      f'{note}</figcaption>\n<ul class="legend">{"".join(names)}</ul>\n'
      f'{_svg(curve)}</figure>\n'
  )


def escape(value: object) -> str:
  """Returns a text for HTML, within an element or a quoted attribute.

  Control characters, which HTML does not have, are shown as U+FFFD.
  """
  shown = report_lib.text(str(value))
  return html.escape(''.join(
      '\ufffd' if ord(c) < 32 and c not in '\t\n' or 127 <= ord(c) < 160 else c
      for c in shown
  ))


class _Axis:
  """Maps the values of an axis to [0, 1], and chooses its ticks.

  Attributes:
    ticks: values that have a tick, all within the axis.
    labels: texts of the ticks.
  """

  def __init__(
      self, values: Sequence[float], *, log: bool = False, widen: bool = False
  ):
    """Covers some values.

    Args:
      values: finite, at least one; above 0 for a logarithmic axis.
      log: whether the axis is logarithmic.
      widen: whether the axis begins and ends at a tick.
    """
    low, high = min(values), max(values)
    if low == high:
      margin = abs(low) / 2 or 1.0
      low, high = low - margin, high + margin
    step = _step((high - low) / 5)
    if widen:
      low = math.floor(low / step + 1e-9) * step
      high = math.ceil(high / step - 1e-9) * step
    self._scale = math.log10 if log else float
    self._low, self._high = self._scale(low), self._scale(high)
    self.ticks = _decades(low, high) if log else []
    is_even = len(self.ticks) < 2
    if is_even:
      first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
      self.ticks = [i * step for i in range(first, last + 1)]
    self.labels = _labels(self.ticks, is_even)

  def __call__(self, value: float) -> float:
    return (self._scale(value) - self._low) / (self._high - self._low)


def _step(least):
  """The smallest of 1, 2, 5, 10, 20 ... that is not below a distance."""
  power = 10.0 ** math.floor(math.log10(least))
  return next(f * power for f in (1, 2, 5, 10) if f * power >= least * 0.999)


def _decades(low, high):
  """Ticks of a logarithmic axis: powers of 10, or 1, 2, 5 where they are few.
  """
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  stride = math.ceil(len(powers) / 8)
  factors = (1,) if len(powers) > 4 else (1, 2, 5)
  ticks = [f * 10.0**p for p in powers[::stride] for f in factors]
  return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _labels(ticks, is_even):
  """Texts of the ticks of an axis.

  Those of large numbers end in k or M. Where the distances of the ticks are
  even, all but 0 have the same letter and as many decimals.
  """
  if not is_even:
    return [label for tick in ticks for label in _labels([tick], True)]
  largest = max(map(abs, ticks))
  unit, letter = 1.0, ''
  if 1e4 <= largest < 1e9:
    unit, letter = (1e6, 'M') if largest >= 1e6 else (1e3, 'k')
  labels = [
      report_lib.number(float(f'{tick / unit:.6g}'), zeros=False)
      for tick in ticks
  ]
  decimals = max(len(label.partition('.')[2]) for label in labels)
  if not any('×' in label for label in labels):
    labels = [
        f'{tick / unit:.{decimals}f}'.replace('-', '−') if tick else '0'
        for tick in ticks
    ]
  return [
      label + letter if tick else label
      for tick, label in zip(ticks, labels, strict=True)
  ]


def _svg(curve):
  """The drawing, or a sentence where there is nothing to draw."""
  series = [
      [_point(point, curve.log_x) for point in points]
      for points in curve.series.values()
  ]
  points = [point for line in series for point in line if point]
  if not points:
    return '<p class="note">There are no points.</p>\n'
  x_axis = _Axis([point[0] for point in points], log=curve.log_x)
  y_axis = _Axis([y for point in points for y in point[1:]], widen=True)
  left = 14 + _DIGIT * max(map(len, y_axis.labels))
  right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

  def place(x, y):
    across = left + x_axis(x) * (right - left)
    return f'{across:.1f} {bottom - y_axis(y) * (bottom - _TOP):.1f}'

  lines = [
      f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
      f'aria-label="{escape(_in_words(curve))}">\n'
  ]
  for value, label in zip(y_axis.ticks, y_axis.labels, strict=True):
    y = f'{bottom - y_axis(value) * (bottom - _TOP):.1f}'
    lines.append(
        f'<path class="grid" d="M{left} {y}H{right}"/>'
        f'<text class="right" x="{left - 8}" y="{y}" dy="0.35em">{label}'
        '</text>\n'
    )
  for value, label in zip(x_axis.ticks, x_axis.labels, strict=True):
    x = f'{left + x_axis(value) * (right - left):.1f}'
    lines.append(
        f'<path class="axis" d="M{x} {bottom}v5"/>'
        f'<text class="middle" x="{x}" y="{bottom + 19}">{label}</text>\n'
    )
  lines.append(
      f'<path class="axis" d="M{left} {bottom}H{right}"/>'
      f'<text x="0" y="15">{escape(curve.y_label)}</text>'
      f'<text class="middle" x="{(left + right) / 2:.0f}" '
      f'y="{_HEIGHT - 7}">{escape(curve.x_label)}</text>\n'
  )
  for i, (name, line) in enumerate(zip(curve.series, series, strict=True)):
    content = ''.join(_line(name, line, place))
    lines.append(f'<g class="k{i % NUM_COLOURS}">{content}</g>\n')
  return ''.join(lines) + '</svg>\n'


def _point(point, log_x):
  """(x, y, low, high) of a point, or None where it is not shown."""
  values = [math.nan if value is None else float(value) for value in point]
  x, y = values[:2]
  if not (math.isfinite(x) and math.isfinite(y)) or (log_x and x <= 0):
    return None
  band = values[2:]
  if len(band) != 2 or not all(map(math.isfinite, band)):
    band = [y, y]
  return x, y, *band


def _thinned(points, column) -> Iterator[tuple[float, ...]]:
  """Yields at most 4 points for each pixel across: the ends and the extremes.

  Args:
    points: (x, y, low, high), neighbours on the curve.
    column: maps a point to its pixel.
  """
  for _, near in itertools.groupby(points, key=column):
    near = list(near)
    if len(near) <= 4:
      yield from near
      continue
    order = range(len(near))
    kept = {0, len(near) - 1}
    kept |= {f(order, key=lambda i: near[i][1]) for f in (min, max)}
    band = min(point[2] for point in near), max(point[3] for point in near)
    has_band = any(low != high for _, _, low, high in near)
    for i in sorted(kept):
      yield (*near[i][:2], *band) if has_band else near[i]


def _line(name, points, place) -> Iterator[str]:
  """The band, the curve and the marks of one series."""
  shown, lines = [point for point in points if point], []
  for is_shown, piece in itertools.groupby(points, key=bool):
    piece = list(_thinned(
        piece, lambda point: int(float(place(*point[:2]).split()[0]))
    )) if is_shown else []
    if any(low != high for _, _, low, high in piece):
      edge = [place(x, high) for x, _, _, high in piece]
      edge += [place(x, low) for x, _, low, _ in reversed(piece)]
      yield f'<path class="band" d="M{"L".join(edge)}Z"/>'
    if piece:
      # Points that fall on one another are drawn once, but a point on its own
      # twice: as a line of no length it is a dot.
      places = [key for key, _ in itertools.groupby(
          place(x, y) for x, y, _, _ in piece
      )]
      lines.append('M' + 'L'.join(places if len(places) > 1 else places * 2))
  if lines:
    yield f'<path class="line" d="{"".join(lines)}"/>'
  for x, y, low, high in shown if len(shown) <= _MARKED else ():
    column, row = place(x, y).split()
    told = f'{name}: {report_lib.number(y)} at {report_lib.number(x)}'
    if low != high:
      told += f', {report_lib.number(low)} to {report_lib.number(high)}'
    yield (
        f'<circle cx="{column}" cy="{row}" r="3">'
        f'<title>{escape(told)}</title></circle>'
    )


def _in_words(curve):
  """What the drawing shows, for those who do not see it."""
  sentences = [f'{curve.title}: {curve.y_label} against {curve.x_label}.']
  for name, points in curve.series.items():
    shown = [p for p in (_point(p, curve.log_x) for p in points) if p]
    if shown:
      ends = ' to '.join(
          f'{report_lib.number(y)} at {report_lib.number(x)}'
          for x, y, _, _ in (shown[0], shown[-1])
      )
      sentences.append(f'{name}: {len(shown)} points, from {ends}.')
  return ' '.join(sentences)
