"""Stochastic Moving-MNIST: two digits that bounce off walls at random.

This is the benchmark of Denton & Fergus 2018, "Stochastic Video Generation with
a Learned Prior", by the rule of the code that they published with it:

- Two digits of MNIST, drawn uniformly, test clips from its test digits; each
  is enlarged from 28 x 28 to 32 x 32 by the bilinear filter. The frame is
  64 x 64 and black; where digits overlap they add, up to white.
- A digit's corner is at (y, x), each in 0..31 pixels, at first uniform, as are
  the components of its velocity in -4..4 pixels a frame.
- A digit that has left 0..31 on an axis is put back to its edge, and its
  velocity is drawn anew: away from that wall uniform in 1..4, along it uniform
  in -4..4. In a corner both components lead away; there the published code
  draws one of them in -4..4, as the second wall it looks at overrides the
  first.
"""
from collections.abc import Iterator
import functools
import gzip
import hashlib
import json
import os
import pathlib

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import video
from video_diffusion.data.builders import tfds_originals
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

NAME = 'moving_mnist_stochastic'
SIZE = 64  # of a frame, before it is resized
DIGIT = 32  # of a digit
LAST = SIZE - DIGIT - 1  # the largest place of a digit's corner
SPEED = 4  # the largest component of a velocity, pixels a frame
FILES = {
    'train': 'train-images-idx3-ubyte.gz',
    'test': 't10k-images-idx3-ubyte.gz',
}
LABELS = 'train-labels-idx1-ubyte.gz'
TFDS_DIGITS = 'mnist:3.0.1'


def prepare(
    path: str | os.PathLike,
    *,
    data_dir: str | os.PathLike,
    height: int,
    width: int,
    clip_frames: int,
    train_clips: int,
    test_clips: int,
    seed: int,
) -> pathlib.Path:
  """Packs synthetic clips, unless that has been done.

  Args:
    path: folder with the FILES of MNIST; '' takes the digits of TFDS's mnist.
    data_dir: local folder of the records, and of TFDS's mnist.
    height: rows of the stored frames; a size other than 64 is made by the area
      mean.
    width: columns, as many as rows.
    clip_frames: frames of a clip.
    train_clips: number of clips of the training digits.
    test_clips: number of clips of the test digits.
    seed: clip i of a split follows from it, the split, i and the digits alone.

  Returns:
    The directory of the records. It is named by the settings and the digits,
    so that a second call returns at once.

  Raises:
    UserError: frames that are not square, or no digits.
  """
  if height != width:
    raise ArgumentError(
        Argument('height'), f' is {height} and ', Argument('width'),
        f' is {width}; Moving-MNIST is square, so they must be equal.',
    )
  files = {
      split: pathlib.Path(path) / name for split, name in FILES.items()
  } if path else {}
  for file in files.values():
    if not file.is_file():
      raise ArgumentError(
          Argument('path'), f' is {os.fspath(path)!r}, which has no file '
          f'{file.name}; it must be a folder with '
          f'{" and ".join(FILES.values())}.',
      )
  digests = {
      file.name: hashlib.sha256(file.read_bytes()).hexdigest()
      for file in files.values()
  }
  settings = dict(
      digits=digests or TFDS_DIGITS,
      height=height,
      width=width,
      clip_frames=clip_frames,
      train_clips=train_clips,
      test_clips=test_clips,
      seed=seed,
  )
  key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
  directory = packing.directory(data_dir, NAME, key)
  if directory.exists():
    return directory
  digits = (
      {split: read_idx(file) for split, file in files.items()}
      if files
      else _tfds_digits(data_dir)
  )
  counts = {'train': train_clips, 'test': test_clips}
  return packing.pack(
      {
          split: packing.Split(
              _clips(
                  digits[split],
                  split,
                  seed,
                  ids=range(first, first + counts[split]),
                  num_frames=clip_frames,
                  size=height,
              ),
              at_most=max(1, counts[split]),
          )
          for split, first in [('train', 0), ('test', train_clips)]
      },
      data_dir=data_dir,
      name=NAME,
      key=key,
      height=height,
      width=width,
      report={
          'digits': digests or TFDS_DIGITS,
          'videos': counts,
          'skipped': [],
          'sizes': {f'{SIZE} x {SIZE}': sum(counts.values())},
          'seconds': None,
      },
  )


def trajectory(
    rng: np.random.Generator, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Where a digit is, and the velocity with which it goes on from there.

  Returns:
    int [num_frames, 2] each, (y, x): places in 0..31 and velocities in -4..4.
    A place is the one before plus its velocity, put back to the edge.
  """
  places = np.empty((num_frames, 2), int)
  velocities = np.empty((num_frames, 2), int)
  place = rng.integers(LAST + 1, size=2)
  velocity = rng.integers(-SPEED, SPEED + 1, size=2)
  for t in range(num_frames):
    away = (place < 0).astype(int) - (place > LAST)
    if away.any():
      place = np.clip(place, 0, LAST)
      velocity = np.where(
          away,
          away * rng.integers(1, SPEED + 1, size=2),
          rng.integers(-SPEED, SPEED + 1, size=2),
      )
    places[t], velocities[t] = place, velocity
    place = place + velocity
  return places, velocities


def draw(
    digits: np.ndarray,
    *,
    num_frames: int,
    seed: int,
    split: str,
    index: int,
    size: int = SIZE,
) -> np.ndarray:
  """Clip `index` of a split.

  Args:
    digits: uint8 [n, 28, 28] to draw two of, white on black.
    num_frames: frames of the clip.
    seed: seed of all clips.
    split: 'train' or 'test'.
    index: number of the clip, from 0.
    size: pixels of a side.

  Returns:
    uint8 [num_frames, size, size, 3] in [0, 255], grey.
  """
  rng = np.random.default_rng((seed, list(FILES).index(split), index))
  canvas = np.zeros((num_frames, SIZE, SIZE), np.uint16)
  for number in rng.integers(len(digits), size=2):
    digit = enlarge(digits[number])
    places, _ = trajectory(rng, num_frames)
    for frame, (y, x) in zip(canvas, places, strict=True):
      frame[y : y + DIGIT, x : x + DIGIT] += digit
  grey = np.minimum(canvas, 255).astype(np.uint8)[..., None]
  if size != SIZE:
    grey = video.resize_and_crop(grey, height=size, width=size)
  return np.repeat(grey, 3, axis=-1)


def enlarge(digit: np.ndarray) -> np.ndarray:
  """uint8 [28, 28] -> uint8 [32, 32] by the bilinear filter."""
  import PIL.Image

  image = PIL.Image.fromarray(digit)
  return np.asarray(
      image.resize((DIGIT, DIGIT), PIL.Image.Resampling.BILINEAR)
  )


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


def labelled_digits(
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
    builder = tfds_originals.open_original(TFDS_DIGITS, data_dir)
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


def _tfds_digits(data_dir):
  """{split: uint8 [n, 28, 28]} of TFDS's mnist, in its own order."""
  builder = tfds_originals.open_original(TFDS_DIGITS, data_dir)
  return {
      split: np.stack([
          example['image'][..., 0]
          for example in tfds_originals.read(
              builder, split, ['image']
          ).as_numpy_iterator()
      ])
      for split in FILES
  }


def _clips(
    digits: np.ndarray,
    split: str,
    seed: int,
    *,
    ids: range,
    num_frames: int,
    size: int,
) -> Iterator[packing.Clip]:
  """Clips 0, 1, ... of a split, whose videos have these ids."""
  import tqdm

  bar = tqdm.tqdm(ids, desc=f'drawing {NAME} {split}', unit='clip')
  for index, video_id in enumerate(bar):
    yield packing.Clip(
        functools.partial(
            draw,
            digits,
            num_frames=num_frames,
            seed=seed,
            split=split,
            index=index,
            size=size,
        ),
        video_id,
        f'{split}[{index}]',
    )
