"""The step with the best value of a curve, whose checkpoint is kept."""
from collections.abc import Iterable, Mapping
import math

from absl import logging

DIRECTIONS = ('lowest', 'highest')


class Best:
  """Knows the best point of a curve.

  Attributes:
    step: step of the best point; None as long as there is none.
  """

  def __init__(
      self,
      curve: str,
      direction: str,
      points: Iterable[Mapping[str, float]] = (),
  ):
    """Reads the points of an earlier call.

    Args:
      curve: name of the curve; '' for none.
      direction: one of DIRECTIONS, which says what is best.
      points: {'step': 10, curve: value, ...}, others among them.
    """
    self._curve, self._sign = curve, 1 if direction == 'lowest' else -1
    self.step, self._value = None, math.inf
    for point in points:
      self._add(point['step'], point)

  def update(self, step: int, values: Mapping[str, float]) -> None:
    """Takes the points of a step, and logs whether it is the best so far."""
    if self._add(step, values):
      logging.info(
          'Step %d has the best %s so far, %.4f; its checkpoint is kept.',
          step, self._curve, values[self._curve],
      )

  def _add(self, step, values):
    if self._curve not in values:
      return False
    value = self._sign * values[self._curve]
    if not value < self._value:
      return False
    self.step, self._value = step, value
    return True

  def steps(self) -> list[int]:
    """The steps whose checkpoints are kept for good."""
    return [] if self.step is None else [self.step]
