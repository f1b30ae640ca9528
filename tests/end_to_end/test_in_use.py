"""A folder that a process holds, from the outside."""
import json
import signal
import socket

from tests.end_to_end import test_pod
from tests.support.waiting import LIMIT
from tests.support.waiting import until
from video_diffusion.filesystem import locks

# Marks are renewed often, so that they are stale soon.
HOST_A = """
import socket
socket.gethostname = lambda: 'host-a'
from video_diffusion.filesystem import locks
locks.PERIOD = 0.5
"""


def started(start_main, workdir, *flags, **options):
  """A training that holds the workdir."""
  process = start_main(
      f'--workdir={workdir}', test_pod.ENDLESS, *flags, **options
  )
  until((workdir / '.lock').exists, process)
  return process


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.communicate()


def test_the_same_command_twice_is_refused_until_the_first_has_ended(
    start_main, run_main_here, tmp_path
):
  workdir = tmp_path / 'run'
  process = started(start_main, workdir)
  code, output = run_main_here(f'--workdir={workdir}', test_pod.ENDLESS)
  last = output.strip().splitlines()[-1]
  assert code == 1 and 'Traceback' not in output, output
  assert last.startswith(
      f'video_diffusion: {workdir} is in use by process {process.pid} on '
  )
  assert ' since 2' in last and last.endswith(
      '; wait until that has ended, or pass another --workdir.'
  )
  assert 'Compiled' not in output and (workdir / '.lock').exists()
  kill(process)
  # Its mark is nobody's at once; the next command is refused for nothing.
  code, output = run_main_here(f'--workdir={workdir}', '--config.train.steps=1')
  assert code == 0 and 'its mark is taken over' in output, output
  assert not (workdir / '.lock').exists()


def test_two_hosts_on_one_disk(
    start_main, run_main_here, tmp_path, monkeypatch
):
  workdir = tmp_path / 'run'
  process = started(start_main, workdir, before=HOST_A)
  monkeypatch.setattr(socket, 'gethostname', lambda: 'host-b')
  monkeypatch.setattr(locks, 'PERIOD', 0.5)
  code, output = run_main_here(f'--workdir={workdir}', test_pod.ENDLESS)
  assert code == 1 and 'Traceback' not in output, output
  assert f'in use by process {process.pid} on host-a since' in output
  kill(process)
  mark = json.loads((workdir / '.lock').read_text())
  assert mark['host'] == 'host-a'
  # It is not refused, though the mark may be young; it waits until it is stale.
  code, output = run_main_here(f'--workdir={workdir}', '--config.train.steps=1')
  assert code == 0 and 'its mark is taken over' in output, output
  assert not (workdir / '.lock').exists()


def test_every_process_of_a_pod_is_refused(start_main, tmp_path):
  with locks.Lock(tmp_path):
    pod = test_pod.start_pod(start_main, f'--workdir={tmp_path}')
    for code, output in test_pod.finish(pod):
      last = [x for x in output.splitlines() if x.startswith('video_diffusion')]
      assert code == 1 and 'Traceback' not in output, output
      assert 'is in use by process' in last[-1]
  assert not list(tmp_path.iterdir())


def test_a_training_that_lost_its_folder_stops_and_saves_nothing(
    start_main, tmp_path
):
  process = start_main(f'--workdir={tmp_path}', test_pod.ENDLESS)
  until((tmp_path / 'checkpoints' / '2').exists, process)
  process.send_signal(signal.SIGSTOP)
  mark = tmp_path / '.lock'
  others = json.loads(mark.read_text()) | {'token': 'other', 'host': 'other'}
  mark.write_text(json.dumps(others))
  process.send_signal(signal.SIGCONT)
  output, _ = process.communicate(timeout=LIMIT)
  last = output.strip().splitlines()[-1]
  assert process.returncode == 1 and 'Traceback' not in output, output
  assert 'on other since' in last and 'taken it over' in last
  assert json.loads(mark.read_text()) == others


def test_samples_of_one_seed_are_drawn_by_one_process(
    copied_run, run_main_here
):
  folder = copied_run / 'samples' / 'step_6_seed_0'
  with locks.Lock(copied_run), locks.Lock(folder):
    flags = ('--mode=sample', f'--workdir={copied_run}')
    code, output = run_main_here(*flags, tiny=False)
    last = output.strip().splitlines()[-1]
    assert code == 1 and 'Traceback' not in output, output
    assert last.startswith(f'video_diffusion: {folder} is in use by process ')
    assert last.endswith('or pass another sample.seed.')
    # A run that trains is sampled and evaluated.
    code, output = run_main_here(*flags, '--config.sample.seed=1', tiny=False)
    assert code == 0, output
    code, output = run_main_here(
        '--mode=evaluate', f'--workdir={copied_run}', tiny=False
    )
    assert code == 0, output
  assert not (copied_run / 'samples' / 'step_6_seed_1' / '.lock').exists()
  assert (copied_run / 'evaluation.json').exists()
