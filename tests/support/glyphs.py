"""Digits of seven segments, and MNIST's files with them."""
import gzip

import numpy as np

from video_diffusion.data.builders import mnist

# Rows and columns of the segments within 28 x 28, and who has them.
_SEGMENTS = (
    (slice(4, 7), slice(8, 20)), (slice(12, 15), slice(8, 20)),
    (slice(21, 24), slice(8, 20)), (slice(4, 14), slice(8, 11)),
    (slice(4, 14), slice(17, 20)), (slice(13, 24), slice(8, 11)),
    (slice(13, 24), slice(17, 20)),
)
_SHOWN = ('023456', '46', '01245', '01246', '1346', '01236', '012356', '046',
          '0123456', '012346')


def glyphs(n, seed=0):
  """(uint8 [n, 28, 28], uint8 [n]): slanted digits of any brightness."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 10, n).astype(np.uint8)
  images = np.zeros((n, 28, 28), np.uint8)
  for image, label in zip(images, labels, strict=True):
    level, slant = rng.integers(150, 256), rng.uniform(-0.2, 0.2)
    for segment in _SHOWN[label]:
      image[_SEGMENTS[int(segment)]] = level
    for y in range(28):
      image[y] = np.roll(image[y], round(slant * (14 - y)))
  return images, labels


def write_idx(file, array):
  """Writes uint8 [n, ...] the way that MNIST comes."""
  header = np.array([0x800 + array.ndim, *array.shape], '>i4').tobytes()
  file.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def write_mnist(folder, n=300):
  """Writes MNIST's images and training labels, of `n` glyphs each."""
  for seed, name in enumerate(mnist.FILES.values()):
    images, labels = glyphs(n, seed)
    write_idx(folder / name, images)
    if not seed:
      write_idx(folder / mnist.LABELS, labels)
  return folder
