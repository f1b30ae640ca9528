"""A narrow C3D whose weights a rule makes, as the released files would."""
import zlib

import numpy as np

from video_diffusion.models import c3d

WIDTHS = (4, 5, 6, 7, 8, 9, 10, 11)
HIDDEN, CLASSES = 16, 12


def weights():
  """Arrays by Chainer's names: numpy.random.RandomState(crc32(name))."""
  shapes, width = {}, 3
  for name, new in zip(c3d.CONVOLUTIONS, WIDTHS, strict=True):
    shapes[name], width = (new, width, 3, 3, 3), new
  shapes['fc6'] = (HIDDEN, width * 4 * 4)
  shapes['fc7'], shapes['fc8'] = (HIDDEN, HIDDEN), (CLASSES, HIDDEN)
  arrays = {}
  for name, shape in shapes.items():
    for part in ('W', 'b'):
      r = np.random.RandomState(zlib.crc32(f'{name}/{part}'.encode()))
      if part == 'W':
        value = r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
      else:
        value = 0.1 * r.standard_normal(shape[0])
      arrays[f'{name}/{part}'] = value.astype(np.float32)
  return arrays


def mean():
  """float32 [3, 16, 128, 171] of pixels about 100."""
  r = np.random.RandomState(zlib.crc32(b'mean'))
  return r.uniform(80, 120, c3d.MEAN_SHAPE).astype(np.float32)


def clips():
  """uint8 [2, 16, 48, 64, 3]: shades that no two places or colours share."""
  r = np.random.RandomState(zlib.crc32(b'clips'))
  small = r.uniform(0, 255, (2, 16, 6, 8, 3)).repeat(8, 2).repeat(8, 3)
  noise = r.uniform(-20, 20, small.shape)
  return np.clip(small + noise, 0, 255).astype(np.uint8)
