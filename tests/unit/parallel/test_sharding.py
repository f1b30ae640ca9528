import re

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
import numpy as np

from video_diffusion.config import build
from video_diffusion.config import build_step
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


def test_tensor_parallelism_splits_what_its_rules_name(tiny_config):
  """Parameters, both moments and the EMA, in a network of two heads."""
  tiny_config.model.update(
      base_channels=8, attention_resolutions=(8,), position='both', cond_dim=0
  )
  tiny_config.optim.name = 'adam'
  tiny_config.mesh.min_sharded = 64
  model = build.make_model(tiny_config, ())
  _, optimizer = build_step.make_optimizer(tiny_config)
  mesh = AbstractMesh((1, 2, 2), sharding.AXES)
  _, abstract = build_step.abstract_state(
      tiny_config, model, optimizer, build.batch_shapes(tiny_config, model),
      mesh,
  )
  specs = {
      jax.tree_util.keystr(path, simple=True, separator='/'): x.sharding.spec
      for path, x in jax.tree_util.tree_leaves_with_path(abstract)
  }
  split = {name: spec for name, spec in specs.items() if 'model' in spec}
  for rule, axis in sharding.MODEL_RULES:
    found = {name: s for name, s in split.items() if re.search(rule, name)}
    assert found and all(s[axis] == 'model' for s in found.values()), rule
    copies = len(found) / sum(name.startswith('params') for name in found)
    assert copies == 4, rule
  assert not any('norm_1' in name or 'time_mlp' in name for name in split)
  assert any({'model', 'fsdp'} <= {*spec} for spec in split.values())
