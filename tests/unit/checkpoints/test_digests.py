import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.checkpoints import digests
from video_diffusion.parallel import sharding


def digest(x):
  return digests.digests({'x': jnp.asarray(x)})['x']


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'bool'])
@pytest.mark.parametrize('size', [12, 1200])
def test_the_host_and_the_devices_agree(dtype, size, monkeypatch):
  x = np.random.default_rng(0).standard_normal((size // 4, 2, 2))
  x = jnp.asarray(x, dtype)
  host = digest(x)
  monkeypatch.setattr(digests, 'SMALL', 0)
  assert digest(x) == host


def test_every_flipped_bit_shows():
  x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
  right, found = digest(x), set()
  for byte in range(x.nbytes):
    for bit in range(8):
      raw = bytearray(x.tobytes())
      raw[byte] ^= 1 << bit
      found.add(digest(np.frombuffer(raw, np.float32).reshape(x.shape)))
  assert right not in found and len(found) == 8 * x.nbytes


def test_places_count_and_so_do_signs_of_zero_and_nan():
  assert digest([1.0, 2.0]) != digest([2.0, 1.0])
  assert digest([[0.0, 1.0], [2.0, 3.0]]) != digest([[0.0, 2.0], [1.0, 3.0]])
  assert digest([0.0]) != digest([-0.0])
  assert digest([np.nan]) == digest([np.nan])


def test_names_are_paths():
  tree = {'a': {'b': jnp.zeros(3)}, 'c': [jnp.int32(4), jnp.ones(())]}
  assert list(digests.digests(tree)) == ['a/b', 'c/0', 'c/1']


@pytest.mark.parametrize('small', [0, 2**16])
def test_the_parts_of_an_array_sum_to_the_whole(monkeypatch, small):
  monkeypatch.setattr(digests, 'SMALL', small)
  x = np.random.default_rng(0).standard_normal((6, 10)).astype(np.float32)
  total = 0
  for rows in (slice(0, 2), slice(2, 6)):
    for columns in (slice(0, 5), slice(5, 10)):
      part = jnp.asarray(x[rows, columns])
      total += int(digests._start(part, (rows, columns), x.shape))
  assert total % 2**32 == digest(x)


def test_the_layout_does_not_matter():
  mesh = sharding.make_mesh()  # of as many devices as there are
  x = jnp.arange(4096.0).reshape(64, 64)
  for axes in (jax.P('fsdp'), jax.P(None, 'fsdp'), jax.P()):
    sharded = jax.device_put(x, jax.NamedSharding(mesh, axes))
    assert digests.digests({'x': sharded}) == digests.digests({'x': x})
