"""The configs of a distillation and of its students, and what these take."""
from collections.abc import Iterator

from etils import epath
import ml_collections

from video_diffusion.config import build
from video_diffusion.config import config_files
from video_diffusion.config import saved_config
from video_diffusion.config.validate import require
from video_diffusion.diffusion import samplers
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import naming
from video_diffusion.filesystem import files
from video_diffusion.inference import block_sampler

TEACHER = 'distill.teacher'
# Groups of the config file. All others, and their fields, are the teacher's.
GROUPS = ('optim', 'train', 'distill', 'log', 'checkpoint')
# A student has these groups as its teacher has them.
_SHARED = ('model', 'diffusion', 'extension', 'text')
FIRST = 'steps_any'  # folder of the student that takes any number of steps
# What a student may learn of guidance; a student of its own has the same.
_GUIDANCE = ('max_guidance_weight', 'reconstruction_weight')
# How known frames are noised, where students see them without noise: no other
# way makes a difference.
REPLACEMENT = 'marginal'
# Sample fields that --mode=distill sets, as students are sampled.
_SAMPLER = {'sampler': 'ddim', 'eta': 0.0}


def get_config(
    teacher: epath.PathLike, name: str = config_files.DISTILL
) -> ml_collections.ConfigDict:
  """The config of a distillation: a trained run, with GROUPS of a config file.

  What the config of the teacher names, as the folder of its data, is left out.
  Students of a teacher that has learned guidance have learned the same.

  Args:
    teacher: folder of the trained run.
    name: of a config, as of `config_files.get_config`.

  Raises:
    UserError: there is no such run or config.
  """
  teacher = files.expand(teacher, TEACHER, bucket=True)
  config = config_files.of_run(teacher)
  own = config_files.get_config(name)
  learned = {name: config.distill[name] for name in _GUIDANCE}
  with config.unlocked():
    for group in GROUPS:
      config[group] = own[group]
    config.distill.teacher = str(teacher)
    if any(learned.values()):
      config.distill.update(learned)
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
  teacher, theirs = _teacher(config)
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
  steps = theirs['distill.num_steps']
  require(
      steps in (0, 2 * rounds[0]),
      f'{TEACHER} {teacher} was distilled for {steps} steps, and '
      f'distill.rounds begins with {rounds[0]}; it must begin with half of '
      'the steps of its teacher.',
  )
  _check_guidance(config, teacher, theirs)
  _check_sample(config, theirs)
  # A round ends with samples, for which it would then be late.
  for _, student in students(config, epath.Path()):
    settings = build.sampling_settings(student)
    with naming(lambda name: f'sample.{name}'):
      require_distilled(student, settings)


def _teacher(config):
  """(folder of the first teacher, 'group.field' -> value of its config)."""
  teacher = files.expand(config.distill.teacher, TEACHER, bucket=True)
  return teacher, saved_config.flatten(
      saved_config.to_json(config_files.of_run(teacher))
  )


def _check_guidance(config, teacher, theirs):
  """Requires that the teacher can give what is asked for of guidance."""
  new = _new_guidance(config, theirs)
  for name in new:
    field, weight = f'distill.{name}', config.distill[name]
    require(
        not any(theirs[f'distill.{other}'] for other in _GUIDANCE),
        f'{field} is {weight:g}, but {theirs[field]:g} in the teacher '
        f'{teacher}, which has learned guidance already; leave it out.',
    )
    steps = theirs['distill.num_steps']
    require(
        not weight or not steps,
        f'{field} is {weight:g}, but the teacher {teacher} was distilled for '
        f'{steps} steps; give the run that it was distilled from.',
    )
  weight = config.distill.max_guidance_weight
  require(
      'max_guidance_weight' not in new
      or config.model.cond_dim and config.diffusion.cond_drop,
      f'distill.max_guidance_weight is {weight:g}, but the teacher {teacher} '
      'cannot be guided: it was not trained both with a condition and without '
      '(model.cond_dim, diffusion.cond_drop); set it to 0.',
  )
  weight = config.distill.reconstruction_weight
  require(
      not weight or config.data.frames > 1,
      f'distill.reconstruction_weight is {weight:g}, but data.frames is 1: no '
      'frame is left beside a known one; set it to 0.',
  )


def _new_guidance(config, theirs):
  """The fields of guidance that the teacher has otherwise."""
  return [
      name for name in _GUIDANCE
      if config.distill[name] != theirs[f'distill.{name}']
  ]


def _check_sample(config, theirs):
  """Requires that sample fields which a distillation decides are left alone."""
  learned = ('reconstruction_weight', 'replacement')
  if not config.distill.reconstruction_weight:
    learned = ()
  for name in ('num_steps', *_SAMPLER, *learned):
    value = config.sample[name]
    require(
        value in (theirs[f'sample.{name}'], _SAMPLER.get(name)),
        f'sample.{name} is {value!r}, but --mode=distill decides how students '
        'are sampled: in the number of steps of their round, by ddim with eta '
        '0, and by the guidance that they have learned; leave it out.',
    )


def students(
    config: ml_collections.ConfigDict, run_dir: epath.Path
) -> Iterator[tuple[epath.Path, ml_collections.ConfigDict]]:
  """Yields the folder and the config of each student, in their order.

  The first takes any number of steps, where the teacher predicts eps, or has
  guidance to be distilled. (At t = 1 x_hat cannot be told from eps, and two
  steps of a teacher begin there.)

  Args:
    config: of the distillation, checked.
    run_dir: folder of all students.
  """
  teacher, theirs = _teacher(config)
  if config.diffusion.prediction == 'eps' or _new_guidance(config, theirs):
    student = _student(config, teacher)
    with student.unlocked():
      student.distill.teacher_prediction = config.diffusion.prediction
    teacher = run_dir / FIRST
    yield teacher, student
  for num_steps in config.distill.rounds:
    student = of_round(config, teacher, num_steps)
    teacher = run_dir / f'steps_{num_steps}'
    yield teacher, student


def of_round(
    config: ml_collections.ConfigDict, teacher: epath.PathLike, num_steps: int
) -> ml_collections.ConfigDict:
  """The config of the run of one student.

  Args:
    config: of the distillation.
    teacher: folder of the run that this student learns from.
    num_steps: of the student.
  """
  student = _student(config, teacher)
  with student.unlocked():
    student.distill.num_steps = num_steps
    student.sample.num_steps = num_steps
    student.sample.update(_SAMPLER)
  return student


def _student(config, teacher):
  """What the configs of all students have in common."""
  student = config.copy_and_resolve_references()
  with student.unlocked():
    student.train.init_from = str(teacher)
    student.distill.teacher = str(teacher)
    if student.diffusion.prediction == 'eps':
      student.diffusion.prediction = 'v'
    if weight := student.distill.reconstruction_weight:
      student.sample.reconstruction_weight = weight
      student.sample.replacement = REPLACEMENT
  return student


def require_distilled(
    config: ml_collections.ConfigDict, settings: block_sampler.Settings
) -> None:
  """Requires the steps and the guidance that a model was distilled for.

  Raises:
    ArgumentError: other steps or another sampler, which would give noise; or a
      weight of guidance that the network has not learned.
  """
  steps, largest = config.distill.num_steps, config.distill.max_guidance_weight
  if steps and settings.num_steps != steps:
    raise ArgumentError(
        Argument('num_steps'),
        f' is {settings.num_steps}; this model was distilled for {steps} '
        f'steps, and other numbers give noise: it must be {steps}.',
    )
  if steps and settings.sampler != samplers.DDIM(eta=0.0):
    raise ArgumentError(
        Argument('sampler'),
        f' is {settings.sampler}; this model was distilled for the steps of '
        "'ddim' with eta 0.",
    )
  if largest and not 0 <= settings.guidance_weight <= largest:
    raise ArgumentError(
        Argument('guidance_weight'),
        f' is {settings.guidance_weight:g}; this model was distilled for '
        f'weights from 0 to {largest:g}.',
    )
  learned = config.distill.reconstruction_weight
  if learned and settings.reconstruction_weight != learned:
    raise ArgumentError(
        Argument('reconstruction_weight'),
        f' is {settings.reconstruction_weight:g}; this model was distilled for '
        f'the weight {learned:g}, and takes no other.',
    )
  if learned and settings.replacement != REPLACEMENT:
    raise ArgumentError(
        Argument('replacement'),
        f' is {settings.replacement!r}; this model was distilled to see known '
        f'frames without noise, and takes {REPLACEMENT!r} alone.',
    )
