"""The main job end to end."""
import json
import signal

import numpy as np
import pytest

from tests.support.waiting import until
import video_diffusion


def metrics(workdir):
  """step -> the newest line that was written for it."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {line['step']: line for line in map(json.loads, lines)
          if 'loss' in line}


def losses(workdir):
  return {
      step: (line['loss'], line['grad_norm'])
      for step, line in metrics(workdir).items()
  }


def test_a_run_leaves_what_it_promises(finished):
  workdir, output = finished
  assert sorted(metrics(workdir)) == [1, 2, 3, 4, 5, 6]
  line = metrics(workdir)[6]
  assert line['clips_per_second'] > 0 and line['tflops_per_second'] > 0
  assert all(np.isfinite(value) for value in line.values())
  assert 'learning_rate' in line
  assert any(name.startswith('loss_bucket') for name in line)
  for name in ('samples/step_6.gif', 'samples/step_6.mp4', 'config.json'):
    assert (workdir / name).stat().st_size > 100
  assert [p.name for p in workdir.glob('events.*')]
  steps = {p.name for p in (workdir / 'checkpoints').iterdir()}
  assert {'4', '6'} <= steps and '2' not in steps
  for words in ('step 6/6', 'conv_in', 'heldout_loss', 'palette share'):
    assert words in output


def test_sigkill_and_the_same_command_continue_bit_for_bit(
    finished, start_main, run_main_here, tmp_path
):
  whole, _ = finished
  process = start_main(f'--workdir={tmp_path}')
  # Killed with a checkpoint behind it, in the middle of the steps after it.
  until((tmp_path / 'checkpoints' / '2').exists, process)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  code, output = run_main_here(f'--workdir={tmp_path}')
  assert code == 0, output
  assert losses(tmp_path) == losses(whole)


def test_a_longer_run_continues_and_a_finished_one_ends_at_once(
    run_main_here, tmp_path, finished
):
  code, output = run_main_here(
      f'--workdir={tmp_path}', '--config.train.steps=3'
  )
  assert code == 0, output
  # With the loader that TensorFlow makes, which is the default.
  code, output = run_main_here(
      f'--workdir={tmp_path}', '--config.checkpoint.keep=3',
      '--config.data.loader=tf',
  )
  assert code == 0 and 'from step 3' in output, output
  assert losses(tmp_path) == losses(finished[0])
  code, output = run_main_here(f'--workdir={tmp_path}')
  assert code == 0 and 'from step 6' in output, output
  assert 'Compiled' not in output


def test_the_options_beside_the_paper_continue_bit_for_bit(
    run_main_here, tmp_path
):
  options = [
      '--config.optim.name=muon', '--config.model.position=both',
      '--config.model.position_stddev=1.0', '--config.model.group_size=2',
      '--config.model.temporal_resolutions=(4,)',
      '--config.model.attention_resolutions=()', '--config.model.patch_size=2',
      '--config.model.spacetime_resolutions=(4,)',
      '--config.model.temporal_input=True',
      '--config.diffusion.weighting=sigmoid',
  ]
  for name, stops in {'whole': (4,), 'in_parts': (2, 4)}.items():
    for steps in stops:
      code, output = run_main_here(
          f'--workdir={tmp_path / name}', f'--config.train.steps={steps}',
          *options,
      )
      assert code == 0, output
  assert losses(tmp_path / 'in_parts') == losses(tmp_path / 'whole')
  model = video_diffusion.load(tmp_path / 'whole')
  assert model.sample(num_videos=1, num_steps=2).shape == (1, 2, 8, 8, 3)


def test_a_workdir_of_another_run_is_refused(finished, run_main_here):
  workdir, _ = finished
  code, output = run_main_here(
      f'--workdir={workdir}', '--config.optim.lr=0.5', '--config.seed=3'
  )
  assert code == 1
  assert 'optim.lr' in output and 'seed' in output and '0.5 now' in output
  assert 'Compiled' not in output and 'Traceback' not in output


def test_sampling_and_evaluation_take_the_model_of_the_run(
    copied_run, run_main_here
):
  workdir = copied_run
  code, output = run_main_here(
      f'--workdir={workdir}',
      '--mode=sample',
      '--config.sample.num_videos=5',
      '--config.sample.frames=3',
      '--config.sample.sampler=ddim',
      '--config.sample.labels=((0, 1, 2, -1, -1, -1), (1, 2, 3, 0, 0, 0))',
      tiny=False,
  )
  assert code == 0, output
  folder = workdir / 'samples' / 'step_6_seed_0'
  with np.load(folder / 'samples.npz') as arrays:
    assert arrays['video'].shape == (5, 3, 8, 8, 3)
    assert arrays['video'].dtype == np.uint8
    assert arrays['labels'][2].ravel().tolist() == [0, 1, 2, -1, -1, -1]
  names = {p.name for p in folder.iterdir()}
  assert {'grid.mp4', 'grid.gif', 'clip_0000.mp4', 'clip_0004.gif'} <= names
  code, output = run_main_here(
      f'--workdir={workdir}',
      '--mode=sample',
      '--config.model.base_channels=12',
      tiny=False,
  )
  assert code == 1 and '--config.model.base_channels cannot be set' in output
  code, output = run_main_here(
      f'--workdir={workdir}', '--mode=evaluate', tiny=False
  )
  assert code == 0, output
  result = json.loads((workdir / 'evaluation.json').read_text())
  assert result['step'] == 6 and result['clips'] == 16
  last = metrics_heldout(workdir)
  assert result['losses']['loss'] == pytest.approx(last, rel=1e-5)


def metrics_heldout(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  values = [
      line['heldout_loss/ema'] for line in map(json.loads, lines)
      if 'heldout_loss/ema' in line
  ]
  return values[-1]


def test_exported_weights_sample_the_same(copied_run, run_main_here, tmp_path):
  workdir = copied_run
  code, output = run_main_here(
      f'--workdir={workdir}', '--config.checkpoint.export=float32'
  )
  assert code == 0, output
  shared = tmp_path / 'shared'
  (shared / 'weights').mkdir(parents=True)
  for path in [workdir / 'config.json', *(workdir / 'weights').iterdir()]:
    (shared / path.relative_to(workdir)).write_bytes(path.read_bytes())
  videos = []
  for folder in (workdir, shared):
    code, output = run_main_here(
        f'--workdir={folder}', '--mode=sample', '--config.sample.seed=5',
        tiny=False,
    )
    assert code == 0, output
    with np.load(folder / 'samples/step_6_seed_5/samples.npz') as arrays:
      videos.append(arrays['video'])
  np.testing.assert_array_equal(*videos)


def test_a_full_disk_is_one_sentence(copied_run, run_main):
  workdir = copied_run
  limit = 'resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))'
  code, output = run_main(
      f'--workdir={workdir}', '--mode=evaluate', tiny=False,
      before=f'import resource\n{limit}',
  )
  last = output.strip().splitlines()[-1]
  assert code == 1 and last.startswith('video_diffusion: '), output
  assert 'evaluation.json' in last and 'make room' in last
  assert 'Traceback' not in output and not list(workdir.glob('*eval*'))


def test_damage_costs_steps_and_no_run(finished, copied_run, run_main_here):
  workdir = copied_run
  for item in ('state', 'ema'):
    for path in (workdir / 'checkpoints' / '6' / item / 'd').iterdir():
      data = bytearray(path.read_bytes())
      data[len(data) // 2] ^= 1
      path.write_bytes(data)
  code, output = run_main_here(
      f'--workdir={workdir}', '--mode=sample', tiny=False
  )
  assert code == 0 and 'videos of step 4' in output, output
  assert 'step 6' in output and 'cannot be read' in output
  assert (workdir / 'checkpoints' / '6').exists()
  code, output = run_main_here(f'--workdir={workdir}')
  assert code == 0 and 'from step 4' in output, output
  assert 'Traceback' not in output
  assert (workdir / 'checkpoints' / '6.damaged').exists()
  assert losses(workdir) == losses(finished[0])


def test_nothing_to_sample_is_one_sentence(run_main_here, tmp_path):
  for mode in ('sample', 'evaluate'):
    code, output = run_main_here(
        f'--workdir={tmp_path}/none', f'--mode={mode}', tiny=False
    )
    assert code == 1 and 'holds no run' in output
    assert 'Traceback' not in output


def write_clip(path, colour):
  av = pytest.importorskip('av')
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=10)
    stream.width = stream.height = 32
    stream.pix_fmt = 'yuv420p'
    for i in range(20):
      frame = np.zeros((32, 32, 3), np.uint8)
      frame[:, 2 * i : 2 * i + 8] = colour
      frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_a_folder_with_a_broken_file_trains_and_names_it(
    run_main_here, tiny_video_flags, tmp_path
):
  pytest.importorskip('tensorflow_datasets')
  folder = tmp_path / 'videos'
  (folder / 'deep').mkdir(parents=True)
  write_clip(folder / 'red.mp4', (255, 0, 0))
  write_clip(folder / 'deep' / 'blue.mp4', (0, 0, 255))
  (folder / 'broken.mp4').write_text('not a video')
  flags = [
      '--config=configs/video_folder.py:laptop',
      f'--config.data.path={folder}',
      f'--config.data.dir={tmp_path / "records"}',
      f'--workdir={tmp_path / "run"}',
  ]
  train = [*flags, *tiny_video_flags]
  code, output = run_main_here(*train, '--config.train.steps=2', tiny=False)
  assert code == 0, output
  assert 'skipped broken.mp4' in output
  assert (tmp_path / 'run' / 'samples' / 'step_2.gif').exists()
  code, output = run_main_here(*flags, '--mode=evaluate', tiny=False)
  assert code == 0 and 'skipped' not in output, output
  # Sampling needs no videos; training on others is refused.
  (folder / 'red.mp4').unlink()
  code, output = run_main_here(*flags, '--mode=sample', tiny=False)
  assert code == 0, output
  code, output = run_main_here(*train, '--config.train.steps=3', tiny=False)
  assert code == 1 and 'was trained on other data' in output, output


def test_an_empty_folder_is_one_sentence(run_main_here, tmp_path):
  code, output = run_main_here(
      '--config=configs/video_folder.py:laptop',
      f'--config.data.path={tmp_path}',
      f'--workdir={tmp_path / "run"}',
      tiny=False,
  )
  assert code == 1 and 'holds no file that ends in .mp4' in output
  assert 'Traceback' not in output
