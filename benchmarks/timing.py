"""The protocol of timings and the columns of their tables, of any framework.

Ten steps to warm up, then three windows of ten, each ended by a wait for the
device; the figure is the median of the windows. TFLOP/s counts what the step
does as written, without recomputation, on all its devices.
"""
from collections.abc import Callable, Sequence
import datetime
import json
import statistics
import time
from typing import Any

from video_diffusion.training import writers

PEAK_TFLOPS = 790.0  # dense bfloat16 on random data, as measured on one H200
# Heading -> field of a row.
COLUMNS = {
    'what': 'case',
    'parameters': 'parameters',
    'batch': 'batch',
    'ms a step': 'ms',
    'clips/s': 'clips_per_second',
    'TFLOP/s': 'tflops_per_second',
    'share of 790': 'share_of_790',
    'peak GiB': 'peak_gib',
    'compile s': 'compile_seconds',
}


def windows(
    run: Callable[[int], Any], *, warmup: int = 10, count: int = 3,
    each: int = 10,
) -> list[float]:
  """Seconds per step of each window.

  Args:
    run: does so many steps, and returns when the device has done them.
    warmup: steps before the first window.
    count: of windows.
    each: steps of a window.
  """
  run(warmup)
  seconds = []
  for _ in range(count):
    began = time.perf_counter()
    run(each)
    seconds.append((time.perf_counter() - began) / each)
  return seconds


def rates(
    seconds: Sequence[float], *, batch: int, flops: float, devices: int = 1
) -> dict[str, float]:
  """The fields of a row that follow from the windows.

  Args:
    seconds: from `windows`.
    batch: clips of a step, on all devices.
    flops: of a step, on all devices.
    devices: their number.
  """
  median = statistics.median(seconds)
  tflops = flops / median / 1e12
  return {
      'ms': round(1e3 * median, 2),
      'ms_best': round(1e3 * min(seconds), 2),
      'clips_per_second': round(batch / median, 1),
      'tflop': round(flops / 1e12, 2),
      'tflops_per_second': round(tflops, 1),
      'share_of_790': round(tflops / PEAK_TFLOPS / devices, 3),
  }


def gib(count: int | None) -> float | None:
  """Bytes in GiB; None, where a device does not tell, remains."""
  return count and round(count / 2**30, 1)


def today() -> str:
  """The date of a measurement."""
  return datetime.date.today().isoformat()


def emit(row: dict[str, Any]) -> dict[str, Any]:
  """Prints a row as a line of JSON at once, and returns it."""
  print(json.dumps(row), flush=True)
  return row


def print_table(
    rows: Sequence[dict[str, Any]], columns: dict[str, str] | None = None
) -> None:
  """Prints rows under the headings of `columns`; '-' where a field is None."""
  columns = columns or COLUMNS
  cells = [
      ['-' if row[field] is None else f'{row[field]}'
       for field in columns.values()]
      for row in rows
  ]
  print(writers.table(list(columns), cells), flush=True)
