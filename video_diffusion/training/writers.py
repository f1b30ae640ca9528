"""Metrics to TensorBoard event files, a JSON-lines file and the log."""
from collections.abc import Iterator, Mapping
import itertools
import json
import os
import time

from absl import logging
from etils import epath
import numpy as np

from video_diffusion import errors
from video_diffusion.filesystem import files


class Writer:
  """Writes scalars and pictures of a run; a no-op where not `enabled`.

  Event files are TensorBoard's own, which needs no TensorFlow for them, so
  every machine writes the same files: `events.*` and `metrics.jsonl` under the
  directory. Where the disk is full, points are lost and the run goes on.
  """

  def __init__(self, directory: str, *, enabled: bool = True):
    self._path = epath.Path(directory)
    self._lines = self._path / 'metrics.jsonl'
    self._enabled, self._events, self._lost = enabled, None, set()
    if enabled:
      self._path.mkdir(parents=True, exist_ok=True)
      self._cut = _is_cut(self._lines)  # by a kill, or by a full disk

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """One point of every named curve."""
    values = {name: float(value) for name, value in values.items()}
    self._add(step, [dict(tag=k, simple_value=v) for k, v in values.items()])
    line = json.dumps({'step': step, **values}) + '\n'
    self._try('lines', lambda: self._append(line))

  def _append(self, line):
    # Opened anew each time: a killed run loses no line, and a resumed one
    # appends.
    line = '\n' + line if self._cut else line
    self._cut = True
    with self._lines.open('a') as f:
      f.write(line)
    self._cut = False

  def gif(self, step: int, name: str, encoded: bytes, shape) -> None:
    """An animated GIF in TensorBoard's image tab; shape [..., h, w, c]."""
    from tensorboard.compat.proto import summary_pb2

    height, width = np.asarray(shape)[-3:-1]
    image = summary_pb2.Summary.Image(
        height=int(height),
        width=int(width),
        colorspace=3,
        encoded_image_string=encoded,
    )
    self._add(step, [dict(tag=name, image=image)])

  def close(self) -> None:
    """Closes the event file."""
    if self._events is not None:
      self._try('events', self._events.close)

  def _add(self, step, values):
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.proto import summary_pb2

    summary = summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(**value) for value in values]
    )
    event = event_pb2.Event(
        wall_time=time.time(), step=step, summary=summary
    )
    self._try('events', lambda: self._write(event))

  def _write(self, event):
    if self._events is None:
      self._events = _EventFile(self._path)
    self._events.write(event)

  def _try(self, what, write):
    """Calls `write`; says once that points are lost, until it succeeds."""
    if not self._enabled:
      return
    try:
      write()
      self._lost.discard(what)
    except Exception as error:  # pylint: disable=broad-except
      if what == 'events':
        self._events = None  # its buffer would fail again: a new file
      if not self._lost:
        bug = errors.is_bug(error)
        logging.error(
            'Curves cannot be written to %s (%s); the run goes on without '
            'these points%s.', self._path, error,
            '' if bug else ': make room', exc_info=error if bug else None,
        )
      self._lost.add(what)


_files = itertools.count()


class _EventFile:
  """An event file, written where it is called: errors come to the caller."""

  def __init__(self, path: epath.Path):
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer import record_writer

    # Numbered, as TensorBoard's own: a second file within the same millisecond
    # would empty the first.
    name = f'events.out.tfevents.{time.time():.3f}.{os.getpid()}.{next(_files)}'
    if files.is_local(path):
      file = (path / name).open('wb')
    else:
      # TensorFlow, where it is installed: its import takes four seconds.
      from tensorboard.compat import tf

      file = tf.io.gfile.GFile(str(path / name), 'wb')
    self._records = record_writer.RecordWriter(file)
    self.close = self._records.close
    self.write(
        event_pb2.Event(wall_time=time.time(), file_version='brain.Event:2')
    )

  def write(self, event) -> None:
    """Adds an event; it is on disk on return."""
    self._records.write(event.SerializeToString())
    self._records.flush()


def _is_cut(path):
  """Whether a file ends within a line."""
  if not path.exists() or not path.stat().length:
    return False
  with path.open('rb') as f:
    f.seek(-1, os.SEEK_END)
    return f.read() != b'\n'


def points(directory: epath.PathLike) -> Iterator[dict[str, float]]:
  """Yields the points of the curves in `directory`, {'step': 10, name: value}.
  """
  path = epath.Path(directory) / 'metrics.jsonl'
  if not path.exists():
    return
  for line in path.read_text().splitlines():
    try:
      yield json.loads(line)
    except ValueError:  # cut off by a full disk or a kill
      continue


def has(directory: epath.PathLike, step: int, prefix: str) -> bool:
  """Whether a curve in `directory` whose name starts so has a point at a step.
  """
  return any(
      point['step'] == step and any(name.startswith(prefix) for name in point)
      for point in points(directory)
  )


def duration(seconds: float) -> str:
  """4000 -> '1h06m', 130 -> '2m10s', 9 -> '9s'."""
  minutes, seconds = divmod(int(round(seconds)), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s' if minutes else f'{seconds}s'


def table(headings: list[str], rows: list[list[str]]) -> str:
  """Plain-text columns, the first aligned left and the rest right."""
  cells = [headings, *rows]
  columns = zip(*cells, strict=True)
  widths = [max(len(str(cell)) for cell in column) for column in columns]
  lines = []
  for row in cells:
    first, *rest = (str(cell) for cell in row)
    right = [c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)]
    lines.append('  '.join([first.ljust(widths[0]), *right]))
  return '\n'.join(lines)


def log_lines(text: str) -> None:
  """Logs a text line by line."""
  for line in text.splitlines():
    logging.info('%s', line)
