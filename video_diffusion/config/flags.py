"""The flags of the command line, and what is read from them.

`parse` defines a flag for each config field that the command line sets, which
needs the config; it is the flags_parser of absl's app.run. `command` returns
the values of the flags as one object.
"""
import pathlib
import re
import signal
from typing import Any, NamedTuple

from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags

from video_diffusion.config import answers
from video_diffusion.config import config_files
from video_diffusion.config import demo
from video_diffusion.config import renamed
from video_diffusion.config import startup
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

MODES = (
    'train', 'distill', 'sample', 'evaluate', 'prepare', 'inspect', 'serve'
)
# These modes take the config of the run in the workdir.
FROM_RUN = ('sample', 'evaluate', 'serve')
SCORES = 'runs/scores'  # default of --workdir where folders are scored
# What Python's parsers say of a wrong value -> what would be right.
_PARSERS = {
    'invalid literal for int': 'a whole number',
    'could not convert string to float': 'a number',
    'Non-boolean': 'True or False',
}

_WORKDIR = flags.DEFINE_string(
    'workdir', None,
    'Folder of the run. Defaults to runs/NAME or runs/NAME-VARIANT, where NAME '
    'and VARIANT are those of --config.',
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '',
    'Address HOST:PORT of process 0, where one run has several processes. '
    'Cloud TPU, GKE and SLURM need no such flag: the processes find each '
    'other.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None,
    'Number of processes of the run. Set this flag together with '
    '--coordinator.',
)
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None,
    'Number of this process, counted from 0. Set this flag together with '
    '--coordinator.',
)
_CACHE = flags.DEFINE_string(
    'compilation_cache',
    '~/.cache/video_diffusion/jax',
    'Folder that keeps compiled programs, so that a restart need not compile '
    'them again. An empty value keeps none. The environment variable '
    f'{startup.CACHE_VARIABLE} takes precedence over this flag.',
)
_MODE = flags.DEFINE_string(
    'mode', 'train',
    'What to do. train trains a model, or continues a training. distill makes '
    'models of a trained one which sample in few steps. sample makes '
    'videos with a trained model. evaluate scores a trained model. prepare '
    'decodes and packs the videos of a config, and embeds their captions, '
    'before training. inspect shows a batch of the data as a GIF and as a '
    'table, measures how fast the data load, and says what memory and time a '
    'training takes. serve shows a page in which a browser on this machine '
    'samples from a trained model.',
)
_PROMPT = flags.DEFINE_multi_string(
    'prompt', [],
    'Caption of a video to sample. Give the flag several times for several '
    'videos.',
)
_PROMPT_FILE = flags.DEFINE_string(
    'prompt_file', None,
    'Text file with one caption on each line. They follow the captions of '
    '--prompt.',
)


_STEP = flags.DEFINE_integer(
    'step', None,
    'Step of the checkpoint that the modes sample, evaluate and serve take. '
    'Defaults to the newest.', lower_bound=0,
)
_PORT = flags.DEFINE_integer(
    'port', 7860,
    'Port of the page of --mode=serve, on this machine alone. 0 takes a free '
    'port.', lower_bound=0, upper_bound=65535,
)
_SAMPLES = flags.DEFINE_string(
    'samples', None,
    'Folder of videos that --mode=evaluate scores against those of '
    '--reference, without a run. The report is written to --workdir, which '
    'defaults to runs/scores.',
)
_REFERENCE = flags.DEFINE_string(
    'reference', None,
    'Folder of real videos. Set this flag together with --samples.',
)


class Command(NamedTuple):
  """What the command line asks for.

  Attributes:
    mode: one of MODES.
    config: of --config; in the modes FROM_RUN, of the run.
    overrides: 'group.field' -> value of the fields that the command line sets,
      the prompts of --prompt and --prompt_file among them.
    workdir: folder of the run.
    coordinator: HOST:PORT of process 0, or ''.
    num_processes: number of processes, or None.
    process_id: number of this process, or None.
    compilation_cache: folder of compiled programs; None keeps none.
    samples: folder of videos to score, or None.
    reference: folder of real videos, or None.
    step: step of the checkpoint, or None.
    port: of the page of --mode=serve.
  """

  mode: str
  config: ml_collections.ConfigDict
  overrides: dict[str, Any]
  workdir: str
  coordinator: str
  num_processes: int | None
  process_id: int | None
  compilation_cache: str | None
  samples: str | None = None
  reference: str | None = None
  step: int | None = None
  port: int = _PORT.default


def workdir() -> str:
  """The folder of the run, of the flags that `parse` has parsed."""
  return _WORKDIR.value


def command() -> Command:
  """The values of the flags that `parse` has parsed.

  Raises:
    UserError: a flag is wrong, or a file that it names.
  """
  # Sampling and evaluation take the run's own config but for these fields.
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  if prompts := read_prompts(_PROMPT.value, _PROMPT_FILE.value):
    if _MODE.value != 'sample':
      raise UserError('--prompt and --prompt_file go with --mode=sample.')
    overrides.setdefault('sample.num_videos', len(prompts))
    overrides['sample.prompts'] = prompts
  if _STEP.value is not None and _MODE.value not in FROM_RUN:
    raise UserError(f'--step goes with --mode={" or ".join(FROM_RUN)}.')
  if flags.FLAGS['port'].present and _MODE.value != 'serve':
    raise UserError('--port goes with --mode=serve.')
  return Command(
      mode=_MODE.value,
      config=flags.FLAGS['config'].value,
      overrides=overrides,
      workdir=_WORKDIR.value,
      coordinator=_COORDINATOR.value,
      num_processes=_NUM_PROCESSES.value,
      process_id=_PROCESS_ID.value,
      compilation_cache=startup.compilation_cache(
          _CACHE.value,
          is_default=flags.FLAGS['compilation_cache'].using_default_value,
      ),
      samples=_SAMPLES.value,
      reference=_REFERENCE.value,
      step=_STEP.value,
      port=_PORT.value,
  )


def read_prompts(prompts: list[str], file: str | None) -> tuple[str, ...]:
  """The prompts of --prompt, then those in the file of --prompt_file.

  Raises:
    UserError: the file cannot be read as text, or holds no prompt.
  """
  if file is None:
    return tuple(prompts)
  # Imported here: a wrong flag is answered at once.
  from video_diffusion.data import text_files

  path = files.expand(file, '--prompt_file')
  try:
    text = text_files.read_text(path)
  except UserError as error:
    raise UserError(f'--prompt_file {error}') from error
  lines = [line.strip() for line in text_files.split_lines(text)]
  lines = [line for line in lines if line]
  if not lines:
    raise UserError(f'--prompt_file {file!r} holds no prompt.')
  return (*prompts, *lines)


def parse(argv: list[str]) -> list[str]:
  """Loads the config and parses the flags, its fields among them.

  What a person can mend ends the process with one sentence; an error inside a
  config file keeps its traceback, which names the line.

  Returns:
    [name of the program].
  """
  # Ctrl-C before `preemption` takes it over ends the process without a word.
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    return _parse(argv)
  except UserError as error:
    answers.fail(str(error))
  except flags.Error as error:
    answers.fail(_in_words(str(error)))


def _parse(argv):
  renamed.require_new_names(renamed.flag_names(argv[1:]), '--config.')
  (name,), rest = _take(argv, 'config')
  (mode, folder, teacher, *videos), _ = _take(
      rest, 'mode', 'workdir', 'config.distill.teacher', 'samples', 'reference'
  )
  _check_folders(mode, *videos)
  of_run = mode in FROM_RUN and not any(videos)
  path = name or (
      config_files.DISTILL if mode == 'distill' else config_files.DEFAULT
  )
  if folder == '':  # as a script gives it whose variable is not set
    raise UserError('--workdir is empty; name a folder, or leave it out.')
  if any(videos):
    folder = folder or SCORES
  if mode in ('sample', 'serve') and not (name or folder or _is_run(path)):
    folder = demo.FOLDER
    # A warning, since other levels are not shown before flags are parsed.
    logging.warning(
        'There is no run in %s: samples are made by the small model that comes '
        'with the package, in %s.', config_files.default_workdir(path), folder,
    )
  if of_run and folder == demo.FOLDER:
    demo.place()
  folder = folder or config_files.default_workdir(path)
  if mode == 'distill':
    config = _distillation(teacher, path)
  elif name or not of_run:
    config = config_files.get_config(path)
  if of_run:
    run = config_files.of_run(folder)
    if name:  # its paths and prompts count as if they were given as flags
      rest[1:1] = config_files.places_as_flags(config, run)
    config = run
  _define_fields(config.lock(), rest)
  flags.FLAGS.set_default('workdir', folder)
  rest = flags.FLAGS(rest)
  if len(rest) > 1:
    raise UserError(f'unknown argument {rest[1]!r}; flags start with --.')
  if _MODE.value not in MODES:
    raise UserError(
        f'--mode is {_MODE.value!r}; it must be one of {", ".join(MODES)}.'
    )
  return rest


def _distillation(teacher, path):
  """The config of --mode=distill."""
  # Imported here, as it imports JAX: a wrong flag is answered at once.
  from video_diffusion.config import distill_config

  if not teacher:
    raise UserError(
        '--mode=distill needs --config.distill.teacher, the folder of a '
        'trained run.'
    )
  return distill_config.get_config(teacher, path)


def _is_run(path):
  """Whether the default folder of a config holds a run."""
  folder = pathlib.Path(config_files.default_workdir(path))
  return (folder / 'config.json').exists()


def _check_folders(mode, samples, reference):
  """Requires that --samples and --reference are given together, or neither."""
  for flag, given, other, partner in (
      ('--samples', samples, '--reference', reference),
      ('--reference', reference, '--samples', samples),
  ):
    if given and mode != 'evaluate':
      raise UserError(f'{flag} goes with --mode=evaluate.')
    if given and not partner:
      raise UserError(f'{flag} is given without {other}; give both folders.')


def _in_words(error):
  """The error of a flag's value, without the words of Python's parsers."""
  found = re.match(r'flag (--[\w.]+)=(.*?): (.*)', error, re.DOTALL)
  for reason, right in _PARSERS.items():
    if found and reason in found[3]:
      return f'{found[1]} is {found[2]!r}; it must be {right}.'
  return error


def _take(argv, *names):
  """(values of some flags, None where they are not given; the other arguments).

  The config needs these flags, and the other flags need the config.
  """
  early = flags.FlagValues()
  for name in names:
    flags.DEFINE_string(name, None, '', flag_values=early)
  early.set_gnu_getopt()  # goes on behind the value of a flag it does not know
  rest = early(argv, known_only=True)
  return [early[name].value for name in names], rest


def _define_fields(config, argv):
  """Defines --config, and a flag for each of its fields that argv sets."""
  try:
    config_flags.DEFINE_config_dict(
        'config',
        config,
        'Config of the run. NAME or NAME:VARIANT is a config of the package, '
        'PATH.py or PATH.py:VARIANT is a file of yours. Defaults to '
        f'{config_files.DEFAULT}. --config.GROUP.FIELD=VALUE sets a field of '
        'the config.',
        sys_argv=argv,
    )
  except (AttributeError, KeyError) as error:
    # ml_collections names the nearest field, inside several layers of quotes.
    nearest = re.search(r'mean "(\w+)" instead of "(\w+)"', str(error))
    if nearest:
      good, bad = nearest.groups()
      raise UserError(
          f'the config has no field {bad!r}; did you mean {good!r}?'
      ) from error
    raise UserError(
        f'the config has no such field: {str(error).strip()}'
    ) from error
  flag = flags.FLAGS['config']
  flag.default_as_str = None  # it is long
  # --help of the program shows it.
  flags.FLAGS.register_key_flag_for_module(argv[0], flag)
