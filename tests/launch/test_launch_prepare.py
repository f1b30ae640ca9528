"""Preparation by arrays of SLURM jobs and by Dataflow: what is started."""
import shlex

import pytest

from tests.support import stand_ins

LAUNCH, ROOT = stand_ins.LAUNCH, stand_ins.ROOT
FLAGS = (
    '--tasks=3', '--packers=2', '--log_dir=/l', '--partition=p', '--account=a',
    '--sbatch_flags=--mem=0', '--python=/v/python', '--config=c.py',
    '--data_dir=/s/d', '--', '--config.data.path=/s/my videos',
)
QUEUE = 'squeue --me --name=prepare --noheader --format=%i'.split()
SUBMIT = (
    'sbatch --parsable --job-name=prepare --nodes=1 --ntasks=1'
    ' --cpus-per-task=8 --time=24:00:00 --requeue --open-mode=append'
    f' --output=/l/prepare-%A-%a.log --chdir={ROOT} --partition=p --account=a'
    ' --mem=0'
)
PYTHON = [
    '/v/python', '--config=c.py', '--config.data.dir=/s/d',
    '--config.data.path=/s/my videos',
]
SCRIPT = f'{LAUNCH}/slurm_prepare_job.sh'
DECODE = [*SUBMIT.split(), '--array=0-2', SCRIPT, '3', *PYTHON]
PACK = [
    *SUBMIT.split(), '--array=0-1', '--dependency=afterok:4711',
    '--kill-on-invalid-dep=yes', SCRIPT, '0', *PYTHON,
]


@pytest.fixture
def stage(tmp_path):
  stage = stand_ins.Stage(tmp_path)
  yield stage
  stage.close()


def test_an_array_that_decodes_and_one_that_packs_are_submitted(stage):
  answers = [('--array=0-2', [('4711;cluster', 0)])]
  code, _, errors = stage.run(
      'slurm_prepare.sh', 'run', *FLAGS, answers=answers
  )
  assert code == 0, errors
  assert stage.calls() == [QUEUE, DECODE, PACK]


def test_a_dry_run_prints_the_same_and_submits_nothing(stage):
  code, output, errors = stage.run(
      'slurm_prepare.sh', 'run', '--dry_run', *FLAGS
  )
  assert (code, errors) == (0, '') and not stage.calls()
  queue, array, pack = output.splitlines()
  assert queue == f'JOB=$({" ".join(QUEUE)})'
  assert array.startswith('ARRAY=$(') and '--array=0-2' in array
  assert '--dependency=afterok:ARRAY' in pack
  assert pack.endswith("'--config.data.path=/s/my videos'")


@pytest.mark.parametrize('answers, code, calls', [
    ([('squeue', [('12_[0-2]\n13', 0)])], 0, 1),  # it is in the queue
    ([('squeue', [('', 7)])], 7, 1),
    ([('--array', [('', 5)])], 5, 2),  # refused: nothing waits for it
])
def test_what_does_not_submit_all(stage, answers, code, calls):
  got, _, _ = stage.run('slurm_prepare.sh', 'run', *FLAGS, answers=answers)
  assert got == code and len(stage.calls()) == calls


def test_a_folder_of_one_machine_is_refused(stage):
  code, _, errors = stage.run('slurm_prepare.sh', 'run', '--data_dir=data')
  assert code == 2 and "--data_dir is 'data'; it must be" in errors


@pytest.mark.parametrize('tasks, added', [
    ('3', ['--config.prepare.tasks=3', '--config.prepare.task=2']), ('0', []),
])
def test_a_task_decodes_its_share_or_packs(stage, tasks, added):
  env = {'SLURM_ARRAY_TASK_ID': '2', 'SLURM_ARRAY_TASK_COUNT': '1'}
  code, _, errors = stage.run(
      'slurm_prepare_job.sh', tasks, 'python', '--config=c.py', env=env
  )
  assert code == 0, errors
  assert stage.calls() == [[
      'python', '-m', 'video_diffusion.main', '--mode=prepare', '--config=c.py',
      *added,
  ]]


DATAFLOW = (
    '--project=p', '--region=us-central1', '--bucket=gs://b', '--mount=/mnt/b',
    '--data_dir=/mnt/b/data', '--python=/v/python', '--config=c.py',
    '--beam_flags=--labels="a b"', '--image=i', '--',
    '--config.data.path=/mnt/b/my videos',
)
STARTED = [
    '-m', 'video_diffusion.main', '--mode=prepare', '--config=c.py',
    '--config.data.dir=/mnt/b/data', '--config.prepare.runner=beam',
    '--config.prepare.bucket=/mnt/b=gs://b',
    '--config.prepare.beam_options=--runner=DataflowRunner --project=p '
    '--region=us-central1 --job_name=prepare --temp_location=gs://b/tmp '
    '--max_num_workers=64 --number_of_worker_harness_threads=1 '
    '--worker_machine_type=n2-standard-8 '
    "--disk_size_gb=100 --sdk_container_image=i '--labels=a b'",
    '--config.data.path=/mnt/b/my videos',
]


def test_dataflow_is_started_with_the_bucket_that_is_mounted(stage):
  code, _, errors = stage.run(
      'dataflow_prepare.sh', 'run', '--python=python',
      *[flag for flag in DATAFLOW if not flag.startswith('--python')],
  )
  assert code == 0, errors
  assert stage.calls() == [['python', *STARTED]]


def test_a_dry_run_of_dataflow_prints_what_a_shell_would_split(stage):
  code, output, errors = stage.run(
      'dataflow_prepare.sh', 'run', '--dry_run', *DATAFLOW
  )
  assert (code, errors) == (0, '') and not stage.calls()
  assert shlex.split(output) == ['/v/python', *STARTED]
  code, output, _ = stage.run(
      'dataflow_prepare.sh', 'run', '--dry_run',
      *[flag for flag in DATAFLOW if not flag.startswith('--image')],
  )
  assert code == 0 and f' --setup_file={ROOT}/setup.py ' in output


def test_a_job_of_dataflow_is_stopped(stage):
  flags = DATAFLOW[:2]
  answers = [('list', [('2026-x', 0)])]
  code, _, errors = stage.run(
      'dataflow_prepare.sh', 'stop', *flags, answers=answers
  )
  assert code == 0, errors
  assert stage.calls()[1] == [
      'gcloud', 'dataflow', 'jobs', 'cancel', *flags, '2026-x'
  ]
  code, _, errors = stage.run(
      'dataflow_prepare.sh', 'stop', *flags, answers=[('list', [('', 0)])]
  )
  assert code == 0 and 'no job prepare runs' in errors


@pytest.mark.parametrize('flag, sentence', [
    ('--data_dir=/data', "--data_dir is '/data'; it must be a folder in --m"),
    ('--bucket=b', "--bucket is 'b'; it must be the bucket"),
    ('--mount=mnt', "--mount is 'mnt'; it must be where"),
    ('--region=', "--region is ''; it must be a region"),
])
def test_flags_of_dataflow_that_cannot_be(stage, flag, sentence):
  code, _, errors = stage.run(
      'dataflow_prepare.sh', 'run', *DATAFLOW[:5], flag
  )
  assert code == 2 and sentence in errors
