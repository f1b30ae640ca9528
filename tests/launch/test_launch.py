"""The commands of launch/, given to stand-ins: nothing real is called."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.support import stand_ins

ROOT = stand_ins.ROOT
LAUNCH = stand_ins.LAUNCH
NAME = 'video-diffusion'
QUEUED = 'gcloud compute tpus queued-resources'
VM = 'gcloud compute tpus tpu-vm'
STATE = (
    f"{QUEUED} list --zone=z --project=p '--filter=name~/{NAME}$'"
    " '--format=value(state.state)'"
)
CREATE = (
    f'{QUEUED} create {NAME} --node-id={NAME} --zone=z --project=p'
    ' --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite'
    ' --spot --network=n --labels=a=b'
)
DELETE = f'{QUEUED} delete {NAME} --zone=z --project=p --force --quiet'
COUNT = (
    f"{VM} describe {NAME} --zone=z --project=p"
    " '--format=value(networkEndpoints.len())'"
)
SSH = f'{VM} ssh {NAME} --zone=z --project=p --worker=all'
ARCHIVE = (
    f'git -C {ROOT} archive --format=tar.gz --output=TMP/source.tar.gz HEAD'
)
SCP = f'{VM} scp {LAUNCH}/worker.sh'
SETUP = [
    'TMP=$(mktemp -d)',
    ARCHIVE,
    f'{SCP} TMP/source.tar.gz {NAME}: --zone=z --project=p --worker=all',
    f"{SSH} '--command=bash worker.sh setup 3.12'",
]
TRAIN = '--config=configs/bair.py --workdir=gs://b/r'
RUN = [
    f'N=$({COUNT})',
    f"{SSH} '--command=bash worker.sh run {TRAIN} --config.mesh.processes=N"
    " --config.seed=1 '\\''--config.data.frameskips=(1, 4)'\\'''",
]
STATUS = f"{SSH} '--command=bash worker.sh status 2>/dev/null || echo none'"
TPU = (
    '--zone=z',
    '--project=p',
    '--accelerator_type=v5litepod-16',
    '--spot',
    '--create_flags=--network=n --labels=a=b',
    '--config=configs/bair.py',
    '--workdir=gs://b/r',
    '--poll_seconds=1',
)
EXTRA = ('--', '--config.seed=1', '--config.data.frameskips=(1, 4)')
JOBS = f'squeue --me --name={NAME} --noheader --format=%i'
SBATCH = (
    f'sbatch --job-name={NAME} --nodes=4 --ntasks-per-node=1 --gpus-per-node=2'
    ' --cpus-per-task=16 --time=24:00:00 --signal=TERM@300 --requeue'
    f' --open-mode=append --output=/l/{NAME}-%j.log --chdir={ROOT}'
    ' --partition=gpu --account=a --exclusive --mem=0'
    f' {LAUNCH}/slurm_job.sh /v/bin/python {TRAIN.replace("gs:/", "")}'
    " --config.seed=1 '--config.data.frameskips=(1, 4)'"
)
SLURM = (
    '--nodes=4',
    '--gpus_per_node=2',
    '--cpus_per_task=16',
    '--grace_seconds=300',
    '--log_dir=/l',
    '--partition=gpu',
    '--account=a',
    '--sbatch_flags=--exclusive --mem=0',
    '--python=/v/bin/python',
    '--config=configs/bair.py',
    '--workdir=/b/r',
)
XPK_LIST = (
    'xpk workload list --cluster=c --zone=z --project=p'
    f" '--filter-by-job=^{NAME}$'"
)
XPK_CREATE = (
    f'xpk workload create --workload={NAME} --cluster=c --zone=z --project=p'
    ' --tpu-type=v4-16 --num-slices=2 --base-docker-image=python:3.11'
    ' --script-dir=TMP/source --max-restarts=9 --restart-on-exit-codes=75'
    ' --termination-grace-period-seconds=300 --spot --priority=high'
    f" '--command=exec bash launch/pod.sh 2 {TRAIN}"
    " --config.seed=1 '\\''--config.data.frameskips=(1, 4)'\\'''"
)
XPK = (
    '--cluster=c',
    '--zone=z',
    '--project=p',
    '--tpu_type=v4-16',
    '--num_slices=2',
    '--base_image=python:3.11',
    '--max_restarts=9',
    '--grace_seconds=300',
    '--spot',
    '--xpk_flags=--priority=high',
    '--config=configs/bair.py',
    '--workdir=gs://b/r',
)
REPO = ('--repo=https://h/r.git', '--ref=v1')
# Script, verb, flags, the commands of a dry run.
CASES = [
    ('tpu_vm.sh', 'create', TPU, [f'STATE=$({STATE})', CREATE]),
    ('tpu_vm.sh', 'setup', TPU, SETUP),
    (
        'tpu_vm.sh',
        'setup',
        TPU + REPO + ('--python=3.13',),
        [
            f'{SCP} {NAME}: --zone=z --project=p --worker=all',
            f"{SSH} '--command=bash worker.sh setup 3.13 {REPO[0][7:]} v1'",
        ],
    ),
    ('tpu_vm.sh', 'run', TPU + EXTRA, RUN),
    ('tpu_vm.sh', 'status', TPU, [STATUS]),
    (
        'tpu_vm.sh',
        'logs',
        TPU + ('--worker=3', '--lines=9'),
        [f"{SSH[:-3]}3 '--command=bash worker.sh logs 9'"],
    ),
    ('tpu_vm.sh', 'stop', TPU, [f"{SSH} '--command=bash worker.sh stop'"]),
    ('tpu_vm.sh', 'delete', TPU, [f'STATE=$({STATE})', DELETE]),
    ('slurm.sh', 'run', SLURM + EXTRA, [f'JOB=$({JOBS})', SBATCH]),
    ('slurm.sh', 'status', SLURM, [f'squeue --me --name={NAME}']),
    ('slurm.sh', 'stop', SLURM, [f'scancel --me --name={NAME}']),
    (
        'xpk.sh',
        'run',
        XPK + EXTRA,
        [
            f'LIST=$({XPK_LIST})',
            'TMP=$(mktemp -d)',
            ARCHIVE,
            'mkdir TMP/source',
            'tar -xzf TMP/source.tar.gz -C TMP/source',
            XPK_CREATE,
        ],
    ),
    ('xpk.sh', 'status', XPK, [XPK_LIST]),
    (
        'xpk.sh',
        'stop',
        XPK,
        [
            f'xpk workload delete --workload={NAME} --cluster=c --zone=z'
            ' --project=p --force'
        ],
    ),
]
NAMES = [f'{case[0]}-{case[1]}-{len(case[2])}' for case in CASES]
WATCH = [f'STATE=$({STATE})', CREATE, *SETUP, *RUN, STATUS]


@pytest.fixture
def stage(tmp_path):
  stage = stand_ins.Stage(tmp_path)
  yield stage
  stage.close()


def words(command):
  return shlex.split(re.sub(r'^[A-Z]+=\$\((.*)\)$', r'\1', command))


def test_shellcheck():
  path = os.pathsep.join(
      [str(pathlib.Path(sys.executable).parent), os.environ['PATH']]
  )
  shellcheck = shutil.which('shellcheck', path=path)
  if shellcheck is None:
    pytest.fail('no shellcheck; pip install -e ".[test]" brings it.')
  scripts = sorted(map(str, LAUNCH.glob('*.sh')))
  assert len(scripts) == 10
  done = subprocess.run(
      [shellcheck, '--external-sources', *scripts],
      cwd=ROOT,
      capture_output=True,
      text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    'script, verb, flags, commands',
    [*CASES, ('tpu_vm.sh', 'watch', TPU + EXTRA, WATCH)],
    ids=[*NAMES, 'tpu_vm.sh-watch'],
)
def test_dry_run_prints_the_commands_and_calls_nothing(
    stage, script, verb, flags, commands
):
  before = sorted(stage.folder.rglob('*'))
  code, output, errors = stage.run(script, verb, '--dry_run', *flags)
  assert (code, errors) == (0, '')
  assert output.splitlines() == commands
  assert not stage.calls()
  assert sorted(stage.folder.rglob('*')) == before


@pytest.mark.parametrize('script, verb, flags, commands', CASES, ids=NAMES)
def test_a_run_calls_what_a_dry_run_prints(
    stage, script, verb, flags, commands
):
  (stage.folder / 'tmp').mkdir()
  answers = [
      ('list', [('ACTIVE' if verb == 'delete' else '', 0), ('ACTIVE', 0)]),
      ('describe', [('4', 0)]),
      ('status 2>', [('running', 0)]),
  ]
  code, _, errors = stage.run(
      script, verb, *flags, answers=answers,
      env={'TMPDIR': str(stage.folder / 'tmp')},
  )
  assert code == 0, errors
  calls = stage.calls()
  if verb == 'create':
    assert calls.pop() == words(STATE)  # it waits for ACTIVE
  # The temporary directory's name aside, and what is no stand-in.
  tmp = re.compile(re.escape(str(stage.folder)) + r'/tmp/tmp\.\w+')
  expected = [words(command.replace('=N', '=4')) for command in commands]
  assert [[tmp.sub('TMP', word) for word in call] for call in calls] == [
      call for call in expected if call[0] in stand_ins.STAND_INS
  ]
  assert not list((stage.folder / 'tmp').iterdir())


@pytest.mark.parametrize('kind, version', [
    ('v6e-8', 'v2-alpha-tpuv6e'),
    ('v5p-8', 'v2-alpha-tpuv5'),
    ('v4-8', 'tpu-ubuntu2204-base'),
])
def test_runtime_version_follows_the_accelerator(stage, kind, version):
  flags = f'--dry_run --accelerator_type={kind}'.split()
  _, output, _ = stage.run('tpu_vm.sh', 'create', *flags)
  assert f'--runtime-version={version}' in output
  _, output, _ = stage.run('tpu_vm.sh', 'create', *flags, '--runtime_version=x')
  assert '--runtime-version=x' in output


BAD = [
    ('tpu_vm.sh', '', "the first argument is ''; it must be one of: create"),
    ('tpu_vm.sh', 'start', "the first argument is 'start'"),
    ('tpu_vm.sh', 'create --nmae=x', 'no flag --nmae; there are: accelerator'),
    ('tpu_vm.sh', 'create --=x', 'there is no flag --'),
    ('tpu_vm.sh', 'create stray', "unknown argument 'stray'"),
    ('tpu_vm.sh', 'create --zone', '--zone needs a value: --zone=VALUE'),
    ('tpu_vm.sh', 'create --spot=2', "--spot is '2'; it must be true or"),
    ('tpu_vm.sh', 'create --name=A_b', "--name is 'A_b'; it must be at most"),
    ('tpu_vm.sh', 'run', "--workdir is ''; it must be a directory that every"),
    ('tpu_vm.sh', 'run --workdir=runs/x', "--workdir is 'runs/x'"),
    ('tpu_vm.sh', 'watch --workdir=/r --poll_seconds=0', '--poll_seconds is'),
    ('tpu_vm.sh', 'logs --worker=first', "--worker is 'first'; it must be a n"),
    ('tpu_vm.sh', 'logs --lines=-1', "--lines is '-1'; it must be a positive"),
    ('tpu_vm.sh', 'setup --ref=v1', '--ref names a branch or tag of --repo'),
    ('slurm.sh', 'submit', 'it must be one of: run status stop'),
    ('slurm.sh', 'run --workdir=/r --nodes=0', "--nodes is '0'"),
    ('slurm.sh', 'run', "--workdir is ''"),
    ('xpk.sh', 'run --workdir=gs://b/r', "--cluster is ''; it must be the"),
    ('xpk.sh', 'run --cluster=c', "--workdir is ''"),
    ('xpk.sh', 'run --cluster=c --num_slices=two', "--num_slices is 'two'"),
]


@pytest.mark.parametrize('script, args, sentence', BAD)
def test_bad_flags_are_one_sentence(stage, script, args, sentence):
  code, output, errors = stage.run(script, *args.split())
  assert (code, output) == (2, '')
  assert errors.startswith(f'{script}: ') and sentence in errors
  assert errors.endswith('.\n') and errors.count('\n') == 1
  assert not stage.calls()
