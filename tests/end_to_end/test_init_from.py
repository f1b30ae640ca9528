"""A run that begins from the weights of another, through main."""
import json
import shutil

import numpy as np
import pytest

from tests.end_to_end.test_train import losses
from tests.end_to_end.test_train import metrics_heldout
from video_diffusion.api import load as load_lib
from video_diffusion.training import state as state_lib


def ema(workdir, step=None):
  params = load_lib.load(str(workdir), step=step).params
  return {n: np.asarray(x) for n, x in state_lib.flatten(params).items()}


def curve(workdir, name):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {
      line['step']: line[name] for line in map(json.loads, lines)
      if name in line
  }


# Other clips, another learning rate, and a point of each curve at the start.
OTHER = (
    '--config.data.train_clips=100', '--config.optim.lr=0.01',
    '--config.optim.warmup_steps=0', '--config.optim.ema_decay=0.5',
    '--config.log.eval_every=2', '--config.checkpoint.keep=9',
)


@pytest.mark.parametrize('devices', [1, 4])
def test_a_run_begins_where_another_has_ended(
    devices, finished, run_main, run_main_here, tmp_path
):
  first = finished[0]
  flags = [
      *OTHER, f'--workdir={tmp_path}', f'--config.train.init_from={first}',
      '--config.train.steps=2', '--config.mesh.min_sharded=16',
  ]
  if devices == 1:
    code, output = run_main_here(*flags)
  else:
    code, output = run_main(*flags, devices=devices)
  assert code == 0, output
  assert f'EMA weights of step 6 in {first} (train.init_from)' in output
  assert 'start fresh' not in output and 'not used' not in output
  at_start = curve(tmp_path, 'heldout_loss/ema')[0]
  assert at_start == pytest.approx(metrics_heldout(first), rel=1e-6)
  assert at_start == curve(tmp_path, 'heldout_loss/raw')[0]
  theirs, mine = ema(first), ema(tmp_path, 0)
  for name, array in theirs.items():
    np.testing.assert_array_equal(mine[name], array)
  later = ema(tmp_path, 2)
  assert any(np.any(later[name] != theirs[name]) for name in theirs)
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['train']['init_from'] == str(first)


def test_it_continues_when_the_other_run_is_gone(
    copied_run, run_main_here, tmp_path
):
  call = (*OTHER, f'--config.train.init_from={copied_run}')
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  code, output = run_main_here(*call, f'--workdir={whole}')
  assert code == 0, output
  code, output = run_main_here(
      *call, f'--workdir={parts}', '--config.train.steps=2'
  )
  assert code == 0, output
  # As if killed before the first update: step 0 is on disk.
  shutil.rmtree(parts / 'checkpoints' / '2')
  shutil.rmtree(copied_run)
  code, output = run_main_here(*call, f'--workdir={parts}')
  assert code == 0 and 'from step 0' in output, output
  assert losses(parts) == losses(whole)
  assert sorted(curve(parts, 'heldout_loss/ema')) == [0, 2, 4, 6]
  # Nor do sampling and evaluation ask for it.
  for mode in ('sample', 'evaluate'):
    code, output = run_main_here(
        f'--mode={mode}', f'--workdir={parts}', tiny=False
    )
    assert code == 0, output
  # A new run does.
  code, output = run_main_here(*call, f'--workdir={tmp_path / "new"}')
  assert code == 1 and output.strip().splitlines()[-1] == (
      f'video_diffusion: train.init_from {copied_run} is no folder; give the '
      'folder of a run, or a copy of its config.json and weights/.'
  )


def test_another_network_is_one_sentence(finished, run_main_here, tmp_path):
  code, output = run_main_here(
      f'--workdir={tmp_path}', f'--config.train.init_from={finished[0]}',
      '--config.model.emb_dim=16',
  )
  assert code == 1 and 'Traceback' not in output
  last = output.strip().splitlines()[-1]
  assert last.startswith('video_diffusion: train.init_from') and (
      'model.emb_dim (8 there, 16 now)' in last
  )
  assert 'Compiled' not in output
