"""What does not fit into the memory of a device, said in a sentence.

XLA reports it by an error of its own, when it compiles (TPUs) or when it
allocates (GPUs). `explained` turns that error into a `UserError`; it leaves any
other error as it is.
"""
from collections.abc import Callable, Iterable, Sequence
import contextlib
import math
import pathlib
import re
from typing import Any, NamedTuple

import jax

from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_SIZE = r'([\d.]+) ?([KMGT]?)i?B?(?: bytes)?\b'
# 'Ran out of memory in memory space hbm. Used 63.80G of 30.75G hbm.'
_COMPILED = re.compile(rf'Used {_SIZE} of {_SIZE} hbm')
# 'Out of memory while trying to allocate 4770354232 bytes.', '3.37GiB', 'Out of
# memory allocating 64 bytes.', 'Attempting to reserve 3.95G at the bottom'.
_ALLOCATED = re.compile(rf'(?:allocat|reserv)(?:e|ing) {_SIZE}', re.IGNORECASE)
# What else is exhausted, as the shared memory of one kernel, is no batch.
_DEVICE_MEMORY = re.compile(
    'out of memory|attempting to (?:allocate|reserve)', re.IGNORECASE
)


class Need(NamedTuple):
  """Bytes of one device; None where they are not known.

  Attributes:
    asked: what a program needs in all.
    there: what the device has for the programs of this process.
    fixed: the part of asked that does not depend on the batch.
  """

  asked: int | None
  there: int | None
  fixed: int = 0


def limit() -> int | None:
  """Bytes that a device of this process has; None where it does not tell."""
  return _stats().get('bytes_limit')


def host_available() -> int | None:
  """Bytes of memory that are free on this machine; None where not known."""
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
    free = next(line for line in lines if line.startswith('MemAvailable'))
    there = int(free.split()[1]) * 1024
  except (OSError, StopIteration, ValueError, IndexError):
    return None
  with contextlib.suppress(OSError, ValueError):  # 'max', or no such group
    group = pathlib.Path('/sys/fs/cgroup')
    most, used = (
        int((group / name).read_text())
        for name in ('memory.max', 'memory.current')
    )
    there = min(there, most - used)
  return there


def _device():
  return jax.local_devices()[0]


def _stats():
  return _device().memory_stats() or {}


def program_bytes(compiled) -> int | None:
  """Bytes of a device that a program needs: arguments, results, scratch.

  Returns:
    None on backends that do not tell.
  """
  memory = compiled.memory_analysis()
  return memory and (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
  )


def refused(error: BaseException) -> Need | None:
  """What a device was asked for, where an error says that it was too much.

  Returns:
    None for any other error.
  """
  message = str(error)
  if (
      not isinstance(error, jax.errors.JaxRuntimeError)
      or 'RESOURCE_EXHAUSTED' not in message
      or not _DEVICE_MEMORY.search(message)
  ):
    return None
  size = lambda number, unit: int(float(number) * _UNITS[unit])
  if found := _COMPILED.search(message):
    return Need(size(*found.groups()[:2]), size(*found.groups()[2:]))
  stats = _stats()
  in_use = stats.get('bytes_in_use', 0)
  found = _ALLOCATED.search(message)
  asked = in_use + size(*found.groups()) if found else None
  return Need(asked, stats.get('bytes_limit'), in_use)


@contextlib.contextmanager
def explained(make_error: Callable[[Need], UserError]):
  """Raises a `UserError` where a device's memory is too small.

  A program runs on after the call that starts it has returned: wait for its
  results inside the block.

  Args:
    make_error: what was needed -> the error to raise.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    need = refused(error)
    if need is None:
      raise
    raise make_error(need) from error


def largest(batch: int, need: Need, allowed: Iterable[int]) -> int | None:
  """About the largest of the allowed batches that fits.

  All but `need.fixed` is taken to grow with the batch.

  Returns:
    0 where none fits, None where it cannot be told.
  """
  if not need.asked or not need.there or need.asked <= need.there:
    return None
  # A device's memory is never filled to the last byte.
  share = (0.95 * need.there - need.fixed) / (need.asked - need.fixed)
  return max((n for n in allowed if n <= share * batch), default=0)


def misfit(what: str, need: Need) -> str:
  """'WHAT takes 9.1 GiB of each device, and NVIDIA L4 has 8.2 GiB'."""
  asked = f'about {gib(need.asked)}' if need.asked else 'too much memory'
  kind = _device().device_kind
  there = f', and {kind} has {gib(need.there)} for it' if need.there else ''
  return f'{what} takes {asked} of each device{there}'


def batch_too_large(
    name: str,
    batch: int,
    need: Need,
    *,
    allowed: Sequence[int],
    remedies: Sequence[Sequence[str]] = (),
) -> ArgumentError:
  """The error about a batch that does not fit, which says what helps.

  Args:
    name: of the batch size, an `errors.Argument` where a caller renames it.
    batch: the batch size.
    need: memory of one device.
    allowed: smaller batch sizes that are possible, smallest first.
    remedies: what else helps, each as the parts of an `ArgumentError`:
      (Argument('accumulate'), '=2 to take it in parts').
  """
  fits = largest(batch, need, allowed)
  if fits:
    remedies = [(name, f'={fits}, about the largest that fits'), *remedies]
  elif fits is None and allowed:
    remedies = [('a smaller ', name), *remedies]
  parts = [name, misfit(f'={batch} does not fit: it', need)]
  if fits == 0:
    parts += [', too little for even ', name, f'={min(allowed, default=batch)}']
  for i, remedy in enumerate(remedies):
    parts += [', or ' if i else '; set ', *remedy]
  return ArgumentError(*parts, '.')


def tree_bytes(tree: Any) -> int:
  """Bytes of one device that arrays, or shapes, with shardings take."""
  return sum(
      math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
      for x in jax.tree.leaves(tree)
  )


def gib(count: int) -> str:
  """Bytes as '59.2 GiB'."""
  size = count / 2**30
  return f'{size:.3g} GiB' if size < 1000 else f'{size:,.0f} GiB'
