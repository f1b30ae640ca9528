"""Metrics to TensorBoard event files, a JSON-lines file and the log."""
from collections.abc import Mapping
import json
import time

from absl import logging
from etils import epath
import numpy as np


class Writer:
  """Writes scalars and pictures of a run; a no-op where not `enabled`.

  TensorBoard's own event-file writer needs no TensorFlow, so every machine
  writes the same files: `events.*` and `metrics.jsonl` under the directory.
  """

  def __init__(self, directory: str, *, enabled: bool = True):
    self._events = None
    if not enabled:
      return
    from tensorboard.summary.writer import event_file_writer

    path = epath.Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    self._events = event_file_writer.EventFileWriter(str(path))
    self._lines = path / 'metrics.jsonl'

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """One point of every named curve."""
    if self._events is None:
      return
    values = {name: float(value) for name, value in values.items()}
    self._add(step, [dict(tag=k, simple_value=v) for k, v in values.items()])
    # Opened anew each time: a killed run loses no line, and a resumed one
    # appends.
    with self._lines.open('a') as f:
      f.write(json.dumps({'step': step, **values}) + '\n')

  def gif(self, step: int, name: str, encoded: bytes, shape) -> None:
    """An animated GIF in TensorBoard's image tab; shape [..., h, w, c]."""
    if self._events is None:
      return
    from tensorboard.compat.proto import summary_pb2

    height, width = np.asarray(shape)[-3:-1]
    image = summary_pb2.Summary.Image(
        height=int(height),
        width=int(width),
        colorspace=3,
        encoded_image_string=encoded,
    )
    self._add(step, [dict(tag=name, image=image)])

  def flush(self) -> None:
    """Writes what is buffered to disk."""
    if self._events is not None:
      self._events.flush()

  def close(self) -> None:
    """Flushes and closes the event file."""
    if self._events is not None:
      self._events.close()

  def _add(self, step, values):
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.proto import summary_pb2

    summary = summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(**value) for value in values]
    )
    self._events.add_event(
        event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
    )


def has(directory: epath.PathLike, step: int, name: str) -> bool:
  """Whether the curve `name` in `directory` has a point at a step."""
  path = epath.Path(directory) / 'metrics.jsonl'
  if not path.exists():
    return False
  for line in path.read_text().splitlines():
    try:
      point = json.loads(line)
    except ValueError:  # cut off by a full disk or a kill
      continue
    if point['step'] == step and name in point:
      return True
  return False


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
