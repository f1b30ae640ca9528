"""A trained run is used from Python as it is from the command line."""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT
import video_diffusion
from video_diffusion import media


def change(run, folder, **data):
  """A copy of a run whose clips have other sizes.

  No array of the network depends on the size or the number of frames.
  """
  shutil.copytree(run, folder)
  path = folder / 'config.json'
  config = json.loads(path.read_text())
  config['data'] |= data
  path.write_text(json.dumps(config))
  return folder


@pytest.fixture
def runs(finished, tmp_path):
  """Copies of a run: frames two apart, and frames of twice the size."""
  return (
      change(finished[0], tmp_path / 'base', frames=4, frameskips=[2]),
      change(finished[0], tmp_path / 'fine', frames=4, height=16, width=16),
  )


def test_three_lines_without_tensorflow_clu_and_flags(finished, tmp_path):
  code = f'''
import sys
for name in ('tensorflow', 'tensorflow_datasets', 'clu'):
  sys.modules[name] = None  # an import of it fails
import video_diffusion
model = video_diffusion.load({str(finished[0])!r})
video_diffusion.write_video('two.mp4', model.sample(num_videos=2))
'''
  run = subprocess.run(
      [sys.executable, '-c', code], cwd=tmp_path, capture_output=True,
      text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  assert run.returncode == 0, run.stderr
  assert (tmp_path / 'two.mp4').stat().st_size


def test_training_is_a_call(tiny_config, finished, tmp_path):
  tiny_config.train.steps = 2
  video_diffusion.train(tiny_config, tmp_path / 'run')
  lines = [
      json.loads(line)
      for folder in (tmp_path / 'run', finished[0])
      for line in (folder / 'metrics.jsonl').read_text().splitlines()
  ]
  losses = {}
  for line in lines:
    if 'loss' in line:
      losses.setdefault(line['step'], set()).add(line['loss'])
  assert len(losses[1]) == len(losses[2]) == 1
  assert video_diffusion.load(tmp_path / 'run').step == 2


def test_evaluation_is_a_call(copied_run, run_main_here):
  code, output = run_main_here('--mode=evaluate', f'--workdir={copied_run}',
                               '--config.eval.num_clips=8', tiny=False)
  assert code == 0, output
  wanted = json.loads((copied_run / 'evaluation.json').read_text())
  found = video_diffusion.evaluate(copied_run, {'eval.num_clips': 8})
  assert found == wanted and found['losses']['loss'] > 0
  assert video_diffusion.evaluate(
      copied_run, {'eval.num_clips': 8}, step=4
  )['step'] == 4


@pytest.mark.parametrize('how', [
    'sample', 'extend', 'interpolate', 'upscale', 'cascade',
])
def test_the_videos_are_those_of_the_command_line(
    runs, run_main_here, tmp_path, how
):
  base, fine = runs
  video = np.zeros((5, 8, 8, 3), np.uint8)
  video[:] = np.arange(0, 250, 50)[:, None, None, None]
  if how == 'upscale':
    video = video[:, ::2, ::2]
  media.write_gif(tmp_path / 'a.gif', video, fps=8)
  given = f'--config.sample.video={tmp_path / "a.gif"}'
  flags = {
      'sample': ['--config.sample.frames=6'],
      'extend': [given, '--config.sample.frames=7'],
      'interpolate': [
          given, '--config.sample.task=interpolate', '--config.sample.factor=2',
      ],
      'upscale': [given, '--config.sample.upscale=2'],
      'cascade': [
          f'--config.sample.refine_workdir={fine}', '--config.sample.stride=2',
      ],
  }[how]
  code, output = run_main_here(
      '--mode=sample', f'--workdir={base}', '--config.sample.num_videos=2',
      '--config.sample.seed=3', *flags, tiny=False,
  )
  assert code == 0, output
  with np.load(base / 'samples' / 'step_6_seed_3' / 'samples.npz') as arrays:
    wanted = arrays['video']
  model = video_diffusion.load(base)
  call = dict(num_videos=2, seed=3)
  sample = {
      'sample': lambda: model.sample(frames=6, **call),
      'extend': lambda: model.extend(video, frames=7, **call),
      'interpolate': lambda: model.interpolate(video, factor=2, **call),
      'upscale': lambda: model.upscale(video, factor=2, **call),
      'cascade': lambda: video_diffusion.cascade(
          model, video_diffusion.load(fine)
      ).sample(**call),
  }[how]
  found = sample()
  assert found.dtype == np.uint8 and np.any(found[0] != found[1])
  np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(sample(), found)
