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
import hashlib
import json
import os
import pathlib

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import video
from video_diffusion.data.builders import mnist
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

NAME = 'moving_mnist_stochastic'
SIZE = 64  # of a frame, before it is resized
DIGIT = 32  # of a digit
LAST = SIZE - DIGIT - 1  # the largest place of a digit's corner
SPEED = 4  # the largest component of a velocity, pixels a frame


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
    path: folder with `mnist.FILES`; '' takes the digits of TFDS's mnist.
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
      split: pathlib.Path(path) / name for split, name in mnist.FILES.items()
  } if path else {}
  for file in files.values():
    if not file.is_file():
      raise ArgumentError(
          Argument('path'), f' is {os.fspath(path)!r}, which has no file '
          f'{file.name}; it must be a folder with '
          f'{" and ".join(mnist.FILES.values())}.',
      )
  digests = {
      file.name: hashlib.sha256(file.read_bytes()).hexdigest()
      for file in files.values()
  }
  settings = dict(
      digits=digests or mnist.TFDS_NAME,
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
      {split: mnist.read_idx(file) for split, file in files.items()}
      if files
      else mnist.of_tfds(data_dir)
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
          'digits': digests or mnist.TFDS_NAME,
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
  rng = np.random.default_rng((seed, list(mnist.FILES).index(split), index))
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
