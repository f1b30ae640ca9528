"""The variants beside the paper (docs/summary.md), at once, in each mode."""
import json
import shutil

import numpy as np

import video_diffusion

CONFIG = '--config=configs/moving_shapes.py:text'
OPTIONS = [
    '--config.model.cond_dim=8',
    '--config.text.injection=output',
    '--config.diffusion.prediction=x',
    '--config.model.heads=separate',
    '--config.model.conv=full_3d',
    '--config.extension.context=aligned',
    '--config.data.frames=3',
    '--config.extension.context_frames=2',
    '--config.extension.next_frames=2',
    '--config.sample.sampler=annealed_langevin',
]
PROMPT = 'a red circle moves right'


def losses(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {
      line['step']: (line['loss'], line['grad_norm'])
      for line in lines if 'loss' in line
  }


def test_variants_continue_bit_for_bit_and_reach_every_mode(
    run_main_here, tiny_flags, tmp_path
):
  def run(name, *flags):
    code, output = run_main_here(
        CONFIG, f'--workdir={tmp_path / name}', *flags, tiny=False
    )
    assert code == 0, output

  train = [*tiny_flags, *OPTIONS, '--config.checkpoint.export=float32']
  run('whole', *train, '--config.train.steps=4')
  for steps in (2, 4):
    run('in_parts', *train, f'--config.train.steps={steps}')
  whole, exported = tmp_path / 'whole', tmp_path / 'exported'
  assert losses(tmp_path / 'in_parts') == losses(whole)
  assert len(losses(whole)) == 4
  run('whole', '--mode=evaluate')
  report = json.loads((whole / 'evaluation.json').read_text())
  assert np.isfinite(report['losses']['loss'])
  assert np.isfinite(report['losses']['loss_next'])
  # Whoever has config, weights and tokenizer has the model.
  exported.mkdir()
  shutil.copytree(whole / 'weights', exported / 'weights')
  for name in ('config.json', 'tokenizer.model'):
    shutil.copy(whole / name, exported)
  run('whole', '--mode=sample', f'--prompt={PROMPT}')
  with np.load(whole / 'samples/step_4_seed_0/samples.npz') as kept:
    video = kept['video']
  assert video.shape == (1, 3, 8, 8, 3)
  model = video_diffusion.load(exported)
  np.testing.assert_array_equal(model.sample(prompts=[PROMPT]), video)
  # Frame by frame, from a video that it has sampled, or from one given frame,
  # before which one of the context is missing.
  longer = model.sample(frames=4, prompts=[PROMPT])
  np.testing.assert_array_equal(longer[:, :3], video)
  for given in (1, 2):
    longer = model.extend(video[0, :given], frames=3, prompts=[PROMPT])
    assert np.ptp(longer[0, given:]) > 0
    np.testing.assert_array_equal(longer[0, :given], video[0, :given])
  code, output = run_main_here(
      CONFIG, f'--workdir={whole}', '--mode=sample', f'--prompt={PROMPT}',
      '--config.sample.frames=4', '--config.sample.overlap=1', tiny=False,
  )
  assert code == 1 and 'sample.overlap is 1, but this model was' in output
