import io
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import agreement
from benchmarks import cases
from benchmarks import scaling
from benchmarks import step


def test_a_curve_has_a_loss_before_each_update():
  config = agreement.check_config('smoke', 'float32', 4)
  curve = agreement.compile_losses(config, cases.make_mesh(1))(6)
  assert len(curve) == 7 and np.all(np.isfinite(curve)) and len(set(curve)) == 7


def test_differences_are_relative_and_bounded():
  one = np.linspace(2, 1, 51)
  other = one * (1 + 1e-9)
  other[[4, 30]] *= 1 + np.array([1e-6, 5e-4])
  row, = agreement.differences({'one': list(one), 'two': list(other)})
  assert row['what'] == 'two' and row['largest_after'] == 30
  np.testing.assert_allclose(
      [row['within_5'], row['within_50'], row['after_all']],
      [1e-6, 5e-4, 1e-9], rtol=0.02,
  )
  assert not agreement.too_far(row)
  assert len(agreement.too_far(row | {'within_5': 2e-5})) == 1
  assert len(agreement.too_far(row | {'within_50': float('nan')})) == 1


def test_the_meshes():
  eight = cases.mesh_sizes(8)
  assert {name: str(size) for name, size in eight.items()} == {
      'one': '1 device',
      'data': '8, data 8',
      'fsdp': '8, FSDP 8',
      'fsdp_data': '8, FSDP 4 x data 2',
      'tensor_fsdp': '8, tensor 2 x FSDP 4',
  }
  assert [str(size) for size in cases.mesh_sizes(2).values()] == [
      '1 device', '2, data 2', '2, FSDP 2', '2, tensor 2',
  ]
  assert [*cases.mesh_sizes(3)] == ['one', 'data', 'fsdp']


# What stands for benchmarks/step.py: one that fails, and one that does not.
BROKEN = "print('compiled', flush=True); input(); raise SystemExit(3)"
STEP = """
print('a warning'); print('compiled', flush=True); input()
print('{"case": "smoke", "clips_per_second": %s}')
"""


def test_rows_are_timed_in_turn_and_one_that_fails_leaves_the_others(
    monkeypatch, capsys
):
  codes = {1: STEP % 10, 2: BROKEN, 4: 'raise SystemExit(1)', 8: STEP % 60}

  def start_row(case, batch, size, environment):
    del case, batch, environment
    return subprocess.Popen(
        [sys.executable, '-c', codes[size.devices]], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )

  monkeypatch.setattr(scaling, 'start_row', start_row)
  sizes = [cases.MeshSize(n) for n in (1, 2, 4, 8)]
  rows, failed = scaling.train_rows('smoke', 4, sizes)
  assert [row['efficiency'] for row in rows] == [1.0, 0.75]
  assert failed == [
      f'{sizes[i]}: the process has failed.' for i in (1, 2)
  ]
  printed = capsys.readouterr().out.splitlines()
  assert [json.loads(line) for line in printed] == rows
  codes[1] = BROKEN  # without one device there is nothing to compare with
  assert scaling.train_rows('smoke', 4, sizes) == (
      [], ['1 device: the process has failed.']
  )


def test_a_process_that_nobody_waits_for_ends(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'stdin', io.StringIO('\n'))
  step.wait_for_turn()
  with pytest.raises(SystemExit, match='Nobody'):
    step.wait_for_turn()
  assert capsys.readouterr().out.split() == [step.COMPILED] * 2


@pytest.mark.parametrize('flags, words', [
    (['--devices=1'], 'at least 2'),
    (['--devices=3', '--meshes=fsdp_data'], '3 devices have no fsdp_data'),
    (['--devices=8', '--meshes=one'], "'one' is none of"),
    (['--devices=8', '--check'], '--out DIR'),
    (['--devices=8', '--check', '--out=a', '--batch=12'], 'divides by'),
    (['--devices=8', '--batch=0'], 'at least 1'),
])
def test_flags_that_are_refused(flags, words, capsys):
  with pytest.raises(SystemExit):
    scaling.main(flags)
  assert words in capsys.readouterr().err
