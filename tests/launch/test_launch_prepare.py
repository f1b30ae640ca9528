"""Preparation as an array of SLURM jobs: what is submitted, and what runs."""
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
