import json
import resource

import numpy as np

from tests.support import bugs
from video_diffusion import media
from video_diffusion.training import writers


def test_scalars_and_gifs_reach_tensorboard_and_the_lines(tmp_path):
  from tensorboard.backend.event_processing import event_accumulator

  writer = writers.Writer(tmp_path)
  writer.scalars(1, {'loss': 0.5, 'rate': np.float32(2)})
  writer.scalars(2, {'loss': 0.25})
  gif = media.encode_gif(np.zeros((2, 4, 6, 3), np.uint8), fps=8)
  writer.gif(2, 'samples', gif, (2, 4, 6, 3))
  writer.close()
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  points = [(e.step, e.value) for e in events.Scalars('loss')]
  assert points == [(1, 0.5), (2, 0.25)]
  image = events.Images('samples')[0]
  assert (image.step, image.height, image.width) == (2, 4, 6)
  assert image.encoded_image_string == gif
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
      {'step': 1, 'loss': 0.5, 'rate': 2.0},
      {'step': 2, 'loss': 0.25},
  ]


def test_a_disabled_writer_writes_nothing(tmp_path):
  writer = writers.Writer(tmp_path / 'logs', enabled=False)
  writer.scalars(1, {'loss': 0.5})
  writer.close()
  assert not list(tmp_path.iterdir())


def points(directory):
  """(steps of the event files, of the lines)."""
  from tensorboard.backend.event_processing import event_multiplexer

  events = event_multiplexer.EventMultiplexer()
  events.AddRunsFromDirectory(str(directory))
  events.Reload()
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  found = []
  for line in lines:
    try:
      found.append(json.loads(line)['step'])
    except ValueError:
      pass
  return [e.step for e in events.Scalars('.', 'loss')], found


def test_a_full_disk_costs_points_and_no_run(tmp_path, caplog):
  writer = writers.Writer(tmp_path)
  writer.scalars(1, {'loss': 0.5})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  size = (tmp_path / 'metrics.jsonl').stat().st_size
  resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
  try:
    writer.scalars(2, {'loss': 0.5})
    writer.scalars(3, {'loss': 0.5})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  writer.scalars(4, {'loss': 0.5})
  writer.close()
  events, lines = points(tmp_path)
  assert {1, 4} <= set(events) and {1, 4} <= set(lines)
  assert len(lines) < 4
  said = [r.getMessage() for r in caplog.records]
  assert sum('the run goes on' in text for text in said) == 1


def test_a_bug_of_ours_in_a_writer_keeps_its_traceback(
    tmp_path, caplog, monkeypatch
):
  writer = writers.Writer(tmp_path)
  monkeypatch.setattr(writer, '_append', bugs.bug_in(writers))
  writer.scalars(1, {'loss': 1.0})
  record, = caplog.records
  assert record.exc_info and 'make room' not in record.getMessage()


def test_files_of_one_moment_do_not_overwrite_each_other(tmp_path, monkeypatch):
  monkeypatch.setattr(writers.time, 'time', lambda: 1000.0)
  for step in (1, 2):
    writer = writers.Writer(tmp_path)
    writer.scalars(step, {'loss': 0.5})
    writer.close()
  assert points(tmp_path) == ([1, 2], [1, 2])


def test_a_line_that_a_kill_cut_costs_no_other(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 1.0}\n{"st')
  assert writers.has(tmp_path, 1, 'loss')
  writer = writers.Writer(tmp_path)
  writer.scalars(2, {'loss': 0.5})
  writer.scalars(3, {'loss': 0.5})
  writer.close()
  assert points(tmp_path)[1] == [1, 2, 3]


def test_duration():
  assert [writers.duration(s) for s in (0.4, 9, 60, 130, 3599.6, 4000)] == [
      '0s', '9s', '1m00s', '2m10s', '1h00m', '1h06m'
  ]


def test_table():
  text = writers.table(['name', 'x'], [['a', '1.0'], ['longer', '22.0']])
  assert text == 'name       x\na        1.0\nlonger  22.0'
