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
from importlib import metadata
import math
import pathlib
import sys
import time

import jax

from benchmarks import cases
from benchmarks import hlo
from benchmarks import lowering
from benchmarks import timing
from tests.support.paths import ROOT
from video_diffusion.errors import UserError
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding

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


def measure(config, program: str, topology: str, folder: str = '') -> dict:
  """One row; the program's HLO is written to `folder`."""
  chip, mesh = lowering.chip_of(topology), lowering.make_mesh(config, topology)
  devices = sharding.batch_devices(mesh)
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
  lower = lowering.lower_train if program == 'train' else lowering.lower_sample
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


def figures(compiled, chip: lowering.Chip) -> dict:
  """The fields of a row that the compiler tells."""
  sizes, cost = compiled.memory_analysis(), compiled.cost_analysis()
  gib = lambda count: round(count / 2**30, 2)
  compute = cost['flops'] / chip.tflops / 1e9
  move = cost['bytes accessed'] / chip.hbm_gb_per_second / 1e6
  return {
      'fits': True,
      'arguments_gib': gib(sizes.argument_size_in_bytes),
      'outputs_gib': gib(sizes.output_size_in_bytes),
      'alias_gib': gib(sizes.alias_size_in_bytes),
      'temporaries_gib': gib(sizes.temp_size_in_bytes),
      'peak_gib': gib(sizes.peak_memory_in_bytes),
      'needed_gib': gib(memory.program_bytes(compiled)),
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
  fsdp = config.mesh.fsdp or math.gcd(size, sharding.MAX_FSDP)
  state = base['arguments_gib'] * int(base['mesh'].split('x')[1]) / fsdp
  clips = config.batch_size / size
  return state + base['temporaries_gib'] * clips / base['clips']


def candidates(config, base: dict, generation: str) -> list[tuple[str, float]]:
  """[(topology, predicted GiB)]: the smallest that should fit, the next below.

  Raises:
    UserError: none in our list should fit.
  """
  chip = lowering.CHIPS[generation]
  shapes = lowering.SHAPES[chip.dimensions]
  sized = [f'{generation}:{shape}' for shape in shapes]
  predicted = [(name, predicted_gib(base, name, config)) for name in sized]
  fits = [gib <= chip.hbm_gib - lowering.RESERVED_GIB for _, gib in predicted]
  if not any(fits):
    raise UserError(f'--fewest: no {generation} pod up to {sized[-1]} fits.')
  first = fits.index(True)
  return predicted[max(0, first - 1) : first + 1][::-1]


def make_config(flag: str, overrides: list[str]):
  """'configs/kinetics.py:smoke' and '--config.FIELD=VALUE's -> a config.

  Raises:
    UserError: no such file, or an argument that is none of ours.
  """
  path, _, variant = flag.partition(':')
  name = pathlib.Path(path).stem
  folder = ROOT / 'configs'
  if not (folder / f'{name}.py').exists():
    raise UserError(f'--config is {flag!r}; configs/ has no {name}.py.')
  config = cases.load_config(name, variant or None).lock()
  cases.set_fields(config, overrides)
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
    UserError: a bad argument, before any compile.
  """
  args, overrides = parse(argv)
  config = make_config(args.config, overrides)
  for name in args.program:
    if name not in PROGRAMS:
      raise UserError(
          f'--program holds {name!r}; it takes {", ".join(PROGRAMS)}.'
      )
  for generation in args.fewest:
    if generation not in lowering.CHIPS:
      raise UserError(
          f'--fewest holds {generation!r}; it takes '
          f'{", ".join(lowering.CHIPS)}.'
      )
  if args.fewest and 'train' not in args.program:
    raise UserError('--fewest is about training; --program must hold train.')
  for topology in args.topology:
    lowering.chip_of(topology)
  lowering.use_libtpu()
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
  except UserError as error:
    sys.exit(f'compile_for_topology: {error}')
