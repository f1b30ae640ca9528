"""MNIST's digits: its files, or those of TFDS."""
import gzip
import os
import pathlib

import numpy as np

from video_diffusion.data.builders import tfds_originals
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

FILES = {
    'train': 'train-images-idx3-ubyte.gz',
    'test': 't10k-images-idx3-ubyte.gz',
}
LABELS = 'train-labels-idx1-ubyte.gz'
TFDS_NAME = 'mnist:3.0.1'


def read_idx(file: str | os.PathLike, *, axes: int = 3) -> np.ndarray:
  """The array of a gzipped idx file.

  Args:
    file: local path.
    axes: number of axes: 3 of images, [n, rows, columns], 1 of labels, [n].

  Returns:
    uint8, of so many axes.

  Raises:
    UserError: it is something else, or cut short.
  """
  try:
    content = gzip.decompress(pathlib.Path(file).read_bytes())
    header = 4 * (1 + axes)
    magic, *shape = np.frombuffer(content[:header], '>i4').tolist()
    if magic != 0x800 + axes:  # bytes, so many axes
      raise UserError(f'magic number {magic:#x}')
    return np.frombuffer(content[header:], np.uint8).reshape(shape)
  except (OSError, EOFError, ValueError) as error:
    what = 'images' if axes == 3 else 'labels'
    raise UserError(
        f'{os.fspath(file)} is not a whole gzipped idx file of {what} '
        f'({error}).'
    ) from error


def labelled(
    path: str | os.PathLike, *, data_dir: str | os.PathLike, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Training digits of MNIST with their classes.

  Args:
    path: folder with MNIST's images and labels; '' takes the digits of TFDS.
    data_dir: local folder of TFDS's mnist.
    count: the number of digits at most.

  Returns:
    uint8 [n, 28, 28], white on black, and their classes in 0 .. 9, uint8 [n].

  Raises:
    UserError: there are no such files, or they are damaged.
  """
  if not path:
    builder = tfds_originals.open_original(TFDS_NAME, data_dir)
    examples = list(tfds_originals.read(
        builder, f'train[:{count}]', ['image', 'label']
    ).as_numpy_iterator())
    images = np.stack([example['image'][..., 0] for example in examples])
    return images, np.array([e['label'] for e in examples], np.uint8)
  files = [pathlib.Path(path) / name for name in (FILES['train'], LABELS)]
  for file in files:
    if not file.is_file():
      raise ArgumentError(
          Argument('path'), f' is {os.fspath(path)!r}, which has no file '
          f'{file.name}; the classes of digits are learned from '
          f'{" and ".join(each.name for each in files)}.',
      )
  images, labels = read_idx(files[0]), read_idx(files[1], axes=1)
  if len(images) != len(labels):
    raise UserError(
        f'{files[0]} holds {len(images)} images, but {files[1]} holds '
        f'{len(labels)} labels; they must be of one data set.'
    )
  return images[:count], labels[:count]


def of_tfds(data_dir: str | os.PathLike) -> dict[str, np.ndarray]:
  """{split: uint8 [n, 28, 28]} of TFDS's mnist, in its own order.

  Args:
    data_dir: local folder of TFDS's mnist, which is downloaded if need be.
  """
  builder = tfds_originals.open_original(TFDS_NAME, data_dir)
  return {
      split: np.stack([
          example['image'][..., 0]
          for example in tfds_originals.read(
              builder, split, ['image']
          ).as_numpy_iterator()
      ])
      for split in FILES
  }
