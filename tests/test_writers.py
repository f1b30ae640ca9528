import json

import numpy as np

from video_diffusion import media
from video_diffusion import writers


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
  writer.flush()
  writer.close()
  assert not list(tmp_path.iterdir())


def test_duration():
  assert [writers.duration(s) for s in (0.4, 9, 60, 130, 3599.6, 4000)] == [
      '0s', '9s', '1m00s', '2m10s', '1h00m', '1h06m'
  ]


def test_table():
  text = writers.table(['name', 'x'], [['a', '1.0'], ['longer', '22.0']])
  assert text == 'name       x\na        1.0\nlonger  22.0'
