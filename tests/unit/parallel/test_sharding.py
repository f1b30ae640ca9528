import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np

from video_diffusion.parallel import collectives
from video_diffusion.parallel import sharding


def test_the_mesh_has_every_device_and_auto_axes():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ('data', 'fsdp', 'model')
  assert mesh.size == jax.device_count()
  assert all(t == jax.sharding.AxisType.Auto for t in mesh.axis_types)


def test_global_batch_keeps_the_values():
  batch = {'video': np.arange(24, dtype=np.uint8).reshape(8, 3)}
  mesh = sharding.make_mesh()
  out = collectives.global_batch(batch, mesh)['video']
  assert out.sharding.spec == PartitionSpec(('data', 'fsdp'))
  np.testing.assert_array_equal(out, batch['video'])


def test_constrain_batch_with_and_without_a_mesh():
  x = jnp.ones((8, 2))
  assert sharding.constrain_batch(x) is x
  with jax.set_mesh(sharding.make_mesh()):
    lowered = jax.jit(sharding.constrain_batch).lower(x)
  assert '"data"' in lowered.as_text() or 'Sharding' in lowered.as_text()
