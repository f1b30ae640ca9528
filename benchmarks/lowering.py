"""What a run compiles, lowered for the devices of a TPU pod that is not there.
"""
import functools
import importlib.util
import os
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import hlo
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.errors import UserError
from video_diffusion.inference import block_sampler
from video_diffusion.parallel import sharding
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import state as state_lib


class Chip(NamedTuple):
  """One device of a topology."""

  tflops: float  # dense bfloat16
  hbm_gib: float
  hbm_gb_per_second: float
  dimensions: int  # of its torus


# https://cloud.google.com/tpu/docs/v4 and likewise v5e, v5p, v6e. A device is a
# chip: v4 by its megacore configuration, v5p by itself.
CHIPS = {
    'v4': Chip(275, 32, 1228, 3),
    'v5e': Chip(197, 16, 819, 2),
    'v5p': Chip(459, 95, 2765, 3),
    'v6e': Chip(918, 32, 1640, 2),
}
SHAPES = {
    2: ('2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16'),
    3: ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8'),
}
# What the compiler keeps for itself, by its refusals on v4 and v5e.
RESERVED_GIB = 1.25


def use_libtpu() -> None:
  """Makes libtpu a compiler beside the CPU; before JAX looks for devices.

  Raises:
    UserError: it is not installed.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(
        'libtpu is not installed; pip install -e ".[topology]" brings it.'
    )
  for name, value in {
      'TPU_SKIP_MDS_QUERY': '1',  # no question to a metadata server
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # silences a line
      # Its lock file lets one process in, though none holds a TPU here.
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  }.items():
    os.environ.setdefault(name, value)
  jax.config.update('jax_platforms', 'cpu')


def chip_of(topology: str) -> Chip:
  """The chip of 'v4:4x8x8'.

  Raises:
    UserError: no such topology.
  """
  generation, _, shape = topology.partition(':')
  chip = CHIPS.get(generation)
  if chip is None or not re.fullmatch(
      r'\d+' + r'x\d+' * (chip.dimensions - 1), shape
  ):
    raise UserError(
        f'--topology holds {topology!r}; it must be one of {", ".join(CHIPS)}, '
        'a colon and the sides of the pod, as v4:4x8x8 or v5e:16x16.'
    )
  return chip


def make_mesh(config, topology: str) -> jax.sharding.Mesh:
  """The mesh of a run on that pod, of devices that are not there."""
  from jax.experimental import topologies

  chip_of(topology)
  megacore = {'chip_config_name': 'megacore'} if topology[:3] == 'v4:' else {}
  devices = topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **megacore
  ).devices
  return sharding.make_mesh(
      fsdp=config.mesh.fsdp, model=config.mesh.model, devices=devices
  )


def marked(config):
  """The config with a batch that tells its axis from all others."""
  config = config.copy_and_resolve_references().lock()
  batch = hlo.MARKER * config.train.accumulate
  config.batch_size = config.sample.batch_size = batch
  return config


def lower_train(config, mesh, program: str = 'train'):
  """(the lowered train step, shapes of what it computes)."""
  model = build.make_model(config, ())
  learning_rate, optimizer = build_step.make_optimizer(config)
  shapes = build.batch_shapes(config, model)
  _, abstract = build_step.abstract_state(
      config, model, optimizer, shapes, mesh
  )
  lowered = compile_lib.lower_step(
      build_step.make_step(config, model, optimizer, learning_rate),
      abstract, shapes, mesh,
  )
  traced = hlo.traced_shapes(
      build_step.make_step(config, model, optimizer, learning_rate),
      unplaced(abstract),
      build.batch_shapes(marked(config), model),
  )
  return lowered, traced | shards(abstract)


def sample_inputs(config, model, program: str, mesh) -> dict:
  """Shapes of what the sampler takes after the weights, by name."""
  data, batch = config.data, config.sample.batch_size
  split = functools.partial(
      jax.ShapeDtypeStruct, sharding=sharding.batch_sharding(mesh)
  )
  inputs = {'key': jax.eval_shape(lambda: jax.random.key(0))}
  inputs['condition'] = {
      name: split((batch, 1, *s.shape), s.dtype)
      for name, s in model.arrays().items()
  } or None
  if program == 'predict':
    shape = (batch, data.frames, data.height, data.width, 3)
    inputs['known'] = split(shape, jnp.float32)
    inputs['known_mask'] = jax.ShapeDtypeStruct((1, data.frames), jnp.bool_)
  return inputs


def lower_sample(config, mesh, program: str):
  """(the lowered sampler, shapes of what it computes)."""
  model = build.make_model(config, ())
  shapes = build.batch_shapes(config, model)
  params = sharding.abstract(
      jax.eval_shape(
          lambda: state_lib.init_params(
              model, shapes, num_images=config.data.images, seed=config.seed
          )
      ),
      mesh,
      config.mesh.min_sharded,
  )

  def sampler_and_inputs(config, mesh):
    data = config.data
    sampler = block_sampler.make_block_sampler(
        model,
        build.sampling_settings(config),
        shape=(config.sample.batch_size, data.frames, data.height, data.width,
               3),
        prediction=config.diffusion.prediction,
        logsnr_fn=build.make_logsnr_fn(config),
        mesh=mesh,
    )
    return sampler, sample_inputs(config, model, program, mesh)

  sampler, inputs = sampler_and_inputs(config, mesh)
  with jax.set_mesh(mesh):
    lowered = sampler.lower(params, **inputs)
  # A prime number of clips divides over one device alone.
  alone = sharding.make_mesh(devices=jax.devices()[:1])
  sampler, inputs = sampler_and_inputs(marked(config), alone)
  traced = hlo.traced_shapes(
      lambda params, inputs: sampler(params, **inputs),
      unplaced(params), unplaced(inputs),
  )
  return lowered, traced | shards(params)


def shards(tree) -> set[tuple[int, ...]]:
  """Shapes of what a device holds of a tree."""
  return {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(tree)}


def unplaced(tree):
  """Shapes and dtypes alone."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
