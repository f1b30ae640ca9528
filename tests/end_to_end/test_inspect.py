import json
import re
import types

import imageio.v3 as iio
import numpy as np
import pytest

from video_diffusion import inspect
from video_diffusion import media
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import data_table
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.data import shapes
from video_diffusion.parallel import memory


def source(**fields):
  options = dict(
      split='train', seed=0, num_examples=50, num_frames=4, height=16, width=16
  )
  return shapes.MovingShapes(**(options | fields))


def batch(**fields):
  options = dict(
      batch_size=3, num_frames=4, num_images=2, stop=1, loader='threads'
  )
  return next(pipeline.batches(source(), **(options | fields)))


def test_the_mode_shows_the_first_batch_and_claims_no_run(run_main, tmp_path):
  # Of a platform that is not there, any use would be an error.
  code, output = run_main(
      '--mode=inspect', f'--workdir={tmp_path}',
      '--config.log.forecast_steps=0', JAX_PLATFORMS='nosuch'
  )
  assert code == 0, output
  assert 'clips/s' in output and 'data (moving_shapes)  100.0%' in output
  assert [path.name for path in tmp_path.iterdir()] == ['inspect']
  folder = tmp_path / 'inspect'
  result = json.loads((folder / 'inspect.json').read_text())
  row, = result['data']
  assert (row['clips'], row['frames'], row['size'], row['skipped']) == (
      1_000_000, 2_000_000, '8 x 8', 0
  )
  assert result['clips_per_second'] > 0 and result['batches_measured'] > 0
  assert result['resident_bytes'] > 2**25
  assert result['shapes']['video'] == [8, 3, 8, 8, 3]
  assert len(result['texts']) == 8 and result['texts'][0][1].startswith('a ')
  gif = iio.imread(folder / 'batch.gif', plugin='pillow', mode='RGB')
  # 8 rows of a clip and an image, 96 pixels each, and text.
  assert gif.shape == (2, 8 * (96 + 42 + 4) + 4, 2 * (96 + 4) + 4, 3)
  assert (folder / 'batch.mp4').stat().st_size > 0
  assert result['forecast'] is None
  assert result['no_forecast'] == 'log.forecast_steps is 0'
  assert 'Compil' not in output


def test_without_its_device_it_shows_the_data_and_says_why(run_main, tmp_path):
  code, output = run_main(
      '--mode=inspect', f'--workdir={tmp_path}', JAX_PLATFORMS='nosuch'
  )
  assert code == 0 and 'Traceback' not in output, output
  result = read(tmp_path)
  assert result['forecast'] is None and result['clips_per_second'] > 0
  assert re.search('no device can be used .*nosuch', result['no_forecast'])
  assert 'No forecast of memory and time: no device can be used' in output


def read(workdir):
  return json.loads((workdir / 'inspect' / 'inspect.json').read_text())


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
  """The loading of data is measured for a moment only."""
  monkeypatch.setattr(inspect, 'SECONDS', 0.2)


@pytest.fixture
def limited(monkeypatch):
  """limited(bytes): such is the memory of each device."""

  def fake(limit):
    one = types.SimpleNamespace(
        device_kind='NVIDIA L4', memory_stats=lambda: {'bytes_limit': limit}
    )
    monkeypatch.setattr(memory, '_device', lambda: one)

  return fake


def test_it_says_what_the_training_takes(run_main_here, tmp_path, tiny_config):
  code, output = run_main_here(
      '--mode=inspect', f'--workdir={tmp_path}', '--config.train.steps=60000',
      '--config.optim.schedule=constant',
  )
  assert code == 0, output
  assert [path.name for path in tmp_path.iterdir()] == ['inspect']
  result = read(tmp_path)
  assert result['no_forecast'] == '' and 'No forecast' not in output
  found = result['forecast']
  assert found['memory_limit_bytes'] is None  # of a CPU
  assert all(
      value > 0 for name, value in found.items()
      if name not in ('device', 'memory_limit_bytes')
  )
  assert found['steps'] == 60_000 and found['steps_measured'] == 5
  slower = max(found['ms_per_step'], found['input_ms_per_step'])
  assert found['hours'] == pytest.approx(slower * 60_000 / 3.6e6)
  assert found['memory_bytes'] >= (
      found['argument_bytes'] + found['temporary_bytes']
  )
  # The state is the arguments but for the batch, and the FLOPs are of training.
  network = build.make_model(tiny_config, (3, 6, 8) * 2)
  learning_rate, optimizer = build_step.make_optimizer(tiny_config)
  shapes, mesh = build.batch_shapes(tiny_config, network), build.make_mesh(
      tiny_config
  )
  _, abstract = build_step.abstract_state(
      tiny_config, network, optimizer, shapes, mesh
  )
  compiled, flops = build_step.compile_step(
      tiny_config, network, optimizer, learning_rate, abstract, shapes, mesh
  )
  assert found['flops_per_step'] == flops
  assert found['memory_bytes'] == memory.program_bytes(compiled)
  assert 0 < found['argument_bytes'] - memory.tree_bytes(abstract) < 20_000
  before, after = output.split('Compiling the train step, to measure 5 steps')
  assert 'clips/s' in before and '--config.log.forecast_steps=0' in after
  for words in ('memory a device', 'ms', '60,000 steps', 'state and batch'):
    assert words in after


def test_a_batch_that_does_not_fit_is_one_sentence_there_and_in_training(
    run_main_here, tmp_path, limited
):
  said = []
  flags = ('--config.batch_size=64', f'--workdir={tmp_path}')
  code, output = run_main_here('--mode=inspect', *flags)
  assert code == 0, output
  needs = read(tmp_path)['forecast']['memory_bytes']
  limited(needs * 3 // 4)
  for mode in ('inspect', 'train'):
    code, output = run_main_here(f'--mode={mode}', *flags)
    assert code == 1 and 'Traceback' not in output, output
    said.append(output.strip().splitlines()[-1])
  assert said[0] == said[1]
  assert re.match(
      'video_diffusion: batch_size=64 does not fit: it takes about .*NVIDIA L4 '
      r'has .*; set batch_size=\d+, about the largest that fits, or train.accum'
      r'ulate=\d+ to take it in parts, or model.remat=\(8,\) to ', said[0]
  )
  # The data are shown all the same, and a batch that is named fits.
  result = read(tmp_path)
  assert result['forecast'] is None and result['clips_per_second'] > 0
  assert f'video_diffusion: {result["no_forecast"]}' == said[0]
  largest = int(re.search('set batch_size=([0-9]+)', said[0])[1])
  code, output = run_main_here(
      '--mode=inspect', *flags, f'--config.batch_size={largest}'
  )
  assert code == 0, output
  limited(1000)
  code, output = run_main_here('--mode=inspect', *flags)
  assert code == 1 and 'the train state takes about' in output


@pytest.mark.parametrize('flags, words', [
    (('--config.mesh.processes=4',), 'mesh.processes is 4, and a single proce'),
    (('--config.train.accumulate=3',), 'train.accumulate is 3; batch_size, 8,'),
    (('--config.text.encoder=t5', '--config.model.cond_dim=8'),
     "text.encoder is 't5', but text.path is empty; give the checkpoint"),
])
def test_what_cannot_be_trained_here_is_inspected(
    run_main_here, tmp_path, flags, words
):
  code, output = run_main_here(
      '--mode=inspect', f'--workdir={tmp_path}', *flags
  )
  assert code == 0, output
  assert f'No forecast of memory and time: {words}' in output
  assert read(tmp_path)['no_forecast'].startswith(words)
  assert (tmp_path / 'inspect' / 'batch.gif').exists()
  assert 'Compil' not in output


def test_a_cpu_is_not_kept_busy_with_what_is_too_large_for_it(
    run_main_here, tmp_path, monkeypatch
):
  for name, value, words in (
      ('MAX_CPU_FLOPS', 1, 'FLOP, too much for this CPU'),
      ('memory.host_available', lambda: 2**20, 'GiB of memory are free here'),
  ):
    with monkeypatch.context() as patch:
      patch.setattr(f'video_diffusion.config.forecast.{name}', value)
      code, output = run_main_here('--mode=inspect', f'--workdir={tmp_path}')
    assert code == 0 and words in output, output
    assert read(tmp_path)['forecast'] is None


def test_a_run_with_captions_has_a_forecast(
    run_main_here, tiny_flags, tmp_path
):
  code, output = run_main_here(
      '--config=configs/moving_shapes.py:text', *tiny_flags, '--mode=inspect',
      f'--workdir={tmp_path}', '--config.model.cond_dim=8', tiny=False,
  )
  assert code == 0, output
  assert read(tmp_path)['forecast']['hours'] > 0
  assert [path.name for path in tmp_path.iterdir()] == ['inspect']


def test_the_picture_holds_every_frame_in_its_place():
  b = batch()
  picture = inspect.picture(b, 2)
  assert picture.shape[0] == 4
  gap, zoom, label = 3, 6, 42
  gap = (96 + label) // 32
  for i in range(3):
    y = gap + i * (96 + label + gap)
    for j, frames in enumerate((slice(0, 4), slice(4, 5), slice(5, 6))):
      x = gap + j * (96 + gap)
      shown = picture[:, y : y + 96 : zoom, x : x + 96 : zoom]
      np.testing.assert_array_equal(
          shown, np.broadcast_to(b['video'][i, frames], shown.shape)
      )
      text = picture[0, y + 96 : y + 96 + label, x : x + 96]
      assert 0 < (text > 128).mean() < 0.5


def test_texts_are_captions_else_labels_else_nothing():
  b = batch()
  assert inspect.texts(b, 1)[0] == shapes.caption(
      b['labels'][1, 0].reshape(2, 3)
  )
  del b['captions']
  assert inspect.texts(b, 1)[0] == 'label ' + ' '.join(
      str(x) for x in b['labels'][1, 0]
  )
  del b['labels']
  assert set(inspect.texts(b, 1)) == {''}
  assert inspect.picture(b, 2).shape[1:3] == (3 * 99 + 3, 3 * 99 + 3)


class Font:

  @staticmethod
  def getlength(text):
    return 5 * len(text)


@pytest.mark.parametrize(
    'text, lines',
    [
        ('', []),
        ('a red circle', ['a red', 'circle']),
        ('one two three four five', ['one two', 'three', 'four five']),
        ('a b c d e f g h i j k l m n', ['a b c d e', 'f g h i j', 'k l m n']),
        ('incomprehensible', ['incompreh', 'ensible']),
        ('first second third fourth', ['first', 'second', 'third..']),
        ('first second 123456789 fourth', ['first', 'second', '1234567..']),
    ],
)
def test_text_is_wrapped_and_cut_to_the_width(text, lines):
  assert media.wrap(text, width=45, font=Font) == lines


def test_rows_say_where_a_data_set_stands_and_its_share():
  config = defaults_lib.get_config()
  config.data.mixture.more = dict(name='moving_shapes', weight=3.0)
  config.data.image_mixture.stills = dict(name='video_folder')

  class Bare(mixture_lib.Source):
    num_examples = 1234

  mixture = mixture_lib.Mixture(
      [source(), source()], [1, 3], mixture_lib.Mixture([Bare()], [1])
  )
  rows = data_table.rows(config, mixture)
  assert [(row['data set'], row['share']) for row in rows] == [
      ('data', 0.25), ('data.mixture.more', 0.75),
      ('data.image_mixture.stills', 1.0),
  ]
  lines = data_table.as_text(rows).splitlines()
  assert lines[1].split()[-10:] == [
      '50', 'clips', '50', '200', '-', '16', 'x', '16', '0', '-'
  ]
  assert lines[3].split()[-9:] == [
      '100.0%', '1,234', 'clips', '1,234', *['-'] * 5
  ]


def test_the_rate_counts_what_is_drawn():
  batches = iter(range(10**9))
  clips_per_second, n = inspect.rate(batches, batch_size=4, seconds=0.05)
  assert next(batches) == inspect.WARM_UP + n
  assert clips_per_second <= 4 * n / 0.05
