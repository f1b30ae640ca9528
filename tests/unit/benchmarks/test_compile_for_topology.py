import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from benchmarks import compile_for_topology
from benchmarks import hlo
from tests.support.paths import ROOT

# Compiled on eight CPU devices, which only a process of its own has.
PROGRAMS = """
import json
import jax
import jax.numpy as jnp
from video_diffusion.parallel import sharding
mesh = sharding.make_mesh(fsdp=8)
x = jax.ShapeDtypeStruct(
    (16, 64, 4), jnp.float32, sharding=sharding.batch_sharding(mesh))
network = lambda x: jnp.sin(x) @ jnp.ones((4, 6))
whole = lambda x: jax.lax.with_sharding_constraint(
    network(x), sharding.replicated(mesh))
with jax.set_mesh(mesh):
  print(json.dumps({
      name: jax.jit(fn).lower(x).compile().as_text() for name, fn in {
          'split': network, 'whole': whole, 'sum': lambda x: jnp.sum(x * x),
      }.items()}))
"""


@pytest.fixture(scope='module')
def programs():
  """Name -> instructions of a program of one of eight devices."""
  output = subprocess.run(
      [sys.executable, '-c', PROGRAMS], check=True, stdout=subprocess.PIPE,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '8'}, cwd=ROOT, text=True,
  ).stdout
  texts = json.loads(output.splitlines()[-1])
  return {name: list(hlo.instructions(text)) for name, text in texts.items()}


@pytest.fixture(scope='module')
def shapes():
  """Those of the network in PROGRAMS."""
  return hlo.traced_shapes(
      lambda x: jnp.sin(x) @ jnp.ones((4, 6)),
      jax.ShapeDtypeStruct((hlo.MARKER, 64, 4), jnp.float32),
  )


def held(program, shapes):
  return hlo.offenders(program, shapes, batch=16, devices=8, min_bytes=64)


def test_a_program_split_over_devices_has_no_offender(programs, shapes):
  sizes = {a.shape for i in programs['split'] for a in i.arrays}
  assert (2, 64, 6) in sizes and not held(programs['split'], shapes)


def test_a_batch_whole_on_every_device_is_found_and_named(programs, shapes):
  found = held(programs['whole'], shapes)
  assert (6, 16, 64) in {tuple(sorted(array.shape)) for array in found}
  assert any('dot_general' in source for source in found.values())


def test_the_batch_axis_is_told_from_channels_of_its_size():
  # A device's share is one row with 16 channels; the batch is 16 rows.
  line = '  %a = f32[{}]{{1,0}} add(%b, %c), metadata={{op_name="jit(f)/add"}}'
  shapes = {(hlo.MARKER, 16, 4), (16, 16, 4), (16, 3)}

  def check(dims):
    program = list(hlo.instructions(line.format(dims)))
    return hlo.offenders(
        program, shapes, batch=16, devices=16, min_bytes=1
    )

  assert not check('1,16,4') and not check('16,3')
  assert not check('16,16,4')  # a parameter of that size; told so
  shapes.remove((16, 16, 4))
  assert list(check('16,16,4').values()) == ['jit(f)/add']
  assert check('4,256')  # axes merged and swapped
  assert check('2,999')  # larger than anything computed


def test_collectives_are_counted_with_bytes_and_source(programs):
  (found,) = hlo.collectives(programs['sum'])
  assert (found.kind, found.bytes) == ('all-reduce', 4)
  assert 'reduce_sum' in found.source


def test_collectives_of_tpu_text():
  text = textwrap.dedent('''\
      %all-reduce-scatter.1 (p: bf16[16,8]) -> bf16[2,8] {
        %p = bf16[16,8]{1,0} parameter(0)
        %r = bf16[16,8]{1,0} all-reduce(%p), to_apply=%add
        ROOT %s = bf16[2,8]{1,0} dynamic-slice(%r), dynamic_slice_sizes={2,8}
      }

      ENTRY %main (a: f32[4,8]) -> f32[4,8] {
        %a = f32[4,8]{1,0:T(8,128)} parameter(0)
        %g = (f32[4,8], f32[32,8]{1,0}) all-gather-start(%a), dimensions={0}
        %h = f32[32,8]{1,0} all-gather-done(%g)
        %m = (f32[4,8]{1,0}, /*index=1*/pred[2]{0}) all-reduce(%a, %b)
        ROOT %t = f32[4,8] all-to-all(%a), metadata={op_name="f/jvp(m)/mul"}
      }
      ''')
  found = hlo.collectives(hlo.instructions(text))
  assert hlo.by_kind(found) == {
      'reduce-scatter': {'count': 1, 'bytes': 256},
      'all-gather': {'count': 1, 'bytes': 1024},
      'all-reduce': {'count': 1, 'bytes': 130},
      'all-to-all': {'count': 1, 'bytes': 128},
  }
  exchange = [c for c in found if c.kind == 'all-to-all']
  assert hlo.sources(exchange) == {'f/m/mul': 1}


def test_the_smallest_pod_is_predicted_by_bytes():
  config = compile_for_topology.make_config('configs/kinetics.py', [])
  base = {
      'mesh': '16x16x1', 'clips': 1.0, 'arguments_gib': 1.0,
      'temporaries_gib': 3.0,
  }
  # 128 chips hold two clips each, 1 + 6; 64 hold 1 + 12; 32 hold 1 + 24.
  find = lambda g: compile_for_topology.candidates(config, base, g)
  assert find('v5e') == [('v5e:8x8', 13.0), ('v5e:4x8', 25.0)]
  assert find('v4') == [('v4:2x4x4', 25.0), ('v4:2x2x4', 49.0)]
  # Eight share a state in two parts of 16.
  assert find('v5p')[1] == ('v5p:2x2x2', 98.0)


def test_a_refusal_is_a_row():
  row = compile_for_topology.refusal(
      'RESOURCE_EXHAUSTED: no\nUsed 49.8G of 30.75G hbm. Exceeded by 19.1G.\n'
  )
  assert row['fits'] is False and '49.8G of 30.75G' in row['refused']
  columns = compile_for_topology.COLUMNS
  named = {'program': '', 'topology': '', 'mesh': '', 'clips': 1}
  cells = compile_for_topology.table_row(row | named)
  assert all(field in cells for field in columns.values())


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('--topology=v9:4x4', 'v4:4x8x8'),
        ('--topology=v4:4x4', 'v4:4x8x8'),
        ('--program=draw', 'train, sample, predict'),
        ('--fewest=h100', 'v5e'),
        ('--config.model.remta=()', 'remta'),
        ('--verbose', 'unknown argument'),
    ],
)
def test_bad_arguments_are_one_sentence(argument, sentence):
  with pytest.raises(ValueError, match=sentence):
    compile_for_topology.main(
        ['--config=configs/kinetics.py', '--topology=v4:4x8x8', argument]
    )


@pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason='libtpu is not installed (extra "topology")',
)
def test_a_small_model_is_compiled_for_a_pod():
  rows = compile_for_topology.main([
      '--config=configs/kinetics.py:smoke', '--topology=v5e:2x4', '--level=O0',
      *(f'--config.{field}' for field in (
          'data.frames=2', 'data.images=1', 'model.base_channels=8',
          'model.channel_mults=(1,)', 'model.attention_resolutions=()',
          'model.head_dim=8', 'mesh.fsdp=4', 'mesh.min_sharded=64',
      )),
  ])
  (row,) = rows
  assert row['fits'] and row['devices'] == '8 x TPU v5 lite'
  assert row['mesh'] == '2x4x1' and row['clips'] == 1
  assert 0 < row['tflop'] < 1 and row['offenders'] == []
  assert row['collectives']['all-gather']['count'] > 0
