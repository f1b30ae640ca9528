"""Names and values with blanks, quotes and commands pass launch/ unharmed."""
import shutil
import subprocess

import pytest

from tests.launch.test_launch import NAME
from tests.launch.test_launch import SLURM
from tests.launch.test_launch import TPU
from tests.launch.test_launch import XPK
from tests.support import stand_ins
from tests.support.waiting import until

# Whatever a shell would act upon; each would make a file.
NASTY = "it's $(touch pwned) `touch pwned` \"; touch pwned; ' \\ * a\n-b "
FOLDER = "o'brien's; touch pwned; $(touch pwned) & a\" b %j"
VALUES = (f'--config.seed={NASTY}', NASTY, '', '--', '-x')


@pytest.fixture
def stage(tmp_path):
  stage = stand_ins.Stage(tmp_path, workers=2)
  yield stage
  stage.close()
  assert not list(tmp_path.rglob('pwned'))


def by_shell(command):
  """The words that bash makes of a command, which it does not run."""
  done = subprocess.run(
      ['bash', '-c', f"printf '%s\\0' {command}"],
      capture_output=True, text=True, check=True,
  )
  return done.stdout.split('\0')[:-1]


@pytest.mark.parametrize('script, verb, flags, answers', [
    ('tpu_vm.sh', 'setup', TPU, []),
    ('xpk.sh', 'run', XPK, []),
])
def test_a_temporary_folder_of_any_name_goes_at_the_end(
    stage, script, verb, flags, answers
):
  tmp = stage.folder / FOLDER
  tmp.mkdir()
  code, _, errors = stage.run(
      script, verb, *flags, answers=answers, env={'TMPDIR': str(tmp)}
  )
  assert code == 0, errors
  assert not list(tmp.iterdir())


def test_a_checkout_and_a_home_of_any_name(stage):
  launch = stage.folder / FOLDER / 'launch'
  shutil.copytree(stand_ins.LAUNCH, launch)
  log = stage.folder / FOLDER
  flags = [flag for flag in SLURM if '_dir' not in flag and 'pyth' not in flag]
  # ~ is the home, as in a shell before a path of its own.
  flags += ['--log_dir=~/logs', '--python=~/bin/python']
  code, output, errors = stage.run(
      launch / 'slurm.sh', 'run', *flags, '--dry_run', '--', *VALUES,
      env={'HOME': str(log)},
  )
  assert code == 0, errors
  printed = by_shell(output[output.index('sbatch'):])
  code, _, errors = stage.run(
      launch / 'slurm.sh', 'run', *flags, '--', *VALUES, env={'HOME': str(log)}
  )
  assert code == 0, errors
  call = stage.calls()[-1]
  assert call == printed
  # A % that is no pattern of sbatch is doubled.
  name = str(log).replace('%', '%%')
  assert f'--output={name}/logs/{NAME}-%j.log' in call
  assert f'--chdir={launch.parent}' in call
  script = call.index(str(launch / 'slurm_job.sh'))
  assert call[script + 1] == f'{log}/bin/python'
  assert tuple(call[-len(VALUES):]) == VALUES


def test_training_flags_reach_every_process(stage):
  """Through gcloud, ssh and a shell of the worker's; through a pod's shell."""
  answers = [('describe', [('2', 0)])]
  flags = ['--workdir=gs://b/r', f'--config={NASTY}', '--', *VALUES]
  code, _, errors = stage.run('tpu_vm.sh', 'setup', *TPU)
  assert code == 0, errors
  code, _, errors = stage.run('tpu_vm.sh', 'run', *flags, answers=answers)
  assert code == 0, errors
  wanted = [
      '-m', 'video_diffusion.main', f'--config={NASTY}', '--workdir=gs://b/r',
      '--config.mesh.processes=2', *VALUES,
  ]
  for home in stage.workers:
    until((home / 'up').exists)
    assert (home / 'args').read_text() == '\n'.join([*wanted, ''])
  code, _, errors = stage.run('tpu_vm.sh', 'stop')
  assert code == 0, errors
  code, _, errors = stage.run('xpk.sh', 'run', '--cluster=c', *flags)
  assert code == 0, errors
  (command,) = (
      word.partition('=')[2] for word in stage.calls()[-1]
      if word.startswith('--command=')
  )
  assert by_shell(command) == [
      'exec', 'bash', 'launch/pod.sh', '1', f'--config={NASTY}',
      '--workdir=gs://b/r', *VALUES,
  ]


def test_places_pass_as_they_are(stage):
  where = [f'--zone={NASTY}', f'--project={NASTY}']
  code, _, errors = stage.run('tpu_vm.sh', 'status', *where)
  assert code == 0, errors
  assert {f'--zone={NASTY}', f'--project={NASTY}'} <= set(stage.calls()[-1])
  code, _, errors = stage.run('xpk.sh', 'status', f'--cluster={NASTY}', *where)
  assert code == 0, errors
  assert f'--cluster={NASTY}' in stage.calls()[-1]
  # A repository or a branch is never taken for an option of git.
  code, _, errors = stage.run(
      'tpu_vm.sh', 'setup', '--repo=--upload-pack=touch pwned', f'--ref={NASTY}'
  )
  clone = next(call for call in stage.calls() if call[:2] == ['git', 'clone'])
  assert clone[-4:] == [
      f'--branch={NASTY}', '--', '--upload-pack=touch pwned', 'src'
  ]


@pytest.mark.parametrize('value, words', [
    ('--comment="a b"', ['--comment=a b']),
    ("--comment='a  b' --x", ['--comment=a  b', '--x']),
    ('--x="a"\'b\'c\\ d', ['--x=abc d']),
    ('"it\'s" \'say "x"\'', ["it's", 'say "x"']),
    ('"a \\"b\\" \\\\ \\n \\$x"', ['a "b" \\ \\n $x']),
    ('  a \t b\n c ', ['a', 'b', 'c']),
    ('"" \'\' a""', ['', '', 'a']),
    ('$(touch pwned) `touch pwned` * ~ $HOME',
     ['$(touch', 'pwned)', '`touch', 'pwned`', '*', '~', '$HOME']),
    ('', []),
])
@pytest.mark.parametrize('script, verb, flag, flags', [
    ('slurm.sh', 'run', 'sbatch_flags', ['--workdir=/r']),
    ('xpk.sh', 'run', 'xpk_flags', ['--workdir=/r', '--cluster=c']),
    ('tpu_vm.sh', 'create', 'create_flags', []),
])
def test_quotes_in_a_list_of_flags(
    stage, script, verb, flag, flags, value, words
):
  run = lambda value: stage.run(
      script, verb, *flags, f'--{flag}={value}',
      answers=[('queued-resources list', [('', 0), ('ACTIVE', 0)])],
  )
  find = lambda: next(
      call for call in stage.calls()
      if call[0] == 'sbatch' or 'create' in call
  )
  code, _, errors = run('MARK')
  assert code == 0, errors
  plain = find()
  code, _, errors = run(value)
  assert code == 0, errors
  at = plain.index('MARK')
  nameless = lambda call: [word.partition('tmp.')[0] for word in call]
  assert nameless(find()) == nameless([*plain[:at], *words, *plain[at + 1:]])


@pytest.mark.parametrize('value, quote', [('--c="a b', '"'), ("it's", "'")])
def test_an_open_quote_is_one_sentence(stage, value, quote):
  code, _, errors = stage.run(
      'slurm.sh', 'run', '--workdir=/r', f'--sbatch_flags={value}'
  )
  assert (code, errors) == (2, (
      f"slurm.sh: --sbatch_flags is '{value}'; its quote {quote} is not closed."
      '\n'
  ))
  assert not stage.calls()


@pytest.mark.parametrize('path, sentence', [
    ('~ann/logs', 'it must be a path; of homes only your own is known, ~/.'),
    ('~/logs', 'but HOME is not set.'),
])
def test_no_home_is_one_sentence(stage, path, sentence):
  code, _, errors = stage.run(
      'slurm.sh', 'run', '--workdir=/r', f'--log_dir={path}', env={'HOME': ''}
  )
  assert code == 2 and errors.count('\n') == 1
  assert errors.startswith(f"slurm.sh: --log_dir is '{path}'")
  assert errors.strip().endswith(sentence)
