"""python -m video_diffusion.main --config=configs/NAME.py[:variant]."""
import errno
import logging as stdlib_logging
import os
import re
import signal
import sys
import tempfile
import warnings

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from video_diffusion.config import config_files
from video_diffusion.config import renamed
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

MODES = ('train', 'sample', 'evaluate', 'prepare', 'inspect')
# These take the config of the run in the workdir.
FROM_RUN = ('sample', 'evaluate')
# What ends a run, and is not an error of the program.
DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT,
               errno.EFBIG, errno.EROFS, errno.EIO)
# What Python's parsers say of a wrong value -> what would be right.
_PARSERS = {
    'invalid literal for int': 'a whole number',
    'could not convert string to float': 'a number',
    'Non-boolean': 'True or False',
}

_WORKDIR = flags.DEFINE_string(
    'workdir', None,
    'Folder of the run. Defaults to runs/NAME[-variant], after the config.',
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '',
    'HOST:PORT of process 0; not needed on Cloud TPU, GKE and SLURM.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'Number of processes, with --coordinator.'
)
_PROCESS_ID = flags.DEFINE_integer(
    'process_id', None, 'Number of this process, from 0, with --coordinator.'
)
_CACHE = flags.DEFINE_string(
    'compilation_cache',
    '~/.cache/video_diffusion/jax',
    'Folder of compiled programs, which a restart takes from there; \'\' keeps '
    'none. JAX_COMPILATION_CACHE_DIR comes first.',
)
_MODE = flags.DEFINE_string('mode', 'train', f'One of {", ".join(MODES)}.')
_PROMPT = flags.DEFINE_multi_string(
    'prompt', [], 'Caption of a clip to sample; may be given several times.'
)
_PROMPT_FILE = flags.DEFINE_string(
    'prompt_file', None, 'File of captions, one on each line, as --prompt.'
)


def read_prompts() -> tuple[str, ...]:
  """The prompts of --prompt, then those of --prompt_file.

  A file that cannot be used ends the process.
  """
  prompts = list(_PROMPT.value)
  if _PROMPT_FILE.value is not None:
    # Imported here: a wrong flag is answered at once.
    from video_diffusion.data import text_files

    path = files.expand(_PROMPT_FILE.value, '--prompt_file')
    try:
      text = text_files.read_text(path)
    except UserError as error:
      fail(f'--prompt_file {error}')
    lines = [line.strip() for line in text_files.split_lines(text)]
    lines = [line for line in lines if line]
    if not lines:
      fail(f'--prompt_file {_PROMPT_FILE.value!r} holds no prompt.')
    prompts += lines
  if prompts and _MODE.value != 'sample':
    fail('--prompt and --prompt_file go with --mode=sample.')
  return tuple(prompts)


def compilation_cache() -> str | None:
  """The folder of compiled programs; None keeps none.

  Raises:
    UserError: the one that is asked for has no home folder to lie in.
  """
  variable = 'JAX_COMPILATION_CACHE_DIR'
  if variable in os.environ:
    return files.expand(os.environ[variable], variable, bucket=True) or None
  try:
    folder = files.expand(_CACHE.value, '--compilation_cache', bucket=True)
  except UserError as error:
    if not flags.FLAGS['compilation_cache'].using_default_value:
      raise
    logging.info('%s Compiled programs are not kept.', error)
    return None
  return folder or None


def without_home() -> None:
  """Keeps TensorFlow's Keras from making a folder ~ where there is no home."""
  try:
    files.expand('~', 'HOME')
  except UserError:
    # Where Keras itself goes if a home folder cannot be written.
    os.environ.setdefault(
        'KERAS_HOME', os.path.join(tempfile.gettempdir(), '.keras')
    )


def fail(sentence: str) -> None:
  """Ends the process with one sentence and exit code 1."""
  sys.exit(f'video_diffusion: {sentence}')


def parse_flags(argv: list[str]) -> list[str]:
  """Loads the config and parses the flags, its fields among them.

  What a person can mend ends the process with one sentence; an error inside a
  config file keeps its traceback, which names the line.
  """
  # Ctrl-C before `preemption` takes it over ends the process without a word.
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    renamed.require_new_names(renamed.flag_names(argv[1:]), '--config.')
    (name,), rest = _take(argv, 'config')
    (mode, workdir), _ = _take(rest, 'mode', 'workdir')
    path = name or config_files.DEFAULT
    if workdir == '':  # as a script gives it whose variable is not set
      raise UserError('--workdir is empty; name a folder, or leave it out.')
    workdir = workdir or config_files.default_workdir(path)
    if name or mode not in FROM_RUN:
      config = config_files.load(path)
    if mode in FROM_RUN:
      run = config_files.of_run(workdir)
      if name:  # its paths and prompts count as if they were given as flags
        rest[1:1] = config_files.places_as_flags(config, run)
      config = run
    _define_fields(config.lock(), rest)
    flags.FLAGS.set_default('workdir', workdir)
    return flags.FLAGS(rest)
  except UserError as error:
    fail(str(error))
  except flags.Error as error:
    fail(_in_words(str(error)))


def _in_words(error):
  """The error of a flag's value, without the words of Python's parsers."""
  found = re.match(r'flag (--[\w.]+)=(.*?): (.*)', error, re.DOTALL)
  for reason, right in _PARSERS.items():
    if found and reason in found[3]:
      return f'{found[1]} is {found[2]!r}; it must be {right}.'
  return error


def _take(argv, *names):
  """(values of these flags, None where they are not given; what else there is).

  They are needed before the other flags can be parsed.
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
        'A file of configs/ and perhaps a variant, configs/NAME.py:variant; '
        f'by default {config_files.DEFAULT}. --config.GROUP.FIELD=VALUE sets a '
        'field.',
        sys_argv=argv,
    )
  except (AttributeError, KeyError) as error:
    # ml_collections names the nearest field, inside several layers of quotes.
    nearest = re.search(r'mean "(\w+)" instead of "(\w+)"', str(error))
    if nearest:
      good, bad = nearest.groups()
      fail(f'the config has no field {bad!r}; did you mean {good!r}?')
    fail(f'the config has no such field: {str(error).strip()}')
  flags.FLAGS['config'].default_as_str = None  # it is long


def worth_a_line(record: stdlib_logging.LogRecord) -> bool:
  """False for what Orbax says of each save, and of errors that it raises too.

  Every save is a dozen lines of it, and a full disk some hundred; what matters
  of an error is said once, by `checkpoint`.
  """
  loud = record.levelno > stdlib_logging.INFO and not record.exc_info
  return loud or not re.search(r'\b(orbax|asyncio)\b', record.pathname)


def main(argv: list[str]) -> None:
  """Runs one mode; what the user can mend is shown as a sentence."""
  if len(argv) > 1:
    fail(f'unknown argument {argv[1]!r}; flags start with --.')
  if _MODE.value not in MODES:
    fail(f'--mode is {_MODE.value!r}; it must be one of {", ".join(MODES)}.')
  config, workdir = flags.FLAGS['config'].value, _WORKDIR.value
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(worth_a_line)
  # Orbax warns of its own coroutines where the disk refuses a save.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  without_home()
  # Imported here: a wrong flag is answered at once.
  import jax

  from video_diffusion import evaluate
  from video_diffusion import inspect
  from video_diffusion import prepare
  from video_diffusion import sample
  from video_diffusion import train
  from video_diffusion.parallel import distributed
  from video_diffusion.parallel import memory
  from video_diffusion.training import preemption

  run = {
      'train': train.train,
      'sample': sample.sample,
      'evaluate': evaluate.evaluate,
      'prepare': prepare.prepare,
      'inspect': inspect.inspect,
  }[_MODE.value]
  # Sampling and evaluation take the run's own config but for these fields.
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  args = [overrides if _MODE.value in FROM_RUN else config, workdir]
  watch = preemption.Preemption()
  try:
    if prompts := read_prompts():
      overrides.setdefault('sample.num_videos', len(prompts))
      overrides['sample.prompts'] = prompts
    jax.config.update('jax_compilation_cache_dir', compilation_cache())
    if _MODE.value not in ('prepare', 'inspect'):  # by one process
      distributed.initialize(
          _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
      )
      distributed.check(config.mesh.processes)
    watch.start()  # after jax.distributed, which takes SIGTERM as well
    if _MODE.value == 'train':
      args.append(watch)
    run(*args)
  except UserError as error:
    fail(str(error))
  except jax.errors.JaxRuntimeError as error:
    need = memory.refused(error)
    if need is None:
      raise
    fail(
        f'{memory.misfit("this computation", need)}; set a smaller '
        'batch_size, sample.batch_size or eval.batch_size.'
    )
  except OSError as error:
    # A refusal that names no file is not about a file.
    refused = error.errno in (errno.EACCES, errno.EPERM)
    if error.errno not in DISK_ERRORS or (refused and not error.filename):
      raise
    where = error.filename or f'a file of {workdir}'
    fail(
        f'{where} cannot be read or written ({error.strerror}): make room, or '
        'allow it, and give the same command again.'
    )


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
