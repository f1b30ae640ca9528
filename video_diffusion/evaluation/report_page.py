"""A report as two files: report.json, and report.html for people.

The page is one file that needs no network and no script. Videos are MP4s within
it. Its policy forbids everything else, whatever a caption may hold.
"""
import base64
from collections.abc import Iterator, Mapping
import hashlib
import importlib.util
import math
import pathlib
import tempfile

from etils import epath
import numpy as np

from video_diffusion import media
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.evaluation import report as report_lib
from video_diffusion.evaluation import report_style
from video_diffusion.evaluation.report_curves import escape
from video_diffusion.evaluation.report_curves import figure
from video_diffusion.filesystem import files

MIN_SIDE, MAX_SIDE = 192, 320  # pixels of the longer side of a clip in the page
CAPTION_LETTERS = 300  # longer captions are cut
WIDE = 40  # letters; longer values of the protocol have a line of their own


def write(
    folder: epath.PathLike, report: report_lib.Report, *, fps: float
) -> None:
  """Writes report.json and report.html, each whole or not at all.

  Args:
    folder: local or gs://. It is made if it does not exist.
    report: the report.
    fps: frames per second at which clips play.

  Raises:
    ArgumentError: a clip is no uint8 [time, height, width, 3].
  """
  folder = epath.Path(folder)
  page = render(report, fps=fps)
  folder.mkdir(parents=True, exist_ok=True)
  files.write(folder / 'report.json', report_lib.as_json(report))
  files.write(folder / 'report.html', page)


def render(report: report_lib.Report, *, fps: float) -> str:
  """Returns the page of a report; see `write`."""
  sections = list(_sections(report, fps))
  links = ''.join(
      f'<li><a href="#part-{i}">{escape(title)}</a></li>'
      for i, (title, _) in enumerate(sections)
  )
  contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'
  body = ''.join(
      f'<section aria-labelledby="part-{i}">\n'
      f'<h2 id="part-{i}">{escape(title)}</h2>\n{content}</section>\n'
      for i, (title, content) in enumerate(sections)
  )
  style = report_style.STYLE
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  policy = (
      f"default-src 'none'; style-src 'sha256-{digest}'; media-src data:; "
      "img-src data:; base-uri 'none'; form-action 'none'"
  )
  title = escape(report.title)
  return (
      '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
      f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
      '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
      '<meta name="color-scheme" content="light dark">\n'
      # An empty icon: browsers ask the server for one otherwise.
      f'<link rel="icon" href="data:,">\n<title>{title}</title>\n'
      f'<style>{style}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n'
      f'{contents if len(sections) > 1 else ""}</header>\n'
      f'<main>\n{body}</main>\n</body>\n</html>\n'
  )


def _sections(report, fps) -> Iterator[tuple[str, str]]:
  """Yields the (title, content) of every section, those that are empty not."""
  if report.scores:
    yield 'Scores', _scores(report.scores)
  if report.protocol:
    yield 'Protocol', _protocol(report.protocol)
  for table in report.tables:
    rows = [
        [(report_lib.number(head), ''), *map(_cell, cells)]
        for head, *cells in table.rows
    ]
    content = _table(table.title, list(table.columns), rows)
    yield table.title, _note(table.note) + content
  if report.curves:
    curves = ''.join(map(figure, report.curves))
    yield 'Curves', f'<div class="curves">\n{curves}</div>\n'
  for clips in report.clips:
    groups = ''.join(_group(group, fps) for group in clips.groups)
    content = f'<div class="groups">\n{groups}</div>\n'
    yield clips.title, _note(clips.note) + content


def _scores(scores):
  """The table of the scores, with a column of intervals if there are any."""
  columns, rows = ['Score', 'Value', '95 % interval'], []
  for score in scores:
    low, high = map(report_lib.number, (score.low, score.high))
    rows.append([
        (score.name, score.note),
        (report_lib.number(score.value), 'number value'),
        ('–' if low == high == '–' else f'{low} to {high}', 'number interval'),
    ])
  if all(row[2][0] == '–' for row in rows):
    columns, rows = columns[:2], [row[:2] for row in rows]
  return _table('Scores', columns, rows)


def _cell(value):
  """(text, class) of a cell of a free table."""
  value = report_lib.scalar(value)
  is_number = value is None or (
      isinstance(value, (int, float)) and not isinstance(value, bool)
  )
  return report_lib.number(value), 'number' if is_number else ''


def _table(title, columns, rows):
  """A table, which scrolls where it is wide.

  Args:
    title: name of the table.
    columns: their heads. The head of a column of numbers is on the right, too.
    rows: of each row, (head, note) and then (text, class) of its cells.
  """
  if not rows:
    return '<p class="note">There are none.</p>\n'
  heads, lines = [''], []
  for column in list(zip(*rows, strict=True))[1:]:
    is_number = all('number' in kind for _, kind in column)
    heads.append('number' if is_number else '')
  head = ''.join(
      f'<th scope="col"{_class(kind)}>{escape(name)}</th>'
      for name, kind in zip(columns, heads, strict=True)
  )
  for (name, note), *cells in rows:
    others = ''.join(
        f'<td{_class(kind)}>{escape(shown)}</td>' for shown, kind in cells
    )
    note = f' <span class="note">{escape(note)}</span>' if note else ''
    lines.append(
        f'<tr><th scope="row">{escape(name)}{note}</th>{others}</tr>\n'
    )
  return (
      f'<div class="scroll" role="region" aria-label="{escape(title)}, table" '
      f'tabindex="0">\n<table>\n<thead>\n<tr>{head}</tr>\n</thead>\n'
      f'<tbody>\n{"".join(lines)}</tbody>\n</table>\n</div>\n'
  )


def _class(name):
  return f' class="{name}"' if name else ''


def _note(note):
  return f'<p class="note">{escape(note)}</p>\n' if note else ''


def _protocol(protocol: Mapping[str, report_lib.Value]) -> str:
  items = []
  for name, value in protocol.items():
    shown = report_lib.number(value, zeros=False)
    items.append(
        f'<div{_class("wide" if len(shown) > WIDE else "")}>'
        f'<dt>{escape(name)}</dt><dd>{escape(shown)}</dd></div>\n'
    )
  return f'<dl>\n{"".join(items)}</dl>\n'


def _group(group: Mapping[str, np.ndarray], fps: float) -> str:
  """Clips that stay side by side as long as there is room for two."""
  clips = [
      f'<figure>{_video(caption, video, fps)}'
      f'<figcaption dir="auto">{escape(_cut(caption))}</figcaption></figure>\n'
      for caption, video in group.items()
  ]
  return f'<div class="group">\n{"".join(clips)}</div>\n'


def _cut(caption):
  caption = ' '.join(str(caption).split())
  if len(caption) <= CAPTION_LETTERS:
    return caption
  return caption[:CAPTION_LETTERS].rstrip() + '…'


def _video(caption, video, fps):
  """A clip that plays in a loop, without sound."""
  video = np.asarray(video)
  if (
      video.dtype != np.uint8
      or video.ndim != 4
      or video.shape[-1] != 3
      or not video.size
  ):
    raise ArgumentError(
        Argument('report'), f' holds a clip {_cut(caption)!r} that is '
        f'{video.dtype} {list(video.shape)}; it must be uint8 [time, height, '
        'width, 3].',
    )
  is_small = max(video.shape[1:3]) < MIN_SIDE
  video = media.enlarge(video, min_side=MIN_SIDE)
  height, width = video.shape[1:3]
  shrink = min(1.0, MAX_SIDE / max(height, width))
  common = (
      f'width="{math.ceil(width * shrink)}" '
      f'height="{math.ceil(height * shrink)}"'
      f'{_class("pixels" if is_small else "")}'
  )
  label = escape(_cut(caption))
  # Without PyAV, media writes MP4s that browsers do not play.
  if importlib.util.find_spec('av') is None:
    data = base64.b64encode(media.encode_gif(video, fps=fps)).decode()
    return f'<img {common} alt="{label}" src="data:image/gif;base64,{data}">'
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'clip.mp4')
    media.write_mp4(path, video, fps=fps)
    data = base64.b64encode(path.read_bytes()).decode()
  return (
      f'<video {common} aria-label="{label}" autoplay loop muted playsinline '
      f'controls preload="auto" src="data:video/mp4;base64,{data}"></video>'
  )
