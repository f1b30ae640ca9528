"""Makes batches: the order of examples, the images beside them, the loader.

The data position is one number, the step. Which source, which window of its
videos and which images an example holds follow from (seed, global index of the
example) alone, so a run resumes at any step at once, and does not depend on the
host count.
"""
from collections.abc import Callable, Iterator, Sequence, Set
import functools
import importlib.util

import numpy as np

from video_diffusion.data import loaders
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shuffle as shuffle_lib
from video_diffusion.data import windows
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

LOADERS = ('auto', 'tf', 'threads', 'processes')

# Captions -> arrays by name, a row for each caption; picklable.
Encode = Callable[[Sequence[str]], dict[str, np.ndarray]]


def _draw_image(
    mixture: mixture_lib.Mixture,
    source: mixture_lib.Source,
    index: int,
    video: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
  """A random frame, of another video than `video`, which example `index` shows.

  The source by weight, then an example of it uniformly. If there is but one
  video to draw from, the frame is one of another example, and if there is but
  one example, it is one of that.
  """
  images = mixture.images
  only = all(other == source for other in images.sources)
  while True:
    other = images.draw(rng)
    if other != source:
      return other.example(int(rng.integers(other.num_examples)), rng, 1)
    if only or source.num_videos > 1:
      return source.read(*_draw_other(source, index, video, rng))


def _draw_other(
    source: mixture_lib.Source,
    index: int,
    video: int,
    rng: np.random.Generator,
) -> windows.Window:
  """A random frame of another video, or else example; see `_draw_image`."""
  if source.num_examples == 1:
    return source.window(index, rng, 1)
  while True:
    other = int(rng.integers(source.num_examples))
    if source.num_videos == 1:
      if other != index:
        return source.window(other, rng, 1)
    elif source.video(other) != video:  # else no frame is drawn in vain
      window = source.window(other, rng, 1)
      if window.video != video:
        return window


def example_at(
    mixture: mixture_lib.Mixture,
    position: int,
    *,
    seed: int,
    shuffle: bool = True,
) -> tuple[int, int]:
  """Returns (source, example of its epoch) at a global position."""
  i, n = mixture.place(position)
  size = mixture.sources[i].num_examples
  epoch, index = divmod(n, size)
  if shuffle:
    # Seeds are below 2**31: no two sources share a key.
    index = shuffle_lib.permute(
        index, size=size, key=shuffle_lib.mix(epoch, seed + (i << 32))
    )
  return i, index


def window_at(
    mixture: mixture_lib.Mixture,
    position: int,
    *,
    num_frames: int,
    seed: int,
    shuffle: bool = True,
    frameskips: Sequence[int] = (1,),
) -> tuple[int, int, windows.Window, np.random.Generator]:
  """Returns what the example at a global position shows.

  Args:
    mixture: videos by number.
    position: see `joint_example`.
    num_frames: see `joint_example`.
    seed: see `joint_example`.
    shuffle: see `joint_example`.
    frameskips: see `joint_example`.

  Returns:
    (source, example of its epoch, window, generator that goes on from there).
  """
  i, index = example_at(mixture, position, seed=seed, shuffle=shuffle)
  rng = np.random.default_rng((seed, position))
  window = mixture.sources[i].window(index, rng, num_frames, frameskips)
  return i, index, window, rng


def joint_example(
    mixture: mixture_lib.Mixture,
    position: int,
    *,
    num_frames: int,
    num_images: int,
    seed: int,
    fields: Set[str] = frozenset(),
    shuffle: bool = True,
    flip: bool = False,
    frameskips: Sequence[int] = (1,),
    encode: Encode | None = None,
) -> dict[str, np.ndarray]:
  """Returns the example at a global position: T video frames, then K images.

  Args:
    mixture: videos by number.
    position: step * batch size + row, counted over all hosts.
    num_frames: T.
    num_images: K single frames of random other videos (paper section 3.1).
    seed: seed of the order and of the windows.
    fields: 'labels', 'caption' and further arrays, as far as all sources have
      them; see `mixture.shared_fields`.
    shuffle: a new permutation each epoch; otherwise examples in order.
    flip: mirror the video, and each image, left to right half of the time.
    frameskips: distances of the frames of the video; see
      `mixture.Source.window`.
    encode: makes tokens of the captions.

  Returns:
    {'video': uint8 [T + K, height, width, 3]} and, by `fields`, 'labels': int32
    [1 + K, slots], further arrays, flat as [1 + K, n], and 'captions': UTF-8
    bytes, object [1 + K]. With `encode` what it makes of the captions takes the
    place of labels and further arrays.
  """
  i, index, window, rng = window_at(
      mixture, position, num_frames=num_frames, seed=seed, shuffle=shuffle,
      frameskips=frameskips,
  )
  source = mixture.sources[i]
  parts = [source.read(*window)]
  for _ in range(num_images):
    parts.append(_draw_image(mixture, source, index, window.video, rng))
  videos = [part['video'] for part in parts]
  if flip:
    videos = [v[:, :, ::-1] if rng.random() < 0.5 else v for v in videos]
  example = {'video': np.concatenate(videos)}
  if encode is None:
    for name in fields - {'caption'}:
      example[name] = np.stack([np.ravel(part[name]) for part in parts])
  if 'caption' in fields:
    captions = [part['caption'] for part in parts]
    example['captions'] = np.array([c.encode() for c in captions], object)
    if encode is not None:
      example |= encode(captions)
  return example


def batches(
    source: mixture_lib.Source | mixture_lib.Mixture,
    *,
    batch_size: int,
    num_frames: int,
    num_images: int = 0,
    seed: int = 0,
    start: int = 0,
    stop: int,
    shuffle: bool = True,
    flip: bool = False,
    frameskips: Sequence[int] = (1,),
    process_index: int = 0,
    process_count: int = 1,
    loader: str = 'auto',
    encode: Encode | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields this host's rows of the global batches of steps start .. stop - 1.

  Args:
    source: videos by number, or a mixture of several such.
    batch_size: global, divisible by process_count.
    num_frames: T.
    num_images: K.
    seed: seed of the order and of the windows.
    start: first step.
    stop: one past the last step.
    shuffle: see `joint_example`.
    flip: see `joint_example`.
    frameskips: see `joint_example`.
    process_index: number of this host.
    process_count: number of hosts.
    loader: 'tf' is tf.data; 'threads' needs no TensorFlow; 'processes' neither,
      and pays where Python draws the clips; 'auto' takes tf.data where it is
      installed, else threads. All yield the same batches bit for bit.
    encode: makes tokens of captions, as the classes of `text.tokens` do; every
      source must have captions.

  Yields:
    {'video': uint8 [local batch, T + K, height, width, 3]}; where every source
    has labels, of the same `label_sizes`, 'labels': int32 [local batch, 1 + K,
    slots], and likewise any further array; where every source has captions,
    'captions': UTF-8 bytes, object [local batch, 1 + K], one for the clip and
    one for each image. With `encode` its 'tokens' and 'mask', [local batch, 1 +
    K, ...], in place of 'labels' and further arrays.
  """
  if loader not in LOADERS:
    raise ArgumentError(
        Argument('loader'), f' is {loader!r}; it must be one of {LOADERS}.'
    )
  local = batch_size // process_count
  if local * process_count != batch_size:
    raise ArgumentError(
        Argument('batch_size'),
        f' {batch_size} does not divide by {process_count} hosts.',
    )

  if loader == 'auto':
    found = importlib.util.find_spec('tensorflow') is not None
    loader = 'tf' if found else 'threads'
  mixture = mixture_lib.as_mixture(source)
  # Picklable, for processes.
  example = functools.partial(
      _local_example,
      mixture=mixture,
      fields=mixture_lib.shared_fields(mixture),
      batch_size=batch_size,
      local=local,
      first_row=process_index * local,
      num_frames=num_frames,
      num_images=num_images,
      seed=seed,
      shuffle=shuffle,
      flip=flip,
      frameskips=tuple(frameskips),
      encode=encode,
  )
  first, last = start * local, stop * local
  if loader == 'tf':
    return loaders.tf_batches(example, local, first, last)
  return loaders.pool_batches(loader, example, local, first, last)


def _local_example(n, *, batch_size, local, first_row, **options):
  """The n-th example that a host has seen since step 0."""
  step, row = divmod(int(n), local)
  position = step * batch_size + first_row + row
  return joint_example(position=position, **options)
