import pytest

from video_diffusion.data import datasets
from video_diffusion.data import shapes

SIZE = dict(split='train', frames=4, height=8, width=8, seed=0)


def test_moving_shapes():
  source = datasets.make_source(
      'moving_shapes',
      train_clips=7,
      test_clips=3,
      bounce=True,
      radius=0.2,
      speed=0.05,
      heldout_pairs=(),
      **SIZE,
  )
  assert isinstance(source, shapes.MovingShapes)
  assert (source.num_examples, source.bounce) == (7, True)


def test_an_unknown_name_lists_the_known_ones():
  with pytest.raises(ValueError, match="'imagenet'.*moving_shapes.*ucf101"):
    datasets.make_source('imagenet', **SIZE)


def test_where_records_live(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  monkeypatch.setenv('HOME', '/home/someone')
  assert datasets.data_dir('') == '/home/someone/tensorflow_datasets'
  assert datasets.data_dir('~/x') == '/home/someone/x'
  monkeypatch.setenv('TFDS_DATA_DIR', '/data')
  assert datasets.data_dir('') == '/data'
  assert datasets.data_dir('/mine') == '/mine'
