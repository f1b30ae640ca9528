"""The tables of teacher and students, of formulas in place of networks."""
import json
import shutil

import numpy as np
import pytest

from benchmarks import distillation
from benchmarks import distillation_rows
from tests.support import models
from tests.unit.benchmarks.test_tables import StandIn
import video_diffusion
from video_diffusion.config import data_options

BATCH = 4
STUDENT = (
    ('distill', 'num_steps', 2), ('distill', 'max_guidance_weight', 1.0),
)


def load(path, fields):
  """A model in place of the run of a folder."""
  student = 'steps' in str(path)
  model = models.make(
      label_sizes=(3, 6, 8, 3, 6, 8), params=1.2 if student else 1.0,
      fields=[('model', 'cond_dim', 8), *(STUDENT if student else ())],
      sampler='ddim', num_steps=2, batch_size=BATCH, **{
          name.removeprefix('sample.'): value for name, value in fields.items()
      },
  )
  data_options.complete(model.config)
  return model


@pytest.fixture
def runs(tmp_path):
  """The folder of one student, of two steps."""
  folder = tmp_path / 'students' / 'steps_2'
  folder.mkdir(parents=True)
  points = [
      {'step': 10, 'clips_per_second': 4.0}, {'step': 10, 'loss': 1.0},
      {'step': 30, 'clips_per_second': 2.0},
  ]
  (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, points)))
  (folder / 'config.json').write_text('{"batch_size": 8}')
  # Of the other rounds there are the minutes alone.
  for name in ('steps_32', 'steps_16', 'steps_any', 'steps_2_before'):
    shutil.copytree(folder, folder.parent / name)
  return folder.parent


@pytest.fixture
def call(runs, tmp_path, monkeypatch):
  """(*flags, samples) calls the benchmark."""
  monkeypatch.setattr(distillation.features_lib, 'I3DFeatures', StandIn)
  monkeypatch.setattr(distillation_rows, 'load', load)

  def main(*flags, samples=4, students=runs):
    distillation.main([
        'teacher', str(students), f'--out={tmp_path / "out"}',
        f'--samples={samples}',
        '--steps=3,2', '--weights=0,1', '--frames=8',
        '--draws=2', *flags,
    ])

  return main


def rows(folder, part):
  return json.loads((folder / f'{part}.json').read_text())['rows']


def test_all_parts(call, runs, tmp_path, capsys, monkeypatch):
  call()
  out = tmp_path / 'out'
  steps = rows(out, 'steps')
  assert [*steps] == [
      'real clips', 'ddim, 3 steps', 'dpmpp_2m, 3 steps', 'ddim, 2 steps',
      'dpmpp_2m, 2 steps', 'student, 2 steps',
  ]
  for name, found in steps.items():
    assert all(np.isfinite(found[c]) for c in distillation.COLUMNS['steps']
               if name != 'real clips' or c != 'seconds_a_batch')
    assert found['fvd_low'] <= found['fvd_high']
  guidance = rows(out, 'guidance')
  assert [*guidance] == [
      f'{name}, w = {w}'
      for name in ('two calls, 3 steps', 'student, 2 steps') for w in (0, 1)
  ]
  # Without guidance they are the samples of the other part.
  for name, same in (
      ('two calls, 3 steps, w = 0', 'ddim, 3 steps'),
      ('student, 2 steps, w = 0', 'student, 2 steps'),
  ):
    assert guidance[name]['fvd'] == steps[same]['fvd']
  one = guidance['student, 2 steps, w = 1']
  assert one['fvd'] != guidance['student, 2 steps, w = 0']['fvd']
  extended = rows(out, 'extension')
  assert [*extended] == ['ddim, 3 steps', 'student, 2 steps']
  for found in extended.values():
    assert {'fvd_1', 'fvd_2', 'change_within', 'change_at_seams'} <= {*found}
  rounds = rows(out, 'rounds')
  assert [*rounds] == ['steps_any', 'steps_32', 'steps_16', 'steps_2']
  cost = rounds['steps_2']
  minutes = (10 * 8 / 4 + 20 * 8 / 2) / 60  # of batches of eight
  assert (cost['updates'], cost['minutes']) == (30, round(minutes, 2))
  assert (out / 'strip.gif').stat().st_size

  # A second call measures nothing, and prints the same tables.
  printed = capsys.readouterr().out
  assert '| student, 2 steps |' in printed and '| fvd_1 | fvd_2 |' in printed
  monkeypatch.setattr(distillation_rows, 'sample', None)
  call()
  again = capsys.readouterr().out
  assert again and again in printed
  with pytest.raises(SystemExit, match='rows of samples 4, not 5; pass ano'):
    call(samples=5)
  with pytest.raises(SystemExit, match='rows of draws 2, not 3; pass another'):
    call('--draws=3')
  (runs / 'steps_3').mkdir()
  with pytest.raises(SystemExit, match="rows of student_steps {'2': 7}, not"):
    call()
  others = runs.rename(tmp_path / 'others')
  (others / 'steps_3').rmdir()
  with pytest.raises(SystemExit, match="rows of students '.*students', not"):
    call(students=others)


@pytest.mark.parametrize('flag, sentence', [
    ('--weights=0,2', 'guidance_weight is 2; this model was distilled for'),
    ('--frames=5', 'it must be a multiple of the 4 frames of a block'),
    ('--fast', "unknown argument '--fast'"),
    ('--steps=8,4', r'holds no student of \[8, 4\] steps'),
])
def test_what_does_not_fit_is_a_sentence(call, flag, sentence):
  with pytest.raises(SystemExit, match=sentence):
    call('--parts=guidance,extension', flag)


def test_the_teacher_must_be_a_run(runs, tmp_path):
  with pytest.raises(SystemExit, match='config.json'):
    distillation.main([str(tmp_path), str(runs), f'--out={tmp_path}'])


def test_frames_that_are_added_one_by_one_have_a_seam_each(monkeypatch):
  config = video_diffusion.get_config('moving_shapes:demo')
  config.data.frames = 4
  clips = distillation_rows.Clips(
      config, 2, StandIn(None, resize='reference'), draws=2
  )
  videos = np.zeros((2, 8, 16, 16, 3), np.uint8)
  videos[:, 4::2] = 255  # it changes whenever a frame is added
  monkeypatch.setattr(distillation_rows, 'sample', lambda *_, **__: videos)
  found = clips.extend(
      models.make(fields=[('extension', 'context', 'aligned')]), 8
  )
  assert (found['change_within'], found['change_at_seams']) == (0.0, 2.0)


def test_real_clips_show_what_samples_are_asked_for():
  config = video_diffusion.get_config('moving_shapes:text')
  clips = distillation_rows.Clips(
      config, 2, StandIn(None, resize='reference'), draws=2
  )
  assert clips.real()['all'] == 1
  config.model.cond_dim = 0  # nothing is asked for
  clips = distillation_rows.Clips(
      config, 2, StandIn(None, resize='reference'), draws=2
  )
  assert 'all' not in clips.real()
