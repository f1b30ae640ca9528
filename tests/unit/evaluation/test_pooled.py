"""Moments of features on eight devices of two processes are those of all."""
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from video_diffusion.evaluation import pooled
from video_diffusion.metrics import moments
from video_diffusion.parallel import collectives
from video_diffusion.parallel import sharding

# Batches of 24 rows over all devices, of which so many are examples and the
# rest padding: the last batch leaves little to the second process, or nothing.
VALID = (24, 24, 13)

CODE = """
import sys
import jax
jax.distributed.initialize('127.0.0.1:' + sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from tests.unit.evaluation import test_pooled
from video_diffusion.metrics import moments
from video_diffusion.parallel import sharding

assert jax.device_count() == 8 and len(jax.local_devices()) == 4
mesh = sharding.make_mesh()
features = test_pooled.all_features()
found, own = test_pooled.pool(features, mesh)
test_pooled.check(found, features)
print('added', own.count, 'of', found.count)
nothing = moments.Moments.empty(5)
alone = own if jax.process_index() else nothing
again = test_pooled.pooled.over_processes(alone, mesh)
print('alone', again.count)
"""


def all_features():
  return 1e3 + np.random.default_rng(0).normal(size=(sum(VALID), 5))


def pool(features, mesh):
  """(moments of all, of this process), batch by batch from the devices."""
  own = moments.Moments.empty(features.shape[1])
  start = 0
  for valid in VALID:
    # NaN where there is padding, which must not reach a score.
    batch = np.full((24, features.shape[1]), np.nan)
    batch[:valid] = features[start : start + valid]
    start += valid
    rows = collectives.own_rows(mesh, 24)
    # JAX has no float64 by default: two uint32 carry the bits of each number.
    bits = np.ascontiguousarray(batch[rows]).view(np.uint32)
    on_devices = collectives.global_batch({'bits': bits}, mesh)['bits']
    part = np.ascontiguousarray(collectives.own_part(on_devices))
    own = own.add(part.view(np.float64)[rows < valid])
  return pooled.over_processes(own, mesh), own


def check(found, features):
  cov = np.cov(features, rowvar=False)
  assert found.count == len(features)
  np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
  np.testing.assert_allclose(
      found.covariance, cov, rtol=0, atol=1e-10 * np.abs(cov).max()
  )


def test_one_process_has_all():
  features = all_features()
  found, own = pool(features, sharding.make_mesh(devices=jax.devices()[:1]))
  check(found, features)
  assert found is own


@pytest.mark.parametrize('processes', [2, 3])
def test_bits_pass_through_the_sum(monkeypatch, processes):
  # The collective is one sum modulo 2^32; here without the processes.
  rng = np.random.default_rng(1)
  sets = [rng.normal(size=(n, 3)) * 1e-200 for n in range(5, 5 + processes)]
  owns = [moments.Moments.of(x) for x in sets]
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  for index in range(processes):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    calls = iter(owns)

    def total(bits, mesh, index=index, calls=calls):
      sent = next(calls)
      mine = sent is owns[index]
      assert mine == bits.any()
      return bits if mine else sent.to_array().view(np.uint32)

    monkeypatch.setattr(collectives, 'total', total)
    found = pooled.over_processes(owns[index], None)
    np.testing.assert_array_equal(
        found.to_array(), moments.merged(owns).to_array()
    )


def test_two_processes_of_four_devices_each():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  environment = os.environ | {
      'JAX_NUM_CPU_DEVICES': '4', 'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
  }
  processes = [
      subprocess.Popen(
          [sys.executable, '-c', CODE, str(port), str(i)], cwd=ROOT,
          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
          text=True,
      )
      for i in range(2)
  ]
  try:
    outputs = [p.communicate(timeout=LIMIT)[0] for p in processes]
  finally:
    for p in processes:
      p.kill()
  for i, (process, output) in enumerate(zip(processes, outputs, strict=True)):
    assert process.returncode == 0, output
    assert f'added {(36, 25)[i]} of 61' in output
    assert 'alone 25' in output
