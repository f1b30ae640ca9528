"""Which checkpoint is the best."""
import pytest

from video_diffusion.training import best as best_lib


@pytest.mark.parametrize('direction, expected', [('lowest', 4), ('highest', 6)])
def test_the_best_point_of_a_curve(direction, expected):
  points = [{'step': 2, 'a/ema': 3.0}, {'step': 3, 'loss': 0.0}]
  best = best_lib.Best('a/ema', direction, points)
  assert best.steps() == [2]
  best.update(4, {'a/ema': 1.0})
  best.update(5, {'b/ema': 0.0, 'loss': 9.0})
  best.update(6, {'a/ema': 5.0})
  best.update(7, {'a/ema': float('nan')})
  assert best.steps() == [expected]


def test_without_a_curve_there_is_none():
  best = best_lib.Best('', 'lowest', [{'step': 2, 'loss': 3.0}])
  best.update(4, {'a/ema': 1.0})
  assert best.steps() == []
