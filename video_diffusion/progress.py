"""Means of the metrics, rates and the progress line."""
import time

from absl import logging
import jax
import numpy as np

from video_diffusion import train_state
from video_diffusion import writers


class Window:
  """Means of the metrics since the last progress line, and the rates."""

  def __init__(self, *, batch_size: int, flops: float, step: int):
    self._batch_size = batch_size
    self._flops = flops
    self._reset(step)

  def _reset(self, step):
    self._step, self._since, self._pauses = step, time.time(), 0.0
    self._metrics = []

  def add(self, metrics) -> None:
    """Takes one step's metrics; waits for that step, not for later ones."""
    self._metrics.append(jax.device_get(metrics))

  def paused(self, seconds: float) -> None:
    """Leaves time spent on evaluation and samples out of the rates."""
    self._pauses += seconds

  def write(self, writer: writers.Writer, step: int, last_step: int) -> None:
    """Writes the curves and the progress line, and starts anew."""
    seconds = max(time.time() - self._since - self._pauses, 1e-9)
    rate = (step - self._step) / seconds
    mean = lambda name: float(np.mean([m[name] for m in self._metrics]))
    scalars = {
        name: mean(name) for name in ('loss', 'grad_norm', 'learning_rate')
    }
    sums, counts = (
        np.sum([m[name] for m in self._metrics], axis=0)
        for name in ('quarter_sum', 'quarter_count')
    )
    for i in range(train_state.NUM_QUARTERS):
      if counts[i]:
        scalars[f'loss_quarter_{i}'] = sums[i] / counts[i]
    scalars['clips_per_second'] = rate * self._batch_size
    tflops = rate * self._flops / 1e12
    if np.isfinite(tflops):
      scalars['tflops_per_second'] = tflops
    if not np.isfinite(scalars['loss']):
      raise ValueError(
          f'the loss is {scalars["loss"]} within steps {self._step + 1} to '
          f'{step}; the last checkpoint is from before: lower optim.lr, in a '
          'workdir of its own.'
      )
    writer.scalars(step, scalars)
    writer.flush()
    logging.info(
        'step %d/%d  loss %.4f  gradient norm %.3f  %.1f clips/s  '
        '%.3g TFLOP/s  %s left',
        step,
        last_step,
        scalars['loss'],
        scalars['grad_norm'],
        scalars['clips_per_second'],
        tflops,
        writers.duration((last_step - step) / rate),
    )
    self._reset(step)
