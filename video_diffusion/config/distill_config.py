"""The configs of a distillation: of all its rounds, and of one."""
from etils import epath
import ml_collections

from video_diffusion.config import config_files
from video_diffusion.config import saved_config
from video_diffusion.config.validate import require
from video_diffusion.filesystem import files

TEACHER = 'distill.teacher'
# Groups of the config file. All others, and their fields, are the teacher's.
GROUPS = ('optim', 'train', 'distill', 'log', 'checkpoint')
# A student has these groups as its teacher has them.
_SHARED = ('model', 'diffusion', 'extension', 'text')
# At t = 1 x_hat cannot be told from eps, and two steps of the teacher begin
# there.
_PREDICTIONS = ('v', 'x')


def get_config(
    teacher: epath.PathLike, name: str = config_files.DISTILL
) -> ml_collections.ConfigDict:
  """The config of a distillation: a trained run, with GROUPS of a config file.

  What the config of the teacher names, as the folder of its data, is left out.

  Args:
    teacher: folder of the trained run.
    name: of a config, as of `config_files.get_config`.

  Raises:
    UserError: there is no such run or config.
  """
  teacher = files.expand(teacher, TEACHER, bucket=True)
  config = config_files.of_run(teacher)
  own = config_files.get_config(name)
  with config.unlocked():
    for group in GROUPS:
      config[group] = own[group]
    config.distill.teacher = str(teacher)
  return config


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the rounds of a distillation, and what it shares with its teacher.

  Raises:
    UserError: one sentence that names the field.
  """
  rounds = config.distill.rounds
  require(
      all(a == 2 * b for a, b in zip(rounds, rounds[1:], strict=False)),
      f'distill.rounds is {rounds}; each number must be half of the one '
      'before.',
  )
  teacher = files.expand(config.distill.teacher, TEACHER, bucket=True)
  theirs = saved_config.flatten(
      saved_config.to_json(config_files.of_run(teacher))
  )
  for field, value in saved_config.flatten(
      saved_config.to_json(config)
  ).items():
    require(
        field.split('.')[0] not in _SHARED
        or saved_config.movable(field)
        or theirs.get(field, value) == value,
        f'{field} is {value!r}, but {theirs.get(field)!r} in the teacher '
        f'{teacher}; a student has what its teacher has.',
    )
  require(
      config.diffusion.prediction in _PREDICTIONS,
      f'{TEACHER} {teacher} predicts {config.diffusion.prediction}, from which '
      'x_hat cannot be told where all is noise; give a run with '
      f'diffusion.prediction {" or ".join(_PREDICTIONS)}.',
  )
  steps = theirs['distill.num_steps']
  require(
      steps in (0, 2 * rounds[0]),
      f'{TEACHER} {teacher} was distilled for {steps} steps, and '
      f'distill.rounds begins with {rounds[0]}; it must begin with half of '
      'the steps of its teacher.',
  )


def of_round(
    config: ml_collections.ConfigDict, teacher: epath.PathLike, num_steps: int
) -> ml_collections.ConfigDict:
  """The config of the run of one student.

  Args:
    config: of the distillation.
    teacher: folder of the run that this student learns from.
    num_steps: of the student.
  """
  student = config.copy_and_resolve_references()
  with student.unlocked():
    student.train.init_from = str(teacher)
    student.distill.teacher = str(teacher)
    student.distill.num_steps = num_steps
    student.sample.sampler = 'ddim'
    student.sample.eta = 0.0
    student.sample.num_steps = num_steps
  return student
