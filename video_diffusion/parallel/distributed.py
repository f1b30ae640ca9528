"""One program over several processes: who takes part, who speaks for all."""
from collections.abc import Callable, Iterator
import contextlib
import glob
import importlib.util
import itertools
import os
import time

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import locks

SENTENCE_BYTES = 2000  # of an error that all processes raise
# How long a process waits for the others, which may still be compiling.
WAIT_SECONDS = 3600
_barriers = itertools.count()  # no two share a name


def initialize(
    coordinator: str = '',
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
  """Joins the other processes, before any device is used.

  Cloud TPU VMs, GKE and SLURM say by themselves who takes part; anywhere else
  the three arguments do. One process without them stays alone.

  Args:
    coordinator: 'HOST:PORT' of process 0, the same in every process.
    num_processes: in all.
    process_id: of this one, from 0.

  Raises:
    ArgumentError: the arguments do not fit together.
  """
  given = (bool(coordinator), num_processes is not None, process_id is not None)
  if any(given) and not all(given):
    raise ArgumentError(
        Argument('coordinator'), ', ', Argument('num_processes'), ' and ',
        Argument('process_id'), ' belong together; pass all three, or none on '
        'Cloud TPU, GKE and SLURM.',
    )
  if coordinator:
    host, _, port = coordinator.rpartition(':')
    if not (host and port.isdigit()):
      raise ArgumentError(
          Argument('coordinator'),
          f' is {coordinator!r}; it must be HOST:PORT.',
      )
    if not 0 <= process_id < num_processes:
      raise ArgumentError(
          Argument('process_id'), f' is {process_id}; it must be from 0 to '
          'below ', Argument('num_processes'), f', {num_processes}.',
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif on_cluster():
    jax.distributed.initialize()


def on_cluster() -> bool:
  """Whether the environment names a cluster that JAX can read."""
  if int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1:
    return True
  if 'tpu' not in os.environ.get('JAX_PLATFORMS', 'tpu'):
    return False
  tpu = glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*')
  return bool(tpu) and importlib.util.find_spec('libtpu') is not None


def check(processes: int) -> None:
  """Reports the devices, and refuses to work in a smaller group than meant.

  Args:
    processes: how many there must be; 0 takes what there is.

  Raises:
    ArgumentError: there are not so many.
  """
  logging.info(
      'Process %d of %d, %d of %d devices (%s).',
      jax.process_index(),
      jax.process_count(),
      jax.local_device_count(),
      jax.device_count(),
      jax.devices()[0].device_kind,
  )
  if processes and jax.process_count() != processes:
    raise ArgumentError(
        Argument('processes'), f' is {processes}, but this process finds '
        f'{jax.process_count()}; start {processes} that find each other (on '
        'Cloud TPU, GKE or SLURM, or by ', Argument('coordinator'), '), or set '
        'it to 0.',
    )


def by_first(fn: Callable[[], bool | None]) -> bool:
  """Calls fn in process 0 alone, and returns its truth in every process.

  All processes must call this at the same place of the program.

  Raises:
    UserError: fn raised it, or an OSError, in process 0; in every process.
  """
  if jax.process_count() == 1:
    return bool(fn())
  found, error = False, None
  if jax.process_index() == 0:
    try:
      found = bool(fn())
    except (UserError, OSError) as caught:
      error = caught
  # A path in it may have bytes that are not UTF-8.
  text = str(error or '').encode(errors='replace')[:SENTENCE_BYTES]
  message = np.zeros(2 + SENTENCE_BYTES, np.uint8)
  message[:2] = found, error is not None
  message[2 : 2 + len(text)] = np.frombuffer(text, np.uint8)
  message = multihost_utils.broadcast_one_to_all(message)
  if error is not None:
    raise error
  if message[1]:
    text = message[2:].tobytes().rstrip(b'\0')
    raise UserError(text.decode(errors='ignore'))
  return bool(message[0])


def wait_for_all(name: str) -> None:
  """Waits until every process is here; one process alone does not wait.

  It does so by the coordination service, not by a collective. Processes take
  differently long to compile a program, and a collective fails where another
  process comes later than its own limit: on a busy machine one process took
  30 s longer, and the other gave up with 'Gloo context initialization failed
  ... GetKeyValue() timed out'.

  Args:
    name: says in errors where it was waited.
  """
  # Imported here: Orbax takes seconds, and one process does not need it.
  if jax.process_count() == 1:
    return
  from orbax.checkpoint import multihost

  multihost.get_barrier_sync_fn()(
      key=f'video_diffusion_{name}_{next(_barriers)}',
      timeout_ms=WAIT_SECONDS * 1000,
  )


def compiled_together(jitted: Callable, name: str) -> Callable:
  """The same function, which is compiled by all processes before any runs it.

  Args:
    jitted: a jitted function, always called with the same shapes.
    name: see `wait_for_all`.
  """
  compiled = None

  def call(*args):
    nonlocal compiled
    if compiled is None:
      compiled = jitted.lower(*args).compile()
      wait_for_all(name)
    return compiled(*args)

  return call


@contextlib.contextmanager
def holding(lock: locks.Lock) -> Iterator[Callable[[], None]]:
  """Holds a folder for all processes; process 0 has the mark in it.

  Yields:
    A function that raises UserError in every process where another has taken
    the folder over; all must call it.

  Raises:
    UserError: the folder is in use; in every process.
    OSError: it cannot be written; UserError in processes but the first.
  """
  # Not by `acquire`: it may wait longer than a collective does for process 0.
  while not by_first(lock.attempt):
    time.sleep(locks.PERIOD / 10)
  try:
    yield lambda: by_first(lock.check)
  finally:
    lock.release()
