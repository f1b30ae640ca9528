"""Loaders make examples 0, 1, 2, ... ahead of the loop that takes them.

All loaders yield the same batches, bit for bit. Text comes as arrays of dtype
object that hold bytes: tf.data returns strings like this, and np.stack keeps
them.
"""
import atexit
import collections
from collections.abc import Callable, Iterator
import concurrent.futures
import functools
import multiprocessing
import os
import signal
import threading
import weakref

import numpy as np

from video_diffusion.data import processes

Batches = Iterator[dict[str, np.ndarray]]
# Longer than the loop takes to save and end after SIGTERM.
LINGER_SECONDS = 60.0

_example: Callable  # what a worker makes examples by


def pool_batches(
    kind: str, example: Callable, local: int, first: int, last: int
) -> Batches:
  """Yields batches of examples first .. last - 1, made by a pool of workers.

  Args:
    kind: 'threads' or 'processes'.
    example: number -> arrays by name; picklable, for processes. Each process
      is sent it once: it may hold a tokenizer of half a megabyte.
    local: examples of a batch.
    first: number of the first example.
    last: one past that of the last.
  """
  if kind == 'threads':
    make_pool = concurrent.futures.ThreadPoolExecutor
    submit = lambda pool, n: pool.submit(example, n)
  else:
    # Not forked: the threads of JAX would be copied in any state.
    make_pool = functools.partial(
        concurrent.futures.ProcessPoolExecutor,
        mp_context=multiprocessing.get_context('spawn'),
        initializer=_start_worker,
        initargs=(example,),
    )
    submit = _submit
  with make_pool(processes.usable_cores()) as pool:
    ahead = collections.deque()
    try:
      for n in range(first, last):
        ahead.append(submit(pool, n))
        if len(ahead) == 3 * local:
          yield _stack([ahead.popleft().result() for _ in range(local)])
      while ahead:
        yield _stack([ahead.popleft().result() for _ in range(local)])
    finally:
      for future in ahead:
        future.cancel()


def _submit(pool, n):
  """Submits, which may spawn a worker."""
  with processes.born_deaf():
    return pool.submit(_make, n)


def _make(n):
  """Example n, in a worker."""
  return _example(n)


def _start_worker(example):
  """Keeps `example`, and lets a worker end with its parent, not before.

  It does so however the parent ends.
  Schedulers and Ctrl-C signal the whole group of processes. The parent still
  wants batches then, until it has saved.
  """
  global _example
  _example = example
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def linger(*_):
    # Not for ever: a pool that has lost a worker ends the others by SIGTERM.
    timer = threading.Timer(LINGER_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()

  signal.signal(signal.SIGTERM, linger)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, processes.GROUP_SIGNALS)
  processes.end_with_parent()


def _stack(examples):
  return {
      name: np.stack([example[name] for example in examples])
      for name in examples[0]
  }


def tf_batches(
    example: Callable, local: int, first: int, last: int
) -> Batches:
  """Yields the same batches as `pool_batches`, made by tf.data."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')  # the GPU belongs to JAX
  spec = example(first)
  names = sorted(spec)
  types = [
      tf.string if spec[name].dtype == object else spec[name].dtype
      for name in names
  ]

  failed = []

  def numbered(n):
    try:
      found = example(n)
    except Exception as error:
      failed.append(error)
      raise
    return [found[name] for name in names]

  def load(n):
    values = tf.numpy_function(numbered, [n], types)
    for name, value in zip(names, values, strict=True):
      value.set_shape(spec[name].shape)
    return dict(zip(names, values, strict=True))

  data = tf.data.Dataset.range(first, last)
  data = data.map(
      load, num_parallel_calls=processes.usable_cores(), deterministic=True
  )
  data = data.batch(local, drop_remainder=True)
  # The thread that tunes may sleep for a minute, and closing the iterator can
  # wait for it: a run would end so much later.
  options = tf.data.Options()
  options.autotune.enabled = False
  data = data.with_options(options)
  batches = _iterate(data.prefetch(2), failed)
  _open.add(batches)
  return batches


_open = weakref.WeakSet()


def _iterate(data, failed):
  try:
    yield from data.as_numpy_iterator()
  except Exception:
    # tf.data has its own words for it, a traceback among them.
    if failed:
      raise failed[0] from None
    raise


@atexit.register
def _close():
  """Ends tf.data's threads while they can still have Python's lock.

  An uncaught error keeps its iterators until the interpreter is gone; waiting
  then for threads that call Python, the process would hang instead of ending.
  """
  for batches in list(_open):
    batches.close()
