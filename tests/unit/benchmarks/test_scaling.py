import numpy as np
import pytest

from benchmarks import cases
from benchmarks import scaling


def test_a_curve_has_a_loss_before_each_update():
  config = scaling.check_config('smoke', 'float32', 4)
  curve = scaling.losses(config, cases.make_mesh(1, 1), num_updates=6)
  assert len(curve) == 7 and np.all(np.isfinite(curve)) and len(set(curve)) == 7
  # Agreement is relative to the first curve, at 5, at the end, at its largest.
  other = list(np.array(curve) * [1, 1, 1, 1.02, 1, 1.01, 1])
  row, = scaling.agreement({'one': curve, 'two': other})
  assert row['what'] == 'two' and row['largest_after'] == 3
  np.testing.assert_allclose(
      [row['after_5'], row['largest'], row['after_all']], [0.01, 0.02, 0.0]
  )


def test_fewer_than_two_devices_are_refused(capsys):
  with pytest.raises(SystemExit):
    scaling.main(['--devices=1'])
  assert 'at least 2' in capsys.readouterr().err
