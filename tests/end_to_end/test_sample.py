import numpy as np
import pytest

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.data import shapes
from video_diffusion.inference import conditioning as conditioning_lib
from video_diffusion.inference import outputs


def make():
  config = defaults_lib.get_config()
  config.data.frames = 2
  config.model.cond_dim = 4
  config.sample.num_clips = 5
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=3, num_frames=2, height=16, width=16
  )
  return config, source


def test_labels_are_those_of_heldout_clips_or_the_given_ones():
  config, source = make()
  labels = conditioning_lib.sample_labels(config, source)
  assert labels.shape == (5, 1, 6) and labels.dtype == np.int32
  rng = np.random.default_rng(0)
  want = source.example(1, rng, 2)['labels'].ravel()
  np.testing.assert_array_equal(labels[1, 0], want)
  np.testing.assert_array_equal(labels[4, 0], want)
  config.sample.labels = ((1, 2, 3, -1, -1, -1), (0, 0, 0, 1, 1, 1))
  labels = conditioning_lib.sample_labels(config, source)
  np.testing.assert_array_equal(labels[2, 0], [1, 2, 3, -1, -1, -1])
  config.model.cond_dim = 0
  with pytest.raises(ValueError, match='unconditional'):
    conditioning_lib.sample_labels(config, source)
  config.sample.labels = ()
  assert conditioning_lib.sample_labels(config, source) is None


@pytest.mark.parametrize(
    'row', [(0, 0, 0), (3, 0, 0, 0, 0, 0), (-2, 0, 0, 0, 0, 0)]
)
def test_bad_labels(row):
  config, source = make()
  config.sample.labels = (row,)
  with pytest.raises(ValueError, match='sample.labels holds'):
    conditioning_lib.sample_labels(config, source)


def test_the_figures_stand_beside_those_of_real_noise_and_blank():
  config, source = make()
  videos = np.stack(
      [source.example(i, np.random.default_rng(0), 2)['video'] for i in (0, 1)]
  )
  lines = outputs.figures_table(config, videos, source).splitlines()
  assert [line.split('  ')[0] for line in lines] == [
      '2 clips', 'samples', 'real clips', 'noise', 'blank'
  ]
  assert lines[1].split()[1:] == lines[2].split()[2:]
