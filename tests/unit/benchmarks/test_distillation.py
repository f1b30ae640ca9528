"""The table of teachers and students, of models with random weights."""
import json

import numpy as np
import pytest

from benchmarks import distillation
from benchmarks import distillation_rows
from tests.conftest import TINY
from tests.support import models
from tests.unit.benchmarks.test_tables import StandIn
import video_diffusion


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A teacher of captions, and students of two steps and of one."""
  folder = tmp_path_factory.mktemp('distillation')
  for name, fields in (
      ('teacher', {}),
      ('students/steps_2', {
          'distill.num_steps': 2, 'distill.max_guidance_weight': 1.0,
          'sample.sampler': 'ddim',
      }),
  ):
    config = video_diffusion.get_config('moving_shapes:text')
    config.update_from_flattened_dict({
        **TINY, 'model.cond_dim': 8, 'sample.batch_size': 4, **fields,
    })
    run = folder / name
    run.mkdir(parents=True)
    models.write_random(run, config)
  points = [
      {'step': 10, 'clips_per_second': 4.0}, {'step': 10, 'loss': 1.0},
      {'step': 30, 'clips_per_second': 2.0},
  ]
  (run / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, points)))
  return folder


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
  """(*flags) calls the benchmark; 'figures' of a part are read by `rows`."""
  monkeypatch.setattr(distillation.features_lib, 'I3DFeatures', StandIn)

  def main(*flags, samples=4):
    distillation.main([
        str(runs / 'teacher'), str(runs / 'students'), f'--out={tmp_path}',
        f'--samples={samples}', '--steps=2,1', '--weights=0,1', '--frames=4',
        '--draws=2', *flags,
    ])

  return main


def rows(folder, part):
  return json.loads((folder / f'{part}.json').read_text())['rows']


def test_all_parts(call, tmp_path, capsys, monkeypatch):
  call()
  steps = rows(tmp_path, 'steps')
  assert [*steps] == [
      'real clips', 'ddim, 2 steps', 'dpmpp_2m, 2 steps', 'student, 2 steps',
      'ddim, 1 steps', 'dpmpp_2m, 1 steps',
  ]
  for name, found in steps.items():
    assert all(np.isfinite(found[c]) for c in distillation.COLUMNS['steps']
               if name != 'real clips' or c != 'seconds_a_batch')
    assert found['fvd_low'] <= found['fvd_high']
  assert steps['real clips']['all'] == 1  # a clip shows its own caption
  guidance = rows(tmp_path, 'guidance')
  assert [*guidance] == [
      f'{name}, 2 steps, w = {w}'
      for name in ('two calls', 'student') for w in (0, 1)
  ]
  # Without guidance they are the samples of the other part.
  for name, same in (
      ('two calls, 2 steps, w = 0', 'ddim, 2 steps'),
      ('student, 2 steps, w = 0', 'student, 2 steps'),
  ):
    assert guidance[name]['fvd'] == steps[same]['fvd']
  one = guidance['student, 2 steps, w = 1']
  assert one['fvd'] != guidance['student, 2 steps, w = 0']['fvd']
  extended = rows(tmp_path, 'extension')
  assert [*extended] == ['ddim, 2 steps', 'student, 2 steps']
  for found in extended.values():
    assert {'fvd_1', 'fvd_2', 'change_within', 'change_at_seams'} <= {*found}
  minutes = (10 * TINY['batch_size'] / 4 + 20 * TINY['batch_size'] / 2) / 60
  assert rows(tmp_path, 'rounds') == {'steps_2': {
      **rows(tmp_path, 'rounds')['steps_2'], 'updates': 30,
      'minutes': round(minutes, 2),
  }}
  assert (tmp_path / 'strip.gif').stat().st_size

  # A second call measures nothing, and prints the same tables.
  printed = capsys.readouterr().out
  assert '| student, 2 steps |' in printed and '| fvd_1 | fvd_2 |' in printed
  monkeypatch.setattr(distillation_rows, 'sample', None)
  call()
  again = capsys.readouterr().out
  assert again and again in printed
  with pytest.raises(SystemExit, match='rows of samples 4, not 5; pass ano'):
    call(samples=5)


@pytest.mark.parametrize('flag, sentence', [
    ('--weights=0,2', 'guidance_weight is 2; this model was distilled for'),
    ('--frames=5', 'it must be a multiple of the 2 frames of a block'),
    ('--config.sample.num_step=3', 'sample.num_step'),
    ('--fast', "unknown argument '--fast'"),
])
def test_what_does_not_fit_is_a_sentence(call, flag, sentence):
  with pytest.raises(SystemExit, match=sentence):
    call('--parts=guidance,extension', flag)


def test_students_must_be_there(runs, tmp_path):
  with pytest.raises(SystemExit, match='holds no student of'):
    distillation.main([
        str(runs / 'teacher'), str(tmp_path), f'--out={tmp_path}'
    ])


def test_clips_of_other_data_are_not_read():
  config = video_diffusion.get_config('moving_mnist')
  assert distillation_rows._matcher(config, None, [])(None) == {}
