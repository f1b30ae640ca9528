"""Stochastic Moving-MNIST: its statistics, and what is packed."""
import functools
import gzip
import json

import numpy as np
import pytest

from tests.support import glyphs
from tests.support.paths import ROOT
from video_diffusion.data import datasets
from video_diffusion.data import records
from video_diffusion.data.builders import mnist
from video_diffusion.data.builders import moving_mnist
from video_diffusion.data.builders import tfds_originals
from video_diffusion.errors import UserError

pytest.importorskip('PIL')
MNIST = ROOT.parent / 'shared' / 'data' / 'mnist'
DRAWN = dict(
    data_dir=None, height=64, width=64, clip_frames=5, train_clips=4,
    test_clips=3, seed=0,
)


def write_idx(folder, name, images):
  """Writes the images of a split the way that MNIST comes."""
  glyphs.write_idx(folder / mnist.FILES[name], images)


@pytest.fixture(name='folder')
def plain_digits(tmp_path):
  """Training digits are full squares of level 100, test digits of level 200."""
  folder = tmp_path / 'mnist'
  folder.mkdir()
  write_idx(folder, 'train', np.full((3, 28, 28), 100, np.uint8))
  write_idx(folder, 'test', np.full((2, 28, 28), 200, np.uint8))
  return folder


def prepare(folder, data_dir, **changed):
  settings = DRAWN | {'data_dir': data_dir} | changed
  return moving_mnist.prepare(folder, **settings)


def read_all(directory, split):
  source = records.VideoRecords(directory, split)
  return [
      source._records.read(i)['video'] for i in range(len(source._records))
  ]


def paths(num_clips, num_frames=20):
  """Places and velocities, [2 * num_clips, num_frames, 2] each."""
  drawn = [
      moving_mnist.trajectory(np.random.default_rng((0, i)), num_frames)
      for i in range(2 * num_clips)
  ]
  return tuple(np.stack(each) for each in zip(*drawn, strict=True))


def test_starts_are_uniform():
  places, velocities = paths(1000)
  for values, low, high in [
      (places[:, 0], 0, 31), (velocities[:, 0], -4, 4)
  ]:
    # A digit that starts inside has no bounce at frame 0.
    assert values.min() == low and values.max() == high
    for axis in range(2):
      counts = np.bincount(values[:, axis] - low)
      expected = 2000 / (high - low + 1)
      # Four standard deviations of a binomial count.
      assert (abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_velocity_changes_at_walls_alone_and_leads_away():
  places, velocities = paths(1000)
  wanted = places[:, :-1] + velocities[:, :-1]  # where it went
  low, high = wanted < 0, wanted > 31
  hit = (low | high).any(-1)
  assert 0.1 < hit.mean() < 0.3
  np.testing.assert_array_equal(places[:, 1:], wanted.clip(0, 31))
  after, before = velocities[:, 1:], velocities[:, :-1]
  assert (after[~hit] == before[~hit]).all()
  assert (after[low] >= 1).all() and (after[high] <= -1).all()
  # Away from the wall uniform in 1..4, along it in -4..4.
  along = after[hit[..., None] & ~low & ~high]
  for values, choices in [
      (after[low], np.arange(1, 5)),
      (-after[high], np.arange(1, 5)),
      (along, np.arange(-4, 5)),
  ]:
    expected = len(values) / len(choices)
    counts = np.array([(values == choice).sum() for choice in choices])
    assert counts.sum() == len(values)
    assert (abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_a_clip_shows_two_digits_that_add():
  # Single white pixels, enlarged, tell where each digit is.
  digits = np.zeros((1, 28, 28), np.uint8)
  digits[:, 13:15, 13:15] = 200
  one = moving_mnist.enlarge(digits[0]).sum()
  options = dict(num_frames=6, seed=3, split='train')
  for index in range(20):
    clip = moving_mnist.draw(digits, index=index, **options)
    assert clip.shape == (6, 64, 64, 3) and clip.dtype == np.uint8
    assert (clip == clip[..., :1]).all()
    grey = clip[..., 0]
    total = grey.sum((1, 2), dtype=int)
    whole = grey.max((1, 2)) < 255  # nothing was cut off at white
    assert (total[whole] == 2 * one).all() and (total <= 2 * one).all()
  full = np.full((1, 28, 28), 200, np.uint8)
  levels = {
      level
      for index in range(20)
      for level in np.unique(moving_mnist.draw(full, index=index, **options))
  }
  assert levels == {0, 200, 255}


def test_a_clip_follows_from_seed_split_and_index():
  digits = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
  options = dict(num_frames=4, seed=0, split='train', index=2)
  clip = moving_mnist.draw(digits, **options)
  np.testing.assert_array_equal(clip, moving_mnist.draw(digits, **options))
  for changed in [dict(seed=1), dict(split='test'), dict(index=3)]:
    assert (moving_mnist.draw(digits, **options | changed) != clip).any()
  small = moving_mnist.draw(digits, size=16, **options)
  expected = clip.reshape(4, 16, 4, 16, 4, 3).mean((2, 4))
  assert abs(small - expected).max() <= 0.5 + 1e-4


def test_digits_are_enlarged_bilinearly():
  ramp = np.tile(np.arange(28, dtype=np.uint8) * 8, (28, 1))
  big = moving_mnist.enlarge(ramp)
  assert big.shape == (32, 32)
  centres = ((np.arange(32) + 0.5) * 28 / 32 - 0.5).clip(0, 27) * 8
  assert abs(big - centres).max() <= 0.5 + 1e-6


def test_packed_clips(folder, tmp_path):
  directory = prepare(folder, tmp_path)
  for split, level, count in [('train', 100, 4), ('test', 200, 3)]:
    clips = read_all(directory, split)
    assert len(clips) == count
    digits = mnist.read_idx(folder / mnist.FILES[split])
    for index, clip in enumerate(clips):
      assert level in clip and set(np.unique(clip)) <= {
          0, level, min(255, 2 * level)
      }
      np.testing.assert_array_equal(
          clip,
          moving_mnist.draw(
              digits, num_frames=5, seed=0, split=split, index=index
          ),
      )
  report = json.loads((directory / 'report.json').read_text())
  assert report['videos'] == report['clips'] == {'train': 4, 'test': 3}
  assert set(report['digits']) == set(mnist.FILES.values())
  source = records.VideoRecords(directory, 'test')
  assert [source.video(i) for i in range(3)] == [4, 5, 6]
  assert source.num_examples == source.num_videos == 3


def test_a_second_call_draws_nothing(folder, tmp_path, monkeypatch):
  first = prepare(folder, tmp_path)
  monkeypatch.setattr(moving_mnist, 'draw', None)
  assert prepare(folder, tmp_path) == first
  with pytest.raises(TypeError):
    prepare(folder, tmp_path, seed=1)
  write_idx(folder, 'test', np.full((2, 28, 28), 201, np.uint8))
  with pytest.raises(TypeError):  # other digits
    prepare(folder, tmp_path)


def test_digits_of_tfds(tmp_path, monkeypatch):
  tfds = pytest.importorskip('tensorflow_datasets')
  pytest.importorskip('tensorflow')
  read = []

  def digits_of_tfds(name, data_dir):
    read.append((name, data_dir))
    with tfds.testing.mock_data(num_examples=2):
      builder = tfds.builder(name)
    return builder

  monkeypatch.setattr(tfds_originals, 'open_original', digits_of_tfds)
  with tfds.testing.mock_data(num_examples=2):
    digits = mnist.of_tfds(tmp_path)
  assert {s: (d.shape, d.dtype) for s, d in digits.items()} == {
      split: ((2, 28, 28), np.uint8) for split in ('train', 'test')
  }
  monkeypatch.setattr(mnist, 'of_tfds', lambda _: digits)
  clip = read_all(prepare('', tmp_path), 'train')[0]
  assert clip.shape == (5, 64, 64, 3) and clip.max() == 255
  assert read == [('mnist:3.0.1', tmp_path)]


def test_one_sentence(folder, tmp_path):
  with pytest.raises(ValueError, match='height is 64 and width is 32'):
    prepare(folder, tmp_path, width=32)
  with pytest.raises(ValueError, match='has no file train-images.*must be a f'):
    prepare(tmp_path, tmp_path)
  for content in [b'no gzip', gzip.compress(b'\0\0\10\1' + bytes(20))]:
    (folder / mnist.FILES['train']).write_bytes(content)
    with pytest.raises(ValueError, match='train-images.* is not a whole'):
      prepare(folder, tmp_path)
  with pytest.raises(ValueError, match='has no clip for the split .test'):
    write_idx(folder, 'train', np.zeros((3, 28, 28), np.uint8))
    prepare(folder, tmp_path, test_clips=0)
  with pytest.raises(ValueError, match='is 5; it must be at least 6'):
    datasets.make_source(
        'moving_mnist_stochastic', split='train', frames=6, height=64,
        width=64, seed=0, path=str(folder), dir=str(tmp_path), clip_frames=5,
        train_clips=1, test_clips=1,
    )


def test_digits_with_their_classes(folder, tmp_path):
  glyphs.write_mnist(folder, n=20)
  images, labels = mnist.labelled(folder, data_dir=tmp_path, count=15)
  want = glyphs.glyphs(20)
  np.testing.assert_array_equal(images, want[0][:15])
  np.testing.assert_array_equal(labels, want[1][:15])
  read = functools.partial(mnist.labelled, data_dir=tmp_path, count=99)
  glyphs.write_idx(folder / mnist.LABELS, want[1][:7])
  with pytest.raises(UserError, match='holds 20 images, but .* holds 7 labels'):
    read(folder)
  glyphs.write_idx(folder / mnist.LABELS, want[0])
  with pytest.raises(UserError, match='whole gzipped idx file of labels'):
    read(folder)
  (folder / mnist.LABELS).unlink()
  with pytest.raises(UserError, match='has no file train-labels.*learned from'):
    read(folder)


def test_digits_of_tfds_with_their_classes(tmp_path, monkeypatch):
  tfds = pytest.importorskip('tensorflow_datasets')
  pytest.importorskip('tensorflow')
  with tfds.testing.mock_data(num_examples=5):
    builder = tfds.builder('mnist')
    monkeypatch.setattr(
        tfds_originals, 'open_original', lambda name, data_dir: builder
    )
    images, labels = mnist.labelled('', data_dir=tmp_path, count=5)
  assert images.shape == (5, 28, 28) and images.dtype == np.uint8
  assert labels.shape == (5,) and labels.max() <= 9


@pytest.mark.skipif(not MNIST.is_dir(), reason='the digits are not there')
def test_a_training_run(run_main, tmp_path):
  code, output = run_main(
      '--config=configs/moving_mnist.py:laptop',
      f'--config.data.path={MNIST}',
      f'--config.data.dir={tmp_path / "data"}',
      f'--workdir={tmp_path / "run"}',
      '--config.data.train_clips=16',
      '--config.data.test_clips=8',
      '--config.data.frames=2',
      '--config.data.images=1',
      '--config.data.height=8',
      '--config.data.width=8',
      '--config.model.base_channels=4',
      '--config.model.channel_mults=(1,)',
      '--config.model.head_dim=4',
      '--config.model.emb_dim=8',
      '--config.train.steps=2',
      '--config.optim.warmup_steps=1',
      '--config.optim.decay_steps=2',
      '--config.log.every=1',
      '--config.log.eval_every=0',
      '--config.log.sample_every=0',
      '--config.checkpoint.every=2',
      '--config.eval.num_clips=8',
      '--config.sample.num_videos=8',
      '--config.sample.batch_size=8',
      '--config.sample.num_steps=2',
      tiny=False,
  )
  assert code == 0, output
  assert list((tmp_path / 'data' / 'moving_mnist_stochastic').iterdir())
  assert (tmp_path / 'run' / 'checkpoints').is_dir()
