"""Means of the metrics, rates, the progress line, and steps to look at."""
import collections
from collections.abc import Callable
import json
import time
from typing import Any

from absl import logging
from etils import epath
import jax
import numpy as np

from video_diffusion.errors import UserError
from video_diffusion.training import next_frames
from video_diffusion.training import step as step_lib
from video_diffusion.training import writers

# Dense bfloat16 peak of one device as its maker states it, by device kind.
PEAK_TFLOPS = {
    'TPU v4': 275,
    'TPU v5 lite': 197,
    'TPU v5p': 459,
    'TPU v5': 459,
    'TPU v6 lite': 918,
    'NVIDIA H200': 989,
    'NVIDIA H100 80GB HBM3': 989,
    'NVIDIA A100-SXM4-40GB': 312,
    'NVIDIA A100-SXM4-80GB': 312,
}
RECENT = 100  # losses whose median a spike is measured by
FEWEST = 20


class Trace:
  """A profiler trace of some steps, once the first ten are over."""

  def __init__(self, run_dir: epath.Path, step: int, num_steps: int):
    """Writes steps step + 10 to step + 10 + num_steps; 0 writes none."""
    self._path = str(run_dir / 'profile')
    self._first = step + 10
    self._last = self._first + num_steps if num_steps else None

  def after(self, step: int, metrics) -> None:
    """Begins or ends the trace behind a step."""
    if self._last is None:
      return
    if step == self._first:
      jax.block_until_ready(metrics)
      jax.profiler.start_trace(self._path)
    elif step == self._last:
      jax.block_until_ready(metrics)
      jax.profiler.stop_trace()
      logging.info('The profile is in %s.', self._path)


class TooManySkipsError(UserError):
  """As many updates in a row as allowed were not finite."""


class Window:
  """Means of the metrics since the last progress line, and the rates.

  Steps that were skipped, and losses far above the recent median, are written
  with their clips to `unusual_steps.jsonl`.
  """

  def __init__(
      self,
      *,
      batch_size: int,
      flops: float,
      step: int,
      run_dir: epath.Path,
      enabled: bool,
      spike: float,
      max_skips: int,
      clips: Callable[[int], list[Any]],
  ):
    """Begins at a step.

    Args:
      batch_size: global.
      flops: of one global step.
      step: updates done.
      run_dir: folder of the run.
      enabled: this process writes.
      spike: a loss so many times the recent median is reported.
      max_skips: skipped updates in a row that end the run.
      clips: step -> the clips of its batch.
    """
    self._batch_size, self._flops = batch_size, flops
    self._path, self._enabled = run_dir / 'unusual_steps.jsonl', enabled
    self._spike, self._max_skips, self._clips = spike, max_skips, clips
    self._recent = collections.deque(maxlen=RECENT)
    self._added, self._skips = step, 0
    self._began, self._in_steps = time.time(), 0.0
    self._reset(step)

  def _reset(self, step):
    self._step, self._since, self._pauses = step, time.time(), 0.0
    self._metrics = []

  def add(self, metrics) -> None:
    """Takes one step's metrics; waits for that step, not for later ones.

    Raises:
      TooManySkipsError: max_skips in a row; one sentence.
    """
    metrics = jax.device_get(metrics)
    self._metrics.append(metrics)
    self._added += 1
    loss = float(metrics['loss'])
    if metrics['skipped']:
      self._skips += 1
      self._report('skipped: not finite', metrics)
      if self._skips >= self._max_skips:
        first = self._added - self._skips + 1
        raise TooManySkipsError(
            f'{self._skips} updates in a row were not finite, steps {first} to '
            f'{self._added}, and were skipped; the weights of before step '
            f'{first} are saved, the clips are in {self._path}: lower '
            'optim.lr, with another --workdir, or go on behind these clips by '
            'the same command.'
        )
      return
    self._skips = 0
    if len(self._recent) >= FEWEST:
      if loss > self._spike * np.median(self._recent):
        self._report('spike', metrics)
    self._recent.append(loss)

  def _report(self, what, metrics):
    loss, norm = float(metrics['loss']), float(metrics['grad_norm'])
    logging.warning(
        'Step %d, %s: loss %.4g, gradient norm %.4g; its clips are in %s.',
        self._added, what, loss, norm, self._path,
    )
    if self._enabled:
      line = {
          'step': self._added,
          'what': what,
          'loss': str(loss),  # JSON has no NaN
          'grad_norm': str(norm),
          'clips': self._clips(self._added),
      }
      try:
        with self._path.open('a') as f:
          f.write(json.dumps(line) + '\n')
      except OSError as error:
        logging.error(
            '%s cannot be written (%s); the run goes on without this line.',
            self._path, error.strerror,
        )

  def paused(self, seconds: float) -> None:
    """Leaves time spent on evaluation and samples out of the rates."""
    self._pauses += seconds

  def write(self, writer: writers.Writer, step: int, last_step: int) -> None:
    """Writes the curves and the progress line, and starts anew."""
    seconds = max(time.time() - self._since - self._pauses, 1e-9)
    self._in_steps += seconds
    rate = (step - self._step) / seconds
    good = [m for m in self._metrics if not m['skipped']]
    skipped = len(self._metrics) - len(good)
    scalars = {
        name: float(np.mean([m[name] for m in good]))
        for name in ('loss', 'grad_norm', 'learning_rate')
        if good
    }
    if good:
      sums, counts = (
          np.sum([m[name] for m in good], axis=0)
          for name in ('bucket_sum', 'bucket_count')
      )
      for i in range(step_lib.NUM_BUCKETS):
        if counts[i]:
          scalars[f'loss_bucket_{i}'] = sums[i] / counts[i]
    scalars |= next_frames.mean_loss(good)
    if skipped:
      scalars['skipped'] = skipped
    scalars['clips_per_second'] = rate * self._batch_size
    # Share of the wall time since the start of this process's loop.
    scalars['goodput'] = self._in_steps / (time.time() - self._began)
    tflops = rate * self._flops / 1e12
    device = jax.local_devices()[0]
    peak = PEAK_TFLOPS.get(device.device_kind)
    if np.isfinite(tflops):
      scalars['tflops_per_second'] = tflops
      if peak:
        scalars['mfu'] = tflops / (peak * jax.device_count())
    memory = (device.memory_stats() or {}).get('peak_bytes_in_use')
    if memory:
      scalars['peak_memory_gib'] = memory / 2**30
    writer.scalars(step, scalars)
    logging.info(
        'step %d/%d  loss %.4f  gradient norm %.3f  %.1f clips/s  '
        '%.3g TFLOP/s%s  goodput %.0f %%%s  %s left',
        step,
        last_step,
        scalars.get('loss', float('nan')),
        scalars.get('grad_norm', float('nan')),
        scalars['clips_per_second'],
        tflops,
        f'  MFU {100 * scalars["mfu"]:.1f} %' if 'mfu' in scalars else '',
        100 * scalars['goodput'],
        f'  {skipped} skipped' if skipped else '',
        writers.duration((last_step - step) / rate),
    )
    self._reset(step)
