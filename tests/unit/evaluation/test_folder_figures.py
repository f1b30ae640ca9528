import numpy as np
import pytest

from video_diffusion.evaluation import folder_figures


def by_hand(samples, train):
  """All distances at once: [n, m]."""
  difference = samples[:, None].astype(float) - train[None].astype(float)
  return np.sqrt((difference**2).mean(axis=tuple(range(2, difference.ndim))))


@pytest.mark.parametrize('block', [1, 50, 400, 2**23])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_the_nearest_is_that_of_all_distances_whatever_the_block(block, dtype):
  rng = np.random.default_rng(0)
  samples = rng.integers(0, 256, (7, 2, 4, 4, 3)).astype(dtype)
  train = rng.integers(0, 256, (23, 2, 4, 4, 3)).astype(dtype)
  want = by_hand(samples, train)
  index, distance = folder_figures.nearest(samples, train, block=block)
  np.testing.assert_array_equal(index, want.argmin(1))
  np.testing.assert_allclose(distance, want.min(1), rtol=1e-12)


def test_a_copy_is_found_at_no_distance_and_the_first_of_several():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
  train[17] = train[4]
  for block in (192, 1000, 10**6):
    index, distance = folder_figures.nearest(train[[4, 9]], train, block=block)
    assert index.tolist() == [4, 9] and distance.tolist() == [0.0, 0.0]
  # Numbers near to each other, far from zero, keep the digits of the distance.
  far = 1e6 + rng.random((3, 5))
  _, distance = folder_figures.nearest(far + 1e-3, far)
  np.testing.assert_allclose(distance, 1e-3, rtol=1e-5)


def test_training_examples_may_come_in_blocks_that_are_read_once():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 256, (20, 6), np.uint8)
  samples = rng.integers(0, 256, (9, 6), np.uint8)
  read = []

  def blocks():
    for start in (0, 3, 13):
      read.append(start)
      yield train[start : {0: 3, 3: 13, 13: 20}[start]]

  got = folder_figures.nearest(samples, blocks(), block=12)
  want = folder_figures.nearest(samples, train)
  np.testing.assert_array_equal(got, want)
  assert read == [0, 3, 13]


def test_memory_is_bounded_by_blocks(monkeypatch):
  largest = []

  class Counted(np.ndarray):

    def astype(self, *args, **kwargs):
      largest.append(self.size)
      return np.asarray(self).astype(*args, **kwargs)

  samples, train = (np.zeros((n, 10), np.uint8) for n in (30, 500))
  folder_figures.nearest(
      samples.view(Counted), train.view(Counted), block=200
  )
  # 14 is the root of 200: of distances there are no more either.
  assert max(largest) == 140


def test_what_cannot_be_compared_is_refused():
  a, b = np.zeros((2, 4, 3)), np.zeros((2, 3, 4))
  with pytest.raises(ValueError, match=r'shape \(3, 4\) cannot be compared'):
    folder_figures.nearest(a, b)
  for none in (a[:0], iter(())):
    with pytest.raises(ValueError, match='there is no training example'):
      folder_figures.nearest(a, none)
  index, distance = folder_figures.nearest(a[:0], a)
  assert not len(index) and not len(distance)


def test_figures_of_frames():
  frames = np.zeros((2, 4, 4, 3), np.uint8)
  frames[0, ..., 0], frames[1, ..., 0] = 10, 30
  got = folder_figures.figures(frames)
  assert got['colour'].tolist() == [20.0, 0.0, 0.0]
  assert got['spread'] == pytest.approx(10 / 3) and got['nearest'] is None
  train = np.zeros((5, 4, 4, 3), np.uint8)
  train[3, ..., 0] = 10
  got = folder_figures.figures(frames, train)
  # The first frame is there; the second is 20 away in one channel of three.
  assert got['nearest'] == pytest.approx(np.sqrt(20**2 / 3) / 2)
