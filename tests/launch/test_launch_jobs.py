"""Jobs of SLURM and pods of GKE: slurm_job.sh, pod.sh, and submitting twice."""
import pytest

from tests.launch.test_launch import NAME
from tests.launch.test_launch import SLURM
from tests.launch.test_launch import TPU
from tests.launch.test_launch import XPK
from tests.support import stand_ins

JOB = {'SLURM_JOB_ID': '7', 'SLURM_JOB_NUM_NODES': '4'}
SRUN = (
    'srun --ntasks=4 --ntasks-per-node=1 --kill-on-bad-exit=0 /v/python -m'
    ' video_diffusion.main --config=c.py --config.mesh.processes=4'
).split()
REQUEUE = ['scontrol', 'requeue', '7']


@pytest.fixture
def stage(tmp_path):
  stage = stand_ins.Stage(tmp_path)
  yield stage
  stage.close()


@pytest.mark.parametrize('script, verb, flags, listing', [
    ('slurm.sh', 'run', SLURM, '4711'),
    ('xpk.sh', 'run', XPK, f'Jobset Name  Created\n{NAME}  today'),
])
def test_run_twice_is_harmless(stage, script, verb, flags, listing):
  answers = [('squeue', [(listing, 0)]), ('list', [(listing, 0)])]
  code, _, errors = stage.run(script, verb, *flags, answers=answers)
  assert code == 0 and NAME in errors
  assert len(stage.calls()) == 1


def test_a_workload_of_a_longer_name_is_another(stage):
  answers = [('list', [(f'Jobset Name\n{NAME}-2  today', 0)])]
  code, _, errors = stage.run('xpk.sh', 'run', *XPK, answers=answers)
  assert code == 0 and stage.calls()[-1][:3] == ['xpk', 'workload', 'create']


@pytest.mark.parametrize('script, verb, flags', [
    ('tpu_vm.sh', 'create', TPU),
    ('tpu_vm.sh', 'delete', TPU),
    ('tpu_vm.sh', 'run', TPU),
    ('slurm.sh', 'run', SLURM),
    ('xpk.sh', 'run', XPK),
])
def test_a_failing_query_is_no_absence(stage, script, verb, flags):
  """No permission or no network: nothing may be created or deleted for it."""
  code, _, _ = stage.run(script, verb, *flags, answers=[('', [('', 7)])])
  assert code == 7 and len(stage.calls()) == 1


@pytest.mark.parametrize('codes, runs, ended', [
    ([0], 1, 0),
    ([1], 1, 1),
    ([75], 1, 'requeued'),
    ([134, 137, 75], 3, 'requeued'),
    ([134, 0], 2, 0),
    ([130], 1, 130),  # a person's Ctrl-C
    ([139], 6, 139),  # five quick restarts, then no more
])
def test_slurm_job_acts_on_the_exit_code(stage, codes, runs, ended):
  answers = [('srun', [('', code) for code in codes])]
  code, _, errors = stage.run(
      'slurm_job.sh', '/v/python', '--config=c.py', answers=answers, env=JOB
  )
  calls = stage.calls()
  if ended == 'requeued':
    assert calls.pop() == REQUEUE
    ended = 0
  assert code == ended, errors
  assert calls == [SRUN] * runs


def test_slurm_job_without_quick_failures_goes_on(stage):
  answers = [('srun', [('', 134)] * 8 + [('', 0)])]
  code, _, _ = stage.run(
      'slurm_job.sh', '/v/python', '--config=c.py', answers=answers,
      env={**JOB, 'QUICK_SECONDS': '0'},
  )
  assert code == 0 and stage.calls() == [SRUN] * 9


@pytest.mark.parametrize('env, devices, cpus', [
    ({}, '', ''),
    ({'SLURM_GPUS_ON_NODE': '1'}, '0', ''),
    ({'SLURM_GPUS_ON_NODE': '4', 'SLURM_CPUS_PER_TASK': '16'}, '0,1,2,3', '16'),
])
def test_a_process_of_slurm_has_the_whole_node(stage, env, devices, cpus):
  (stage.bin / 'srun').write_text(
      '#!/bin/bash\n'
      'echo "$JAX_LOCAL_DEVICE_IDS;$SRUN_CPUS_PER_TASK" >"$STAGE/seen"\n'
  )
  code, _, errors = stage.run(
      'slurm_job.sh', '/v/python', env={**JOB, **env}
  )
  assert code == 0, errors
  assert (stage.folder / 'seen').read_text() == f'{devices};{cpus}\n'


@pytest.mark.parametrize('env, processes', [
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c'}, 6),
    ({'TPU_WORKER_HOSTNAMES': 'a', 'TPU_PROCESS_ADDRESSES': 'a:1,b:1'}, 4),
])
def test_pod_counts_the_hosts(stage, env, processes):
  code, _, errors = stage.run('pod.sh', '2', '--config=c.py', env=env)
  assert code == 0, errors
  assert stage.calls() == [
      ['pip', 'install', '--quiet', '-e', '.[tpu]'],
      ['python', '-m', 'video_diffusion.main', '--config=c.py',
       f'--config.mesh.processes={processes}'],
  ]


def test_pod_outside_of_gke(stage):
  code, _, errors = stage.run('pod.sh', '2')
  assert code == 1 and 'TPU_WORKER_HOSTNAMES is not set' in errors
  assert not stage.calls()
