import json

import numpy as np
import pytest

from benchmarks import causes
from video_diffusion.config import data_options
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.filesystem import locks


def parse(tmp_path, *arguments):
  return causes.parse([*arguments, f'--out={tmp_path}', '--data=MNIST'])


@pytest.mark.parametrize('case', causes.CASES)
def test_every_case_is_a_config_that_trains(case, tmp_path):
  args = parse(tmp_path, case, '--config.data.train_clips=100')
  config = data_options.complete(causes.make_config(case, args))
  validate.check(config)
  assert config.data.train_clips == 100
  for field, value in causes.CASES[case].items():
    assert validate.field(config, field) == value


def test_seeds_and_steps(tmp_path):
  args = parse(tmp_path, 'reference@3', '--steps=50')
  config = causes.make_config('reference@3', args)
  assert (config.seed, config.train.steps, config.optim.decay_steps) == (
      3, 50, 50
  )
  assert causes.make_config('longer', args).train.steps == 100


def test_what_does_not_exist_is_named(tmp_path, capsys):
  with pytest.raises(SystemExit):
    parse(tmp_path, 'nothing')
  assert "'nothing' is no case" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    parse(tmp_path, 'muon', '--samplers=dpmpp_64,nothing')
  assert "'nothing' is none of dpmpp_64" in capsys.readouterr().err
  args = parse(tmp_path, 'muon', '--config.optim.nothing=1')
  with pytest.raises(UserError, match='--config.optim.nothing'):
    causes.make_config('muon', args)


def test_a_list_is_shared_and_what_was_stopped_is_run(
    tmp_path, monkeypatch, capsys
):
  run = []
  monkeypatch.setattr(causes, 'run', lambda case, args: run.append(case))
  (tmp_path / 'shift_1.json').write_text('{"dpmpp_64": {}}')
  # One that a call was stopped at has not been sampled by all samplers.
  (tmp_path / 'shift_4.json').write_text('{"ancestral_256": {}}')
  (tmp_path / 'runs' / 'shift_2').mkdir(parents=True)  # of a stopped call
  names = ['shift_1', 'shift_2', 'shift_3', 'shift_4']
  with locks.Lock(tmp_path / 'held' / 'shift_3'):
    causes.main([*names, f'--out={tmp_path}', '--data=MNIST'])
  assert run == ['shift_2', 'shift_4']
  assert 'shift_3 is passed over' in capsys.readouterr().out


def test_a_call_that_was_stopped_keeps_the_figures_that_it_has(
    tmp_path, monkeypatch
):
  sampled = []

  class Model:

    def sample(self, *, sampler, **kwargs):
      sampled.append(sampler)
      return np.full((2, 3, 4, 4, 3), 8 * len(sampled), np.uint8)

  monkeypatch.setattr(causes.video_diffusion, 'train', lambda *args: None)
  monkeypatch.setattr(causes.video_diffusion, 'load', lambda *args: Model())
  monkeypatch.setattr(causes, '_row', lambda *args: {'case': 'muon'})
  for samplers in ('dpmpp_64', 'dpmpp_64,ancestral_256'):
    (tmp_path / 'runs' / 'muon' / 'checkpoints').mkdir(parents=True)
    causes.main(
        ['muon', f'--out={tmp_path}', '--data=MNIST', f'--samplers={samplers}']
    )
  assert sampled == ['dpmpp_2m', 'ancestral']
  row = json.loads((tmp_path / 'muon.json').read_text())
  assert row.keys() == {'case', 'dpmpp_64', 'ancestral_256'}
  with np.load(tmp_path / 'muon.npz') as kept:
    assert {name: int(kept[name].max()) for name in kept} == {
        'dpmpp_64': 8, 'ancestral_256': 16,
    }
