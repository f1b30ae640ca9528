"""The reader of digits on digits of seven segments, of known form."""
import numpy as np
import pytest

from tests.support import glyphs
from video_diffusion.metrics import digit_reader


@pytest.fixture(name='reader', scope='module')
def reader_of_glyphs():
  return digit_reader.DigitReader(*glyphs.glyphs(300))


@pytest.mark.parametrize('scale', [1, 2])
def test_digits_are_read_anywhere_and_of_any_size(reader, scale):
  images, labels = glyphs.glyphs(100, seed=1)
  large = images.repeat(scale, 1).repeat(scale, 2)
  frames = np.zeros((100, 80, 70), np.float32)
  rng = np.random.default_rng(0)
  for frame, image in zip(frames, large, strict=True):
    y, x = rng.integers(0, 12, 2)
    frame[y : y + len(image), x : x + len(image)] = image
  assert (reader(frames, 28 * scale) == labels).mean() > 0.98
  # Their brightness says nothing.
  np.testing.assert_array_equal(
      reader(frames, 28 * scale), reader(frames / 2, 28 * scale)
  )


def test_what_it_learns_follows_from_the_seed(reader):
  images, labels = glyphs.glyphs(300)
  pixels = glyphs.glyphs(20, seed=2)[0].astype(np.float32)
  again = digit_reader.DigitReader(images, labels)
  np.testing.assert_array_equal(again(pixels, 28), reader(pixels, 28))
  features = reader._features(pixels, 28)
  np.testing.assert_array_equal(again._features(pixels, 28), features)
  other = digit_reader.DigitReader(images[:30], labels[:30], seed=1)
  assert (other._features(pixels, 28) != features).any()


def test_nothing_to_read(reader):
  assert reader(np.zeros((0, 64, 64), np.float32), 32).shape == (0,)
  assert reader(np.zeros((1, 64, 64), np.float32), 32).shape == (1,)


def test_slanted_bars_are_made_upright():
  bars = np.zeros((2, 40, 48), np.float32)
  bars[0, 5:25, 20:24] = 1
  for y in range(20):
    bars[1, 12 + y, 30 - y // 2 : 34 - y // 2] = 1
  straight, slanted = digit_reader.upright(bars, 28)
  assert straight.shape == (28, 28)
  # Both are in the middle, and as wide in all rows.
  np.testing.assert_array_equal(straight[4:24, 12:16], 1)
  assert straight.sum() == 80
  assert np.abs(slanted - straight).mean() < 0.03
  assert np.abs(bars[1, 12:32, 18:46] - bars[0, 5:25, 8:36]).mean() > 0.1


def test_edges_are_counted_by_their_direction():
  image = np.zeros((3, 28, 28), np.float32)
  image[0, 8:20, 8:20] = 1
  image[1] = 0.5 * image[0]
  found = digit_reader.edge_directions(image)
  assert found.shape == (3, 8 * 5 * 5)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0])
  np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
  right, left = found[0].reshape(8, 5, 5)[[0, 4]]
  # Light begins on the left of a square and ends on its right.
  assert right[2, 1] > 0 and right[2, 3] == 0
  np.testing.assert_allclose(right, left[:, ::-1], atol=1e-6)
