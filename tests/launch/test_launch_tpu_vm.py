"""tpu_vm.sh and worker.sh on folders that play a Cloud TPU VM's workers."""
import os
import signal

import pytest

from tests.launch.test_launch import CREATE
from tests.launch.test_launch import DELETE
from tests.launch.test_launch import EXTRA
from tests.launch.test_launch import STATE
from tests.launch.test_launch import TPU
from tests.launch.test_launch import words
from tests.support import stand_ins
from tests.support.waiting import until

ACTIVE = ('list', [('ACTIVE', 0)])
TWO = ('describe', [('2', 0)])


@pytest.fixture
def stage(tmp_path):
  stage = stand_ins.Stage(tmp_path, workers=2)
  yield stage
  stage.close()


@pytest.fixture
def worker(tmp_path):
  """One worker, set up; worker(verb, ...) -> (exit code, both outputs)."""
  stage = stand_ins.Stage(tmp_path)
  place = stage.home / 'video_diffusion'
  (place / 'src').mkdir(parents=True)
  (place / 'venv' / 'bin').mkdir(parents=True)
  (place / 'venv' / 'bin' / 'python').symlink_to(stage.folder / 'training')

  def call(*args, quick_seconds=600):
    code, output, errors = stage.run(
        'worker.sh', *args, env={'QUICK_SECONDS': str(quick_seconds)}
    )
    return code, output + errors

  call.stage, call.place = stage, place
  call.up = lambda: (stage.home / 'up').exists()
  call.runs = lambda: len((stage.home / 'runs').read_text().split())
  call.status = lambda: call('status')[1].strip()
  call.ended = lambda: call.status() != 'running'
  yield call
  stage.close()


def test_create_twice_is_harmless(stage):
  """The second time it says so and goes on to wait for it."""
  answers = [('list', [('', 0), ('PROVISIONING', 0), ('ACTIVE', 0)])]
  code, _, errors = stage.run('tpu_vm.sh', 'create', *TPU, answers=answers)
  assert code == 0 and 'is PROVISIONING; waiting' in errors
  assert stage.calls() == [words(c) for c in (STATE, CREATE, STATE, STATE)]
  code, _, errors = stage.run('tpu_vm.sh', 'create', *TPU, answers=[ACTIVE])
  assert code == 0 and 'video-diffusion exists (ACTIVE).' in errors
  assert stage.calls() == [words(STATE)] * 2


def test_delete_of_nothing(stage):
  code, _, errors = stage.run('tpu_vm.sh', 'delete', *TPU)
  assert code == 0 and 'there is no video-diffusion' in errors
  assert stage.calls() == [words(STATE)]


def test_create_replaces_a_preempted_one(stage):
  answers = [('list', [('SUSPENDED', 0), ('ACTIVE', 0)])]
  code, _, errors = stage.run('tpu_vm.sh', 'create', *TPU, answers=answers)
  assert code == 0, errors
  assert stage.calls() == [words(c) for c in (STATE, DELETE, CREATE, STATE)]


def test_create_ends_when_the_request_failed(stage):
  answers = [('list', [('', 0), ('FAILED', 0)])]
  code, _, errors = stage.run('tpu_vm.sh', 'create', *TPU, answers=answers)
  assert code == 1 and 'video-diffusion is FAILED' in errors


@pytest.mark.parametrize('count', ['', '0', 'x'])
def test_run_needs_the_number_of_workers(stage, count):
  answers = [('describe', [(count, 0)])]
  code, _, errors = stage.run('tpu_vm.sh', 'run', *TPU, answers=answers)
  assert code == 1 and f"has '{count}' workers" in errors
  assert len(stage.calls()) == 1


def test_create_ends_where_two_ask_at_once(stage):
  """The loser's request fails, and the winner's stays."""
  answers = [('create', [('', 1)]), ('list', [('', 0)])]
  code, _, _ = stage.run('tpu_vm.sh', 'create', *TPU, answers=answers)
  assert code == 1 and stage.calls() == [words(STATE), words(CREATE)]


def test_all_workers_train_once_and_stop(stage):
  """Set-up, run, a second run, stop: what the workers' homes say of it."""
  run = lambda *args: stage.run('tpu_vm.sh', *args, answers=[TWO])
  code, _, errors = run('run', *TPU, *EXTRA)
  assert code != 0  # nothing is uploaded yet
  code, _, errors = run('setup', *TPU)
  assert code == 0, errors
  code, _, errors = run('run', *TPU, *EXTRA)
  assert code == 0, errors
  for home in stage.workers:
    assert (home / 'video_diffusion/src/from_archive').exists()
    until((home / 'up').exists)
    assert (home / 'args').read_text().splitlines() == [
        '-m',
        'video_diffusion.main',
        '--config=configs/bair.py',
        '--workdir=gs://b/r',
        '--config.mesh.processes=2',
        *EXTRA[1:],
    ]
  for verb in ('run', 'setup'):
    code, _, errors = run(verb, *TPU)
    assert code == 1
    assert errors.count('a run is under way') == 2
    assert [(home / 'runs').read_text() for home in stage.workers] == [
        'run\n'
    ] * 2
  assert run('status', *TPU)[1].split() == ['running'] * 2
  code, _, errors = run('stop', *TPU)
  assert code == 0 and errors.count('stopped; exit code 75.') == 2
  assert run('status', *TPU)[1].split() == ['stopped'] * 2
  code, _, errors = run('stop', *TPU)
  assert code == 0 and errors.count('nothing runs.') == 2


def test_setup_from_a_repository(stage):
  flags = ('--repo=https://h/r.git', '--ref=v1', '--python=3.13')
  code, _, errors = stage.run('tpu_vm.sh', 'setup', *flags)
  assert code == 0, errors
  expected = [
      'git clone --quiet --depth 1 --branch=v1 -- https://h/r.git src',
      'python3 -m uv --version',
      'python3 -m uv venv --quiet --allow-existing --python=3.13 venv',
      'python3 -m uv pip install --quiet --python venv/bin/python'
      ' -e ./src[tpu]',
  ]
  assert stage.calls()[2:] == [c.split() for c in expected] * 2


def test_watch_brings_a_preempted_run_back(stage):
  """Fresh VM, training, preempted, asked for anew, and trained to its end."""
  states = ['', *['ACTIVE'] * 3, 'SUSPENDED', 'ACTIVE']
  reports = ['none\nnone', 'running\nrunning', 'none\nnone', 'ended 0\nended 0']
  answers = [
      ('worker.sh status', [(report, 0) for report in reports]),
      ('list', [(state, 0) for state in states]),
      ('ssh', [('', 0)]),
      TWO,
  ]
  code, _, errors = stage.run('tpu_vm.sh', 'watch', *TPU, answers=answers)
  assert code == 0 and errors.strip().endswith('the run is complete.'), errors
  verbs = []
  for call in stage.calls():
    if call[0] == 'gcloud':
      command = call[-1].partition('bash worker.sh ')[2].split()
      verbs.append(command[0] if command else call[4])
  up = ['create', 'list', 'status', 'scp', 'setup', 'describe', 'run']
  look = ['list', 'list', 'status']
  assert verbs == ['list', *up, *look, 'list', 'delete', *up, *look]


@pytest.mark.parametrize('report, code, sentence', [
    ('ended 0\nended 0', 0, 'the run is complete.'),
    ('ended 0\nstopped', 0, "stopped by hand; 'run' continues it."),
    ('ended 1\nended 134', 1, 'the run failed (ended 1, ended 134)'),
    ('ended 134\nended 0', 1, 'the run failed'),
    ('ended 75\nended 75', 1, 'the run failed'),  # quick, again and again
])
def test_watch_ends(stage, report, code, sentence):
  answers = [ACTIVE, ('worker.sh status', [(report, 0)])]
  ended, _, errors = stage.run('tpu_vm.sh', 'watch', *TPU, answers=answers)
  assert ended == code and sentence in errors
  assert not any('worker.sh run' in call[-1] for call in stage.calls())


@pytest.mark.parametrize('report', ['ended 1\nlost', 'lost\nnone'])
def test_watch_starts_again(stage, report):
  answers = [
      ACTIVE,
      TWO,
      ('worker.sh status', [(report, 0), ('ended 0', 0)]),
      ('worker.sh run', [('', 0)]),
  ]
  code, _, errors = stage.run('tpu_vm.sh', 'watch', *TPU, answers=answers)
  assert code == 0, errors
  assert sum('worker.sh run' in call[-1] for call in stage.calls()) == 1


def test_sigterm_reaches_python_and_stop_waits(worker):
  worker.stage.plan('wait')
  assert worker('run', '--a=b c')[0] == 0
  until(worker.up)
  assert worker.status() == 'running'
  code, output = worker('run', '--a=b')
  assert code == 1 and output.count('\n') == 1
  assert 'a run is under way; see its logs, or stop it first.' in output
  assert worker('stop')[0] == 0
  assert worker.status() == 'stopped' and worker.runs() == 1
  assert (worker.place / 'code').read_text() == '75\n'
  assert (worker.stage.home / 'args').read_text().endswith('--a=b c\n')
  assert worker('run')[0] == 0 and worker.status() == 'running'


@pytest.mark.parametrize('plan, runs, status', [
    (['75', '134', '137', '0'], 4, 'ended 0'),
    (['1'], 1, 'ended 1'),
    (['134', '127'], 2, 'ended 127'),
    (['130'], 1, 'ended 130'),  # a person's Ctrl-C
    (['139'], 6, 'ended 139'),  # five quick restarts, then no more
    (['75'], 6, 'ended 75'),
])
def test_exit_codes(worker, plan, runs, status):
  worker.stage.plan(*plan)
  assert worker('run')[0] == 0
  until(worker.ended)
  assert (worker.status(), worker.runs()) == (status, runs)


def test_slow_failures_have_no_bound(worker):
  worker.stage.plan(*['134'] * 9, '0')
  assert worker('run', quick_seconds=0)[0] == 0
  until(worker.ended)
  assert (worker.status(), worker.runs()) == ('ended 0', 10)


def test_a_machine_that_went_down_reports_lost(worker):
  worker.stage.plan('wait')
  assert worker.status() == 'none'
  worker('run')
  until(worker.up)
  os.killpg(int((worker.place / 'pid').read_text()), signal.SIGKILL)
  until(worker.ended)
  assert worker.status() == 'lost'


def test_a_signal_that_stop_did_not_send_is_the_machine_s(worker):
  """Training saves, is not started again here, and is for `watch` to start."""
  worker.stage.plan('wait')
  worker('run')
  until(worker.up)
  os.kill(int((worker.place / 'pid').read_text()), signal.SIGTERM)
  until(worker.ended)
  assert (worker.status(), worker.runs()) == ('lost', 1)


def test_run_before_setup(worker):
  (worker.place / 'venv' / 'bin' / 'python').unlink()
  code, output = worker('run')
  assert code == 1 and 'nothing is installed; set up first.' in output
