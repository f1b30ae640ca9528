"""Ids by stateless permutation, joint video + image examples, batches.

The data position is one number, the step. Which clip, which window and which
images an example holds follow from (seed, global index of the example) alone,
so a run resumes at any step at once, and does not depend on the host count.
"""
import collections
from collections.abc import Iterator, Sequence
import concurrent.futures
import functools
import importlib.util
import multiprocessing
import os
import threading
from typing import Protocol

import numpy as np

LOADERS = ('auto', 'tf', 'threads', 'processes')
_FEISTEL_ROUNDS = 4


class Source(Protocol):
  """Clips by id; what every data set offers."""

  num_examples: int
  num_groups: int  # videos that the clips were cut from

  def example(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> dict[str, np.ndarray]:
    """A random window of a clip, by `window`.

    Returns:
      'video' uint8 [num_frames, height, width, 3]; where the data set has them,
      'labels' int32 and 'caption' str.
    """

  def group(self, index: int) -> int:
    """The id of the video that clip `index` was cut from."""


def window(
    rng: np.random.Generator,
    length: int,
    num_frames: int,
    frameskips: Sequence[int] = (1,),
) -> np.ndarray:
  """Which frames of a clip a random window takes, int64 [num_frames].

  The distance of its frames is drawn uniformly from those of `frameskips` at
  which the window fits, its start then from all places where it does.

  Raises:
    ValueError: the window fits at none.
  """
  fitting = [
      skip for skip in frameskips if (num_frames - 1) * skip < length
  ]
  if not fitting:
    raise ValueError(
        f'a clip has {length} frames, fewer than the '
        f'{(num_frames - 1) * min(frameskips) + 1} wanted.'
    )
  # A single choice draws nothing.
  skip = fitting[rng.integers(len(fitting))] if fitting[1:] else fitting[0]
  start = rng.integers(length - (num_frames - 1) * skip)
  return start + skip * np.arange(num_frames)


def _mix(value: int, key: int) -> int:
  """A 64-bit hash (the finaliser of SplitMix64)."""
  value = (value + 0x9E3779B97F4A7C15 * (key + 1)) & (2**64 - 1)
  value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
  value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
  return value ^ (value >> 31)


def permute(position: int, *, size: int, key: int) -> int:
  """The id at `position` of the permutation of range(size) named by `key`.

  A Feistel network over the next even power of two, walked until it lands
  inside the range: a bijection with no table, whatever the size.
  """
  half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
  mask = (1 << half_bits) - 1
  value = position
  while True:
    left, right = value >> half_bits, value & mask
    for i in range(_FEISTEL_ROUNDS):
      left, right = right, left ^ (_mix(right, _mix(key, i)) & mask)
    value = (left << half_bits) | right
    if value < size:
      return value


def _draw_other(source: Source, index: int, rng: np.random.Generator) -> int:
  """A uniformly random clip of another video than clip `index` is from.

  Of another clip where there is one video alone; the same where there is one
  clip alone.
  """
  if source.num_examples == 1:
    return index
  while True:
    other = int(rng.integers(source.num_examples))
    if other == index:
      continue
    if source.num_groups == 1 or source.group(other) != source.group(index):
      return other


def joint_example(
    source: Source,
    position: int,
    *,
    num_frames: int,
    num_images: int,
    seed: int,
    shuffle: bool = True,
    flip: bool = False,
) -> dict[str, np.ndarray]:
  """The example at a global position: T video frames, then K images.

  Args:
    source: clips by id.
    position: step * batch size + row, counted over all hosts.
    num_frames: T.
    num_images: K single frames of random other videos (paper section 3.1).
    seed: of order and windows.
    shuffle: a new permutation each epoch; otherwise clips in order.
    flip: mirror the video, and each image, left to right half of the time.

  Returns:
    {'video': uint8 [T + K, height, width, 3]} and, where the source has
    labels, 'labels': int32 [1 + K, slots].
  """
  epoch, offset = divmod(position, source.num_examples)
  rng = np.random.default_rng((seed, position))
  index = offset
  if shuffle:
    index = permute(offset, size=source.num_examples, key=_mix(epoch, seed))
  parts = [source.example(index, rng, num_frames)]
  for _ in range(num_images):
    other = _draw_other(source, index, rng)
    parts.append(source.example(other, rng, 1))
  videos = [part['video'] for part in parts]
  if flip:
    videos = [v[:, :, ::-1] if rng.random() < 0.5 else v for v in videos]
  example = {'video': np.concatenate(videos)}
  if 'labels' in parts[0]:
    example['labels'] = np.stack([part['labels'].ravel() for part in parts])
  return example


def batches(
    source: Source,
    *,
    batch_size: int,
    num_frames: int,
    num_images: int = 0,
    seed: int = 0,
    start: int = 0,
    stop: int,
    shuffle: bool = True,
    flip: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    loader: str = 'auto',
) -> Iterator[dict[str, np.ndarray]]:
  """This host's slice of the global batches of steps start .. stop - 1.

  Args:
    source: clips by id.
    batch_size: global, divisible by process_count.
    num_frames: T.
    num_images: K.
    seed: of order and windows.
    start: first step.
    stop: one past the last step.
    shuffle: see `joint_example`.
    flip: see `joint_example`.
    process_index: of this host.
    process_count: hosts.
    loader: 'tf' is tf.data; 'threads' needs no TensorFlow; 'processes' neither,
      and pays where Python draws the clips; 'auto' takes tf.data where it is
      installed, else threads. All yield the same batches bit for bit.

  Yields:
    {'video': uint8 [local batch, T + K, height, width, 3]} and, where the
    source has labels, 'labels': int32 [local batch, 1 + K, slots].
  """
  if loader not in LOADERS:
    raise ValueError(f'data.loader is {loader!r}; it must be one of {LOADERS}.')
  local = batch_size // process_count
  if local * process_count != batch_size:
    raise ValueError(
        f'batch_size {batch_size} does not divide by {process_count} hosts.'
    )

  if loader == 'auto':
    found = importlib.util.find_spec('tensorflow') is not None
    loader = 'tf' if found else 'threads'
  # Picklable, for processes.
  example = functools.partial(
      _local_example,
      source=source,
      batch_size=batch_size,
      local=local,
      first_row=process_index * local,
      num_frames=num_frames,
      num_images=num_images,
      seed=seed,
      shuffle=shuffle,
      flip=flip,
  )
  first, last = start * local, stop * local
  if loader == 'tf':
    return _tf_batches(example, local, first, last)
  return _pool_batches(loader, example, local, first, last)


def _local_example(n, *, batch_size, local, first_row, **options):
  """The n-th example that a host has seen since step 0."""
  step, row = divmod(int(n), local)
  position = step * batch_size + first_row + row
  return joint_example(position=position, **options)


def _pool_batches(kind, example, local, first, last):
  """Examples first .. last - 1 by a pool of workers, two batches ahead."""
  workers = len(os.sched_getaffinity(0)) if hasattr(
      os, 'sched_getaffinity'
  ) else os.cpu_count()
  if kind == 'threads':
    make_pool = concurrent.futures.ThreadPoolExecutor
  else:
    # Not forked: the threads of JAX would be copied in any state.
    make_pool = functools.partial(
        concurrent.futures.ProcessPoolExecutor,
        mp_context=multiprocessing.get_context('spawn'),
        initializer=_end_with_parent,
    )
  with make_pool(workers) as pool:
    ahead = collections.deque()
    try:
      for n in range(first, last):
        ahead.append(pool.submit(example, n))
        if len(ahead) == 3 * local:
          yield _stack([ahead.popleft().result() for _ in range(local)])
      while ahead:
        yield _stack([ahead.popleft().result() for _ in range(local)])
    finally:
      for future in ahead:
        future.cancel()


def _end_with_parent():
  """Ends a worker when its parent has died, however that was."""

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _stack(examples):
  return {
      name: np.stack([example[name] for example in examples])
      for name in examples[0]
  }


def _tf_batches(example, local, first, last):
  """The same through tf.data: parallel map, batch, prefetch."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')  # the GPU belongs to JAX
  spec = example(first)
  names = sorted(spec)
  types = [spec[name].dtype for name in names]

  def load(n):
    values = tf.numpy_function(
        lambda n: [example(n)[name] for name in names], [n], types
    )
    for name, value in zip(names, values, strict=True):
      value.set_shape(spec[name].shape)
    return dict(zip(names, values, strict=True))

  data = tf.data.Dataset.range(first, last)
  data = data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
  data = data.batch(local, drop_remainder=True)
  return data.prefetch(2).as_numpy_iterator()
