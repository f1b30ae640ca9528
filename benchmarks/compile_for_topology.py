"""Compiles the train step and the sampler for TPU pods, with no TPU.

  pip install -e ".[topology]"
  python -m benchmarks.compile_for_topology --config=configs/kinetics.py \
      --topology=v4:4x8x8[,v5e:16x16] [--program=train,sample,predict] \
      [--fewest=v4,v5e,v5p,v6e] [--level=O1] [--hlo=DIR] \
      [--config.model.remat='(64, 32, 16, 8)']

libtpu is the compiler; nothing runs. Each row is printed as JSON as soon as it
is there, the table at last: memory of a device, whether it fits (the compiler
refuses what does not), FLOPs, collectives, arrays of a device that hold the
global batch (benchmarks/hlo.py; there should be none), where all-to-alls come
from, and the least milliseconds of a step: FLOPs, recomputation included, at
the peak of the matrix units, or the bytes that operations read and write at the
peak of the memory, whichever is slower. Communication is not in it.

--fewest also looks for the smallest pods on which the same batch trains: memory
is predicted from the train step compiled with the most clips a device, the
state by the devices that share it, all else by clips; the smallest that should
fit and the next smaller one are compiled.

`sample` draws config.batch_size clips from noise, with captions and guidance by
them where the config has text; `predict` draws them around known frames under
reconstruction guidance, whose gradient goes through the network. The loop of
either counts once, so that its figures are of one step.

--level is JAX's optimisation level: O1 takes three minutes on two cores for the
paper's models, the default, O2, several times that. A refusal may take longer.
"""
import argparse
import ast
import functools
from importlib import metadata
import importlib.util
import math
import os
import pathlib
import re
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import cases
from benchmarks import hlo
from benchmarks import timing
from video_diffusion import experiment
from video_diffusion import partitioning
from video_diffusion import sample
from video_diffusion import train
from video_diffusion import train_state


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
PROGRAMS = ('train', 'sample', 'predict')
COLUMNS = {
    'program': 'program',
    'topology': 'topology',
    'mesh': 'mesh',
    'clips a device': 'clips',
    'fits': 'fits',
    'arguments': 'arguments_gib',
    'temporaries': 'temporaries_gib',
    'peak GiB': 'peak_gib',
    'TFLOP a device': 'tflop',
    'least ms': 'least_ms',
    **{f'{kind}s': kind for kind in hlo.KINDS[:5]},
    'offenders': 'offender_count',
    'compile s': 'compile_seconds',
}


def use_libtpu() -> None:
  """Makes libtpu a compiler beside the CPU; before JAX looks for devices.

  Raises:
    ValueError: it is not installed.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError(
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
    ValueError: no such topology.
  """
  generation, _, shape = topology.partition(':')
  chip = CHIPS.get(generation)
  if chip is None or not re.fullmatch(
      r'\d+' + r'x\d+' * (chip.dimensions - 1), shape
  ):
    raise ValueError(
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
  return partitioning.make_mesh(
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
  model = experiment.make_model(config, ())
  rate, optimizer = train.make_optimizer(config)
  shapes = experiment.batch_shapes(config, ())
  _, abstract = train.abstract_state(config, model, optimizer, shapes, mesh)
  lowered = train.lower_step(
      config, model, optimizer, rate, abstract, shapes, mesh
  )
  traced = hlo.traced_shapes(
      train.make_step(config, model, optimizer, rate),
      unplaced(abstract),
      experiment.batch_shapes(marked(config), ()),
  )
  return lowered, traced | shards(abstract)


def sample_inputs(config, program: str, mesh) -> dict:
  """Shapes of what a draw takes after the weights, by name."""
  data, batch = config.data, config.sample.batch_size
  split = functools.partial(
      jax.ShapeDtypeStruct, sharding=partitioning.batch_sharding(mesh)
  )
  inputs = {'key': jax.eval_shape(lambda: jax.random.key(0))}
  captions = train_state.condition_of(experiment.batch_shapes(config, ()))
  inputs['condition'] = captions and {
      name: split((batch, 1, *s.shape[2:]), s.dtype)
      for name, s in captions.items()
  }
  if program == 'predict':
    shape = (batch, data.frames, data.height, data.width, 3)
    inputs['known'] = split(shape, jnp.float32)
    inputs['known_mask'] = jax.ShapeDtypeStruct((1, data.frames), jnp.bool_)
  return inputs


def lower_sample(config, mesh, program: str):
  """(the lowered sampler, shapes of what it computes)."""
  model = experiment.make_model(config, ())
  shapes = experiment.batch_shapes(config, ())
  params = partitioning.abstract(
      jax.eval_shape(
          lambda: train_state.init_params(model, shapes, seed=config.seed)
      ),
      mesh,
      config.mesh.min_sharded,
  )

  def sampler_and_inputs(config, mesh):
    draw = sample.make_sampler(config, model, mesh, frames=config.data.frames)
    return draw, sample_inputs(config, program, mesh)

  draw, inputs = sampler_and_inputs(config, mesh)
  with jax.set_mesh(mesh):
    lowered = draw.lower(params, **inputs)
  # A prime number of clips divides over one device alone.
  alone = partitioning.make_mesh(devices=jax.devices()[:1])
  draw, inputs = sampler_and_inputs(marked(config), alone)
  traced = hlo.traced_shapes(
      lambda params, inputs: draw(params, **inputs),
      unplaced(params), unplaced(inputs),
  )
  return lowered, traced | shards(params)


def shards(tree) -> set[tuple[int, ...]]:
  """Shapes of what a device holds of a tree."""
  return {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(tree)}


def unplaced(tree):
  """Shapes and dtypes alone."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def measure(config, program: str, topology: str, folder: str = '') -> dict:
  """One row; the program's HLO is written to `folder`."""
  chip, mesh = chip_of(topology), make_mesh(config, topology)
  devices = partitioning.batch_devices(mesh)
  row = {
      'program': program,
      'topology': topology,
      'devices': f'{mesh.size} x {mesh.devices.flat[0].device_kind}',
      'mesh': 'x'.join(str(n) for n in mesh.devices.shape),
      'batch': config.batch_size,
      'clips': config.batch_size / devices,
      # Where nothing is differentiated, nothing is recomputed.
      'remat': config.model.remat if program != 'sample' else (),
      'level': jax.config.jax_optimization_level,
      'date': timing.today(),
  }
  lower = lower_train if program == 'train' else lower_sample
  lowered, shapes = lower(config, mesh, program)
  began = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    row |= refusal(str(error))
  else:
    text = compiled.as_text()
    if folder:
      name = f'{program}_{topology.replace(":", "_")}.hlo'
      path = pathlib.Path(folder)
      path.mkdir(parents=True, exist_ok=True)
      (path / name).write_text(text)
    row |= figures(compiled, chip)
    row |= layout(
        list(hlo.instructions(text)), shapes, config.batch_size, devices
    )
  row['compile_seconds'] = round(time.perf_counter() - began, 1)
  return row


def figures(compiled, chip: Chip) -> dict:
  """The fields of a row that the compiler tells."""
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  gib = lambda count: round(count / 2**30, 2)
  compute = cost['flops'] / chip.tflops / 1e9
  move = cost['bytes accessed'] / chip.hbm_gb_per_second / 1e6
  return {
      'fits': True,
      'arguments_gib': gib(memory.argument_size_in_bytes),
      'outputs_gib': gib(memory.output_size_in_bytes),
      'alias_gib': gib(memory.alias_size_in_bytes),
      'temporaries_gib': gib(memory.temp_size_in_bytes),
      'peak_gib': gib(memory.peak_memory_in_bytes),
      'needed_gib': gib(cases.program_bytes(compiled)),
      'tflop': float(f'{cost["flops"] / 1e12:.4g}'),
      'least_ms': round(max(compute, move), 1),
      'least_ms_by': 'FLOPs' if compute > move else 'memory',
  }


def layout(program, shapes, batch: int, devices: int) -> dict:
  """The fields of a row that its HLO tells."""
  found = hlo.collectives(program)
  arrays = hlo.offenders(program, shapes, batch=batch, devices=devices)
  return {
      'collectives': hlo.by_kind(found),
      'all_to_all_sources': hlo.sources(
          c for c in found if c.kind == 'all-to-all'
      ),
      'offender_count': len(arrays),
      'offenders': [
          f'{hlo.describe(array)}: {source}'
          for array, source in sorted(arrays.items(), key=lambda x: -x[0].bytes)
      ][:10],
  }


def refusal(message: str) -> dict:
  """The fields of a row for a program that does not fit."""
  row = dict.fromkeys([*COLUMNS.values(), 'outputs_gib', 'alias_gib'])
  for field in ('program', 'topology', 'mesh', 'clips'):
    del row[field]
  lines = [line for line in message.splitlines() if 'exceed' in line.lower()]
  return row | {'fits': False, 'refused': (lines or [message])[0][:300]}


def predicted_gib(base: dict, topology: str, config) -> float:
  """Memory of a device, from a row of another topology.

  The state by the devices that share it, all else by clips of a device. Too
  much by what does not grow with the clips, as gathered parameters.
  """
  size = math.prod(int(n) for n in topology.split(':')[1].split('x'))
  fsdp = config.mesh.fsdp or math.gcd(size, partitioning.MAX_FSDP)
  state = base['arguments_gib'] * int(base['mesh'].split('x')[1]) / fsdp
  clips = config.batch_size / size
  return state + base['temporaries_gib'] * clips / base['clips']


def candidates(config, base: dict, generation: str) -> list[tuple[str, float]]:
  """[(topology, predicted GiB)]: the smallest that should fit, the next below.

  Raises:
    ValueError: none in our list should fit.
  """
  chip = CHIPS[generation]
  sized = [f'{generation}:{shape}' for shape in SHAPES[chip.dimensions]]
  predicted = [(name, predicted_gib(base, name, config)) for name in sized]
  fits = [gib <= chip.hbm_gib - RESERVED_GIB for _, gib in predicted]
  if not any(fits):
    raise ValueError(f'--fewest: no {generation} pod up to {sized[-1]} fits.')
  first = fits.index(True)
  return predicted[max(0, first - 1) : first + 1][::-1]


def make_config(flag: str, overrides: list[str]):
  """'configs/kinetics.py:smoke' and '--config.FIELD=VALUE's -> a config.

  Raises:
    ValueError: no such file, or an argument that is none of ours.
  """
  path, _, variant = flag.partition(':')
  name = pathlib.Path(path).stem
  folder = pathlib.Path(__file__).parents[1] / 'configs'
  if not (folder / f'{name}.py').exists():
    raise ValueError(f'--config is {flag!r}; configs/ has no {name}.py.')
  config = cases.load_config(name, variant or None).lock()
  for argument in overrides:
    found = re.fullmatch(r'--config\.([\w.]+)=(.*)', argument)
    if not found:
      raise ValueError(f'unknown argument {argument!r}.')
    field, value = found.groups()
    try:
      value = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      pass  # a string
    try:
      config.update_from_flattened_dict({field: value})
    except (AttributeError, KeyError, TypeError) as error:
      raise ValueError(f'--config.{field}: {error}') from error
  config.sample.batch_size = config.batch_size
  return config


def table_row(row: dict) -> dict:
  """A row with a cell for each kind of collective, 'count (GiB)'."""
  cells = dict.fromkeys(hlo.KINDS)
  for kind, total in (row.get('collectives') or {}).items():
    cells[kind] = f'{total["count"]} ({total["bytes"] / 2**30:.2f})'
  return row | cells


def parse(argv: list[str] | None):
  """(arguments, the config overrides among them)."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
      allow_abbrev=False,
  )
  listed = lambda text: [part for part in text.split(',') if part]
  parser.add_argument('--config', required=True, help='configs/NAME[:variant]')
  parser.add_argument('--topology', type=listed, required=True)
  parser.add_argument('--program', type=listed, default=['train'])
  parser.add_argument('--fewest', type=listed, default=[])
  parser.add_argument('--level', choices=('O0', 'O1', 'O2', 'O3'), default='O1')
  parser.add_argument('--hlo', default='', help='folder for the HLO')
  return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the rows and at last their table.

  Raises:
    ValueError: a bad argument, before any compile.
  """
  args, overrides = parse(argv)
  config = make_config(args.config, overrides)
  for name in args.program:
    if name not in PROGRAMS:
      raise ValueError(
          f'--program holds {name!r}; it takes {", ".join(PROGRAMS)}.'
      )
  for generation in args.fewest:
    if generation not in CHIPS:
      raise ValueError(
          f'--fewest holds {generation!r}; it takes {", ".join(CHIPS)}.'
      )
  if args.fewest and 'train' not in args.program:
    raise ValueError('--fewest is about training; --program must hold train.')
  for topology in args.topology:
    chip_of(topology)
  use_libtpu()
  jax.config.update('jax_optimization_level', args.level)
  software = f'jax {jax.__version__}, libtpu {metadata.version("libtpu")}'
  rows = []

  def add(program, topology, **fields):
    row = measure(config, program, topology, args.hlo)
    row = {'config': args.config, **row, **fields, 'software': software}
    rows.append(timing.emit(row))

  for topology in args.topology:
    for program in args.program:
      add(program, topology)
  fitting = [r for r in rows if r['program'] == 'train' and r['fits']]
  # Of many clips a device: what does not grow with them weighs least there.
  base = max(fitting, key=lambda row: row['clips'], default=None)
  if args.fewest and base is None:
    print('--fewest: no train step fits from which to predict.')
  for generation in args.fewest if base else ():
    for topology, gib in candidates(config, base, generation):
      if topology not in args.topology:
        add('train', topology, predicted_gib=round(gib, 1))
  timing.print_table([table_row(row) for row in rows], COLUMNS)
  return rows


if __name__ == '__main__':
  try:
    main()
  except ValueError as error:
    sys.exit(f'compile_for_topology: {error}')
