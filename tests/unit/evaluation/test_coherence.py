"""The evaluator of moving_shapes: real clips, broken ones, and a model."""
import itertools
import json
import types

import jax
import numpy as np
import pytest

from benchmarks import coherence as benchmark
from tests.support import models
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import coherence
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.evaluation import shapes_clips

BATCH = 8 * jax.device_count()
CLIPS = 4 * BATCH
SOURCE = shapes.MovingShapes(
    split='test', seed=0, num_examples=1000, num_frames=4, height=16, width=16,
    radius=0.25, speed=0.08,
)
NAMES = ['palette', *(
    f'{kind}{name}' for kind in ('one', 'two')
    for name in ('', '_kept', '_colours', '_last')
)]


def model(**fields):
  return models.make(side=16, fields=[
      ('data', 'name', 'moving_shapes'),
      ('eval', 'evaluators', ('coherence',)),
      ('eval', 'num_clips', CLIPS),
      ('eval', 'batch_size', BATCH),
  ], **fields)


def real(n, first=0):
  clips = itertools.islice(
      shapes_clips.real_clips(SOURCE, frames=4, first=first), n
  )
  return np.stack([clip['video'] for clip in clips])


def make(run, source=SOURCE):
  return evaluators_lib.make(models.run_of(run, source))['coherence']


def test_a_model_is_measured_beside_real_clips():
  run = model()
  measure = make(run)
  results = evaluators_lib.run({'coherence': measure}, {'ema': run})
  values = results['coherence']['ema']
  assert [*values] == [
      f'{kind}{name}' for kind in ('', 'real_', 'unrelated_') for name in NAMES
  ]
  assert json.loads(json.dumps(values)) == values
  for name in NAMES:
    if name not in ('one', 'two'):
      assert values[f'real_{name}'] == 1.0
  assert values['real_one'] + values['real_two'] == 1.0
  assert values['unrelated_one_kept'] < 0.1
  # The stand-in samples noise.
  assert values['palette'] < 0.5
  curves = evaluators_lib.as_curves({'coherence': measure}, results)
  assert curves['coherence_real_two_kept/ema'] == 1.0


def test_samples_like_real_clips_have_their_figures(monkeypatch):
  monkeypatch.setattr(beside_real, 'samples', lambda model: real(64, first=500))
  run = model()
  values = dict(make(run)(run))
  for name in NAMES[2:5] + NAMES[6:]:
    assert values[name] == 1.0


def test_what_breaks_a_clip_shows():
  figures = coherence.make_figures(model().config, SOURCE)
  videos = real(64)
  # From the second frame on red is blue, and blue is red.
  changed = videos.copy()
  changed[:, 1:] = changed[:, 1:, ..., ::-1]
  found, whole = figures(changed), figures(videos)
  assert found['one'] == whole['one'] and found['palette'] == 1.0
  # Green and magenta, a third of the colours, stay what they are.
  assert 0.1 < found['one_kept'] < 0.6
  assert found['one_kept'] == found['one_colours'] == found['one_last']
  # An empty frame in between is a gap, and the objects come back.
  gap = videos.copy()
  gap[:, 2] = 0
  assert figures(gap)['two_kept'] == 0.0 and figures(gap)['two_last'] == 1.0


def test_clips_of_other_data_are_one_sentence():
  run = model()
  two = mixture_lib.Mixture([SOURCE, SOURCE], [1, 1])
  begin = "^eval.evaluators holds 'coherence', which reads clips of moving_sh"
  with pytest.raises(UserError, match=f"{begin}.*data.name is 'moving_shapes'"):
    make(run, two)
  run.config.data.name = 'video_folder'
  with pytest.raises(UserError, match=f"{begin}.*data.name is 'video_folder'"):
    make(run, types.SimpleNamespace(num_examples=1))


def test_files_of_samples_are_measured(tmp_path, capsys):
  config = model().config
  config.data.update(
      frames=4, radius=SOURCE.radius, speed=SOURCE.speed, height=16, width=16
  )
  (tmp_path / 'config.json').write_text(config.to_json())
  videos = real(40, first=100)
  videos[:10, 1] = 0
  folders = [tmp_path / 'samples' / name for name in ('a', 'b')]
  for folder, part in zip(folders, (slice(25), slice(25, 40)), strict=True):
    folder.mkdir(parents=True)
    np.savez(folder / 'samples.npz', video=videos[part])
  found = benchmark.main([*map(str, folders)])
  assert found['real']['one_kept'] == found['real']['two_kept'] == 1.0
  samples = found['samples']
  kept = sum(samples[k] * samples[f'{k}_kept'] for k in ('one', 'two'))
  assert kept == pytest.approx(0.75) and samples['one_last'] == 1.0
  written = json.loads((folders[0] / 'coherence.json').read_text())
  assert written['unrelated'] == found['unrelated']
  rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()
          if line.strip()]
  assert rows[-3:] == ['samples', 'real', 'unrelated']
  with pytest.raises(SystemExit, match='coherence: .*samples.npz does not exi'):
    benchmark.main([str(tmp_path)])
