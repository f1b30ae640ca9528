import math
import re

import numpy as np
import pytest

from video_diffusion.evaluation import report as report_lib
from video_diffusion.evaluation import report_curves


@pytest.mark.parametrize('values, log, labels', [
    ([0, 400000], False, ['0', '100k', '200k', '300k', '400k']),
    ([0.02, 0.1], False, ['0.02', '0.04', '0.06', '0.08', '0.10']),
    ([-20, 20], False, ['−20', '−10', '0', '10', '20']),
    ([3, 3], False, ['2', '3', '4']),
    ([64, 2048], True, ['100', '200', '500', '1000', '2000']),
    ([1, 1e5], True, ['1', '10', '100', '1000', '10k', '100k']),
    ([110, 140], True, ['110', '120', '130', '140']),
])
def test_ticks(values, log, labels):
  axis = report_curves._Axis(values, log=log)
  assert axis.labels == labels
  assert all(-1e-6 <= axis(tick) <= 1 + 1e-6 for tick in axis.ticks)


def test_a_curve_is_interrupted_where_it_has_no_value():
  page = report_curves.figure(report_lib.Curve('t', 'x', 'y', {
      'a': [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, None), (5, 2.0)]
  }))
  line = re.search(r'<g class="k0"><path class="line" d="([^"]*)"', page)[1]
  assert [piece.count('L') for piece in line[1:].split('M')] == [1, 1, 1]
  assert page.count('<circle') == 4


def test_a_long_curve_keeps_its_ends_and_its_extremes():
  values = np.sin(np.arange(100_000) / 7000)
  values[12_345], values[54_321] = -3.0, 3.0
  points = [(i, y, y - 1, y + 1) for i, y in enumerate(values)]
  page = report_curves.figure(report_lib.Curve('t', 'x', 'y', {'a': points}))
  assert len(page) < 100_000
  line = re.search(r'class="line" d="M([^"]*)"/></g>', page)[1]
  places = np.array([p.split() for p in line.split('L')], float)
  assert (np.diff(places[:, 0]) >= 0).all()
  low, high = places[:, 1].argmax(), places[:, 1].argmin()
  share = (places[[low, high], 0] - places[0, 0]) / np.ptp(places[:, 0])
  np.testing.assert_allclose(share, [0.12345, 0.54321], atol=0.001)
  assert '<circle' not in page
