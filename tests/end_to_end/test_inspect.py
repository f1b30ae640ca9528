import json

import imageio.v3 as iio
import numpy as np
import pytest

from video_diffusion import inspect
from video_diffusion import media
from video_diffusion.config import data_table
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.data import shapes


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
      '--mode=inspect', f'--workdir={tmp_path}', JAX_PLATFORMS='nosuch'
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

  class Bare:
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
  assert lines[1].split()[-7:] == ['200', '-', '16', 'x', '16', '0', '-']
  assert lines[3].split()[-7:] == ['100.0%', '1,234', '-', '-', '-', '-', '-']


def test_the_rate_counts_what_is_drawn():
  batches = iter(range(10**9))
  clips_per_second, n = inspect.rate(batches, batch_size=4, seconds=0.05)
  assert next(batches) == inspect.WARM_UP + n
  assert clips_per_second <= 4 * n / 0.05
