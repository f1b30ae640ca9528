"""Two processes of two devices each, and signals in every phase."""
import json
import os
import re
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from tests.end_to_end.test_train import metrics
from tests.support.waiting import LIMIT
from tests.support.waiting import until

FLOAT32 = {'JAX_DEFAULT_MATMUL_PRECISION': 'highest'}
FLAGS = (
    '--config.model.dtype=float32',
    '--config.mesh.fsdp=2',
    '--config.mesh.min_sharded=64',
)
STEPS = 12
KEPT = 6  # the checkpoint before the last of a run of so many steps
SAVES = f'--config.checkpoint.every={KEPT}'
# A run that does not end by itself before it is met, however late that is.
ENDLESS = '--config.train.steps=2000'


def start_pod(start_main, *flags, processes=2, devices=2, tiny=True):
  """Popens of processes that know each other; `tiny` as of start_main."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  return [
      start_main(
          *FLAGS, *flags,
          f'--coordinator=127.0.0.1:{port}',
          f'--num_processes={processes}',
          f'--process_id={i}',
          f'--config.mesh.processes={processes}',
          devices=devices,
          tiny=tiny,
          JAX_CPU_COLLECTIVES_IMPLEMENTATION='gloo',
          **FLOAT32,
      )
      for i in range(processes)
  ]


def finish(processes):
  """[(code, output)] of all."""
  try:
    outputs = [p.communicate(timeout=LIMIT)[0] for p in processes]
  finally:
    for p in processes:
      p.kill()
  codes = [p.returncode for p in processes]
  return list(zip(codes, outputs, strict=True))


@pytest.fixture(scope='session')
def pod_run(once, start_main):
  """The workdir of an uninterrupted run of STEPS on two processes."""

  def make(folder):
    for code, output in finish(
        start_pod(
            start_main, f'--workdir={folder}', SAVES,
            f'--config.train.steps={STEPS}',
        )
    ):
      assert code == 0, output

  return once('pod', make)


def test_devices_of_a_pod_give_the_losses_of_one(pod_run, finished):
  one, pod = metrics(finished[0]), metrics(pod_run)
  assert sorted(one) == list(range(1, 7))
  np.testing.assert_allclose(
      [one[step]['loss'] for step in one],
      [pod[step]['loss'] for step in one],
      rtol=1e-5,
  )


def test_a_pod_is_killed_and_stopped_and_resumes_bit_for_bit(
    pod_run, start_main, tmp_path
):
  pod = start_pod(start_main, f'--workdir={tmp_path}', ENDLESS)
  until((tmp_path / 'checkpoints' / '2').exists, pod[0])
  pod[1].send_signal(signal.SIGKILL)
  pod[1].wait()
  pod[0].send_signal(signal.SIGKILL)
  killed, reached = finish(pod), max(metrics(tmp_path))
  assert killed[1][0] == -signal.SIGKILL and killed[0][0] != 0
  # Continued, then stopped by a signal to one of them alone.
  begun = (tmp_path / 'metrics.jsonl').stat().st_size
  pod = start_pod(start_main, f'--workdir={tmp_path}', SAVES, ENDLESS)
  until(lambda: (tmp_path / 'metrics.jsonl').stat().st_size > begun, pod[0])
  pod[1].send_signal(signal.SIGTERM)
  stopped = finish(pod)
  for code, output in stopped:
    assert code == 75 and 'Traceback' not in output, output
  start = continued_from(stopped[0][1])
  assert 2 <= start <= reached
  saved = newest_checkpoint(tmp_path)
  assert saved == max(metrics(tmp_path)) > start
  # Continued to an end.
  steps = max(STEPS, saved + 3)
  (code, output), (other, _) = finish(
      start_pod(
          start_main, f'--workdir={tmp_path}', SAVES,
          f'--config.train.steps={steps}',
      )
  )
  assert code == other == 0 and continued_from(output) == saved, output
  print(f'killed behind {reached}, continued from {start}, stopped at {saved}')
  ours = every_loss(tmp_path)
  # What was done twice was the same twice, and the same as without a kill.
  assert sorted(step for step, *_ in ours) == list(range(1, steps + 1))
  assert {line for line in ours if line[0] <= STEPS} == every_loss(pod_run)


def continued_from(output):
  return int(re.search(r'Continuing .* from step (\d+)\.', output)[1])


def newest_checkpoint(workdir):
  """The step of the newest checkpoint that is whole."""
  names = [path.name for path in (workdir / 'checkpoints').iterdir()]
  return max(int(name) for name in names if name.isdigit())


def every_loss(workdir):
  """{(step, loss, gradient norm)}, also of lines that a restart repeats."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {
      (line['step'], line['loss'], line['grad_norm'])
      for line in map(json.loads, lines)
      if 'loss' in line
  }


def test_a_checkpoint_of_a_pod_moves_to_one_device_and_on_to_two(
    pod_run, run_main_here, run_main, tmp_path
):
  """The two share each example, and hold whole what is not split by this."""
  workdir = tmp_path / 'run'
  shutil.copytree(
      pod_run / 'checkpoints' / str(KEPT),
      workdir / 'checkpoints' / str(KEPT),
  )
  shutil.copy(pod_run / 'config.json', workdir)
  code, output = run_main_here(
      f'--workdir={workdir}', '--config.train.steps=9'
  )
  assert code == 0 and continued_from(output) == KEPT, output
  code, output = run_main(
      f'--workdir={workdir}', '--config.train.steps=11',
      '--config.mesh.model=2', devices=2, **FLOAT32,
  )
  assert code == 0 and continued_from(output) == 9, output
  assert 'mesh 1 data x 1 fsdp x 2 model' in output
  ours, whole = metrics(workdir), metrics(pod_run)
  relative = {
      step: abs(ours[step]['loss'] / whole[step]['loss'] - 1)
      for step in range(KEPT + 1, 12)
  }
  print(f'one device, then two, against four, relative: {relative}')
  assert max(relative.values()) < 1e-5


def arrays(path):
  with np.load(path) as file:
    return dict(file)


def test_every_process_writes_the_clips_that_it_drew(
    copied_run, start_main, run_main
):
  """Blocks of an extension, each knowing the one before, of 16 clips."""
  flags = (
      '--mode=sample', f'--workdir={copied_run}',
      '--config.sample.num_videos=16',
      '--config.sample.batch_size=8', '--config.sample.frames=3',
      '--config.mesh.fsdp=2', '--config.mesh.min_sharded=64',
  )
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  for code, output in finish([
      start_main(
          *flags, f'--coordinator=127.0.0.1:{port}', '--num_processes=2',
          f'--process_id={i}', tiny=False, devices=2,
          JAX_CPU_COLLECTIVES_IMPLEMENTATION='gloo', **FLOAT32,
      )
      for i in range(2)
  ]):
    assert code == 0, output
  folder = copied_run / 'samples' / 'step_6_seed_0'
  parts = [arrays(folder / f'samples_{i}.npz') for i in range(2)]
  # Of each batch of eight the first half is the first process's.
  assert parts[0]['clip'].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
  names = {path.name for path in folder.iterdir()}
  assert {f'clip_{i:04d}.mp4' for i in range(16)} <= names
  assert 'grid.gif' in names and not any('blocks' in name for name in names)
  code, output = run_main(*flags, tiny=False, devices=4, **FLOAT32)
  assert code == 0, output
  alone = arrays(folder / 'samples.npz')
  assert not (folder / 'samples_0.npz').exists()
  for part in parts:
    np.testing.assert_array_equal(
        part['labels'], alone['labels'][part['clip']]
    )
    # Rounding to whole numbers may fall to either side.
    gap = part['video'].astype(int) - alone['video'][part['clip']]
    assert np.abs(gap).max() <= 1
  assert alone['video'].std() > 10


def test_ctrl_c_to_one_process_saves_and_ends_both(start_main, tmp_path):
  pod = start_pod(
      start_main, f'--workdir={tmp_path}', ENDLESS,
      '--config.checkpoint.every=5000',
  )
  until((tmp_path / 'metrics.jsonl').exists, pod[0])
  pod[1].send_signal(signal.SIGINT)
  for code, output in finish(pod):
    assert code == 130 and 'Traceback' not in output, output
  assert newest_checkpoint(tmp_path) == max(metrics(tmp_path))


def test_a_worker_alone_is_one_sentence(run_main_here, tmp_path):
  code, output = run_main_here(
      f'--workdir={tmp_path}', '--config.mesh.processes=4'
  )
  assert code == 1 and 'mesh.processes is 4' in output
  assert 'Traceback' not in output and 'Compiled' not in output
  code, output = run_main_here(
      f'--workdir={tmp_path}', '--coordinator=localhost:1'
  )
  assert code == 1 and 'belong together' in output


# Phase -> (flags, the line of the log after which the signal is sent, one that
# must not have come by then, the oldest step that may be left).
PHASES = {
    'compile': (
        (), 'jaxpr to MLIR module conversion jit(train_step)',
        'XLA compilation of jit(train_step)', 0,
    ),
    'step': ((ENDLESS,), 'step 9/', 'step 2000/', 9),
    'checkpoint': (
        (ENDLESS, '--config.checkpoint.every=1'), 'step 5/', 'step 2000/', 5,
    ),
    'sampling': (
        ('--config.log.sample_every=3', '--config.sample.num_steps=100000'),
        'XLA compilation of jit(sample_block)', '100%', 3,
    ),
    'evaluate': (
        ('--config.log.eval_every=3', '--config.eval.num_clips=800000'),
        'XLA compilation of jit(eval_step)', 'heldout_loss', 3,
    ),
}


def stop_in_a_save(process, folder):
  """Stops a process while a save is in flight; its unfinished checkpoint."""
  met = []

  def stopped():
    for path in folder.glob('*tmp*'):
      process.send_signal(signal.SIGSTOP)
      os.waitid(os.P_PID, process.pid, os.WSTOPPED)
      if path.exists():  # not finished in the meantime
        met.append(path)
        return True
      process.send_signal(signal.SIGCONT)
    return False

  until(stopped, process)
  return met[0]


TERM, INT = signal.SIGTERM, signal.SIGINT
# Sent to the process in a row -> its exit code.
SIGNALS = {
    'SIGTERM': ([TERM], 75), 'SIGINT': ([INT], 130),
    'SIGINT twice': ([INT, INT], 130),
}


@pytest.mark.parametrize('signals', SIGNALS)
@pytest.mark.parametrize('phase', PHASES)
def test_a_signal_in_every_phase(start_main, tmp_path, phase, signals):
  flags, line, too_late, oldest = PHASES[phase]
  extra = {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  process = start_main(
      f'--workdir={tmp_path}', '--config.checkpoint.every=1000', *flags,
      JAX_LOG_COMPILES='1', **(extra if phase == 'compile' else {}),
  )
  seen = ''
  while line not in seen:
    seen = process.stdout.readline()
    assert seen, process.wait()
  unfinished = None
  if phase == 'checkpoint':
    unfinished = stop_in_a_save(process, tmp_path / 'checkpoints')
  numbers, expected = SIGNALS[signals]
  began = time.monotonic()
  for number in numbers:
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.05)  # signals of one kind that are not taken yet are one
  rest, _ = process.communicate(timeout=LIMIT)
  seconds = time.monotonic() - began
  assert process.returncode == expected, rest
  assert too_late not in rest and 'Traceback' not in rest, rest
  assert 'KeyboardInterrupt' not in rest
  assert not (tmp_path / '.lock').exists()
  if len(numbers) > 1:
    print(f'{signals}, {phase}: {seconds:.2f} s until exit code {expected}')
    return  # it may have saved, if it was quicker than the second
  assert f'{signals}: ' in rest and f'Exit code {expected}.' in rest
  saved = {
      int(p.name) for p in (tmp_path / 'checkpoints').iterdir()
      if p.name.isdigit()
  }
  if unfinished is not None:  # the save in flight was completed
    assert int(unfinished.name.partition('.')[0]) in saved
  if phase == 'compile':
    assert not saved and 'no checkpoint is on disk' in rest
    assert not (tmp_path / 'metrics.jsonl').exists()
    lost = 0
  else:
    lost = max(metrics(tmp_path)) - max(saved)
    assert max(saved) >= oldest and lost == 0
  print(
      f'{signals}, {phase}: {lost} steps lost, {seconds:.2f} s until exit code '
      f'{process.returncode}'
  )


def test_updates_that_are_not_finite_are_skipped_then_end_the_run(
    run_main_here, tmp_path
):
  code, output = run_main_here(
      f'--workdir={tmp_path}', '--config.optim.lr=1e38',
      '--config.optim.warmup_steps=0', '--config.train.max_skips=3',
      '--config.train.steps=50',
  )
  assert code == 1 and '3 updates in a row were not finite' in output, output
  assert 'Traceback' not in output
  lines = (tmp_path / 'unusual_steps.jsonl').read_text().splitlines()
  assert sum('not finite' in line for line in lines) >= 3
  saved = [int(p.name) for p in (tmp_path / 'checkpoints').iterdir()]
  assert saved
