"""Ctrl-C where nothing trains, twice, or ignored; SIGTERM on a full disk."""
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.end_to_end import test_pod
from tests.support.waiting import LIMIT
from tests.support.waiting import until

TERM, INT = signal.SIGTERM, signal.SIGINT
WATCH = """
import sys, time
from absl import logging
from video_diffusion.training import preemption
logging.set_verbosity(logging.INFO)
watch = preemption.Preemption()
watch.start()
{then}
print('ready', flush=True)
time.sleep(600)
"""


def watching(then='', **options):
  """A process that watches for signals, once it does."""
  process = subprocess.Popen(
      [sys.executable, '-c', WATCH.format(then=then)], text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      env={**os.environ, 'PYTHONPATH': os.getcwd()}, **options,
  )
  read_until(process, 'ready')
  return process


def read_until(process, words):
  seen, line = [], ''
  while words not in line:
    line = process.stdout.readline()
    assert line, (process.wait(), seen)
    seen.append(line)
  return ''.join(seen)


def ended(process, *numbers):
  """(exit code, output) after signals that come one after the other."""
  for number in numbers:
    process.send_signal(number)
  output, _ = process.communicate(timeout=LIMIT)
  return process.returncode, output


def test_one_ctrl_c_waits_for_a_step_and_a_second_one_does_not():
  process = watching('watch.hold()')
  process.send_signal(INT)
  read_until(process, 'the step in work is ended and saved first')
  assert process.poll() is None
  code, output = ended(process, INT)
  assert code == 130 and 'Traceback' not in output, output
  assert 'Ctrl-C again: ended at once, without a save.' in output


def test_ctrl_c_that_the_parent_has_switched_off_stays_off():
  process = watching(preexec_fn=lambda: signal.signal(INT, signal.SIG_IGN))
  code, output = ended(process, INT, TERM)
  assert code == 75 and 'SIGINT' not in output, output


@pytest.mark.parametrize('then, number, expected, words', [
    # A step that ends in time is left behind its save.
    (
        "watch.before_exit(lambda: 'step 7 is saved')\nwatch.hold()\n"
        "print('ready', flush=True)\n"
        'while not watch.requested: time.sleep(0.01)\nwatch.release()',
        INT, 130, 'SIGINT: step 7 is saved; the same command continues.',
    ),
    # A failed save has no exit code that asks to start again.
    (
        'from video_diffusion.errors import UserError\n'
        'def fail(): raise UserError("step 7 could not be written.")\n'
        'watch.before_exit(fail)',
        TERM, 1, 'SIGTERM: step 7 could not be written. Exit code 1.',
    ),
    # A bug keeps its traceback, and ends the process all the same.
    (
        'def fail(): return {}["bug"]\nwatch.before_exit(fail)',
        TERM, 1, 'SIGTERM: Exit code 1.',
    ),
])
def test_what_is_said_before_the_exit(then, number, expected, words):
  code, output = ended(watching(then), number)
  assert code == expected and words in output, output
  assert ('Traceback' in output) == ("KeyError: 'bug'" in output)
  assert ("KeyError: 'bug'" in output) == ('bug' in then)
  assert ('the same command continues' in output) == (expected == 130)


def test_ctrl_c_while_a_runs_config_is_read_is_without_a_word(start_main):
  process = start_main(
      '--mode=sample', tiny=False,
      before='import time\n'
      'from video_diffusion.config import config_files\n'
      "config_files.of_run = lambda _: print('ready', flush=True) or ("
      'time.sleep(600))',
  )
  read_until(process, 'ready')
  code, output = ended(process, INT)
  assert code == -INT and not output, output


def write_videos(folder, n):
  """n names of one GIF."""
  image = pytest.importorskip('PIL.Image')
  folder.mkdir()
  frames = [
      image.fromarray(np.full((64, 64), 10 * i, np.uint8)) for i in range(20)
  ]
  first = folder / '0.gif'
  frames[0].save(first, save_all=True, append_images=frames[1:], duration=100)
  for i in range(1, n):
    os.link(first, folder / f'{i}.gif')


@pytest.mark.parametrize('times', [1, 2])
@pytest.mark.parametrize('mode', ['sample', 'evaluate', 'inspect', 'prepare'])
def test_ctrl_c_in_the_modes_that_do_not_train(
    start_main, request, tmp_path, mode, times
):
  """A terminal sends it to the workers as well."""
  flags, line = {
      'sample': (
          ['--config.sample.num_steps=100000'],
          'XLA compilation of jit(sample_block)',
      ),
      'evaluate': (
          ['--config.eval.num_clips=800000'], 'compilation of jit(eval_step)',
      ),
      'inspect': (['--config.data.loader=processes'], 'data set'),
      'prepare': (['--config=configs/video_folder.py:laptop'], None),
  }[mode]
  workdir = tmp_path / 'run'
  if mode in ('sample', 'evaluate'):
    workdir = request.getfixturevalue('copied_run')
  if mode == 'prepare':
    pytest.importorskip('tensorflow_datasets')
    write_videos(tmp_path / 'videos', 3000)
    flags += [f'--config.data.path={tmp_path / "videos"}',
              f'--config.data.dir={tmp_path / "records"}']
  process = start_main(
      f'--mode={mode}', f'--workdir={workdir}', *flags, group=True,
      tiny=mode == 'inspect', JAX_LOG_COMPILES='1',
  )
  if mode == 'prepare':
    records = tmp_path / 'records'  # the workers are at work
    until(lambda: any(records.rglob('*.np*')), process)
  else:
    read_until(process, line)
  began = time.monotonic()
  for _ in range(times):
    os.killpg(process.pid, INT)
    time.sleep(0.05)
  code, output = ended(process)
  seconds = time.monotonic() - began
  assert code == 130, output
  assert 'Traceback' not in output and 'KeyboardInterrupt' not in output
  print(f'SIGINT, {times} times, --mode={mode}: {seconds:.2f} s until exit')


def test_sigterm_on_a_full_disk_says_what_is_not_saved(start_main, tmp_path):
  process = start_main(f'--workdir={tmp_path}', test_pod.ENDLESS)
  until((tmp_path / 'checkpoints' / '2').exists, process)
  # As if it were full: no file may grow beyond this.
  unlimited = resource.RLIM_INFINITY
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2000, unlimited))
  read_until(process, 'could not be written')
  code, output = ended(process, TERM)
  last = [line for line in output.splitlines() if 'SIGTERM: ' in line][-1]
  assert code == 1 and 'Traceback' not in output, output
  found = re.search(
      r'SIGTERM: the checkpoint of step (\d+) could not be written to .+; the '
      r'newest checkpoint on disk is that of step (\d+): make room', last,
  )
  assert found and last.endswith('Exit code 1.'), output
  names = [path.name for path in (tmp_path / 'checkpoints').iterdir()]
  saved = [int(name) for name in names if name.isdigit()]
  assert max(saved) == int(found[2]) < int(found[1])


def test_a_grid_that_could_not_be_written_is_written_at_the_next_start(
    run_main_here, tmp_path
):
  flags = (f'--workdir={tmp_path}', '--config.train.steps=2')
  (tmp_path / 'samples').write_text('in the way')
  code, output = run_main_here(*flags)
  last = output.strip().splitlines()[-1]
  assert code == 1 and 'Traceback' not in output, output
  assert last.startswith(f'video_diffusion: {tmp_path}/samples/step_2.gif cou')
  (tmp_path / 'samples').unlink()
  (tmp_path / 'samples').mkdir()
  (tmp_path / 'samples' / '.step_2.part-0.gif').write_text('of a killed run')
  code, output = run_main_here(*flags)
  assert code == 0 and 'Compiled the train' not in output, output
  names = {path.name for path in (tmp_path / 'samples').iterdir()}
  assert names == {'step_2.gif', 'step_2.mp4'}
