"""python -m video_diffusion.main --config=configs/NAME.py[:variant]."""
import errno
import logging as stdlib_logging
import os
import pathlib
import re
import sys
import warnings

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from video_diffusion.errors import UserError

MODES = ('train', 'sample', 'evaluate', 'prepare', 'inspect')
# What ends a run, and is not an error of the program.
DISK_ERRORS = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT,
               errno.EROFS, errno.EIO)
_DEFAULT = pathlib.Path(__file__).parents[1] / 'configs' / 'moving_shapes.py'

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    None,
    'A file of configs/ and perhaps a variant, configs/NAME.py:variant; by '
    'default configs/moving_shapes.py beside the package.',
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Of the run; by default runs/NAME[-variant].'
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of process 0, where no cluster says it.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'In all.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Of this one, from 0.')
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
    'prompt_file', None, 'Of such captions, one a line.'
)


def read_prompts() -> tuple[str, ...]:
  """Those of --prompt, then of --prompt_file; wrong ones end the process."""
  prompts = list(_PROMPT.value)
  if _PROMPT_FILE.value is not None:
    # Imported here: a wrong flag is answered at once.
    from video_diffusion.data import text_files

    try:
      text = text_files.read_text(_PROMPT_FILE.value)
    except UserError as error:
      fail(f'--prompt_file {error}')
    except (OSError, ValueError) as error:
      fail(f'--prompt_file {_PROMPT_FILE.value!r} cannot be read ({error}).')
    lines = [line.strip() for line in text_files.split_lines(text)]
    lines = [line for line in lines if line]
    if not lines:
      fail(f'--prompt_file {_PROMPT_FILE.value!r} holds no prompt.')
    prompts += lines
  if prompts and _MODE.value != 'sample':
    fail('--prompt and --prompt_file go with --mode=sample.')
  return tuple(prompts)


def default_workdir(config_flag: str) -> str:
  """'configs/kinetics.py:smoke' -> 'runs/kinetics-smoke'."""
  path, _, variant = config_flag.partition(':')
  name = pathlib.Path(path).stem
  return str(pathlib.Path('runs') / (f'{name}-{variant}' if variant else name))


def fail(sentence: str) -> None:
  """Ends the process with one sentence and exit code 1."""
  sys.exit(f'video_diffusion: {sentence}')


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; whatever is wrong with them ends in one sentence."""
  given = dict(arg.lstrip('-').partition('=')[::2] for arg in argv[1:])
  if 'config' not in given and _DEFAULT.exists():
    argv = [argv[0], f'--config={_DEFAULT}', *argv[1:]]
  path = given.get('config', '').partition(':')[0]
  if path and not pathlib.Path(path).is_file():
    fail(f'--config names {path!r}, and there is no such file.')
  try:
    return flags.FLAGS(argv)
  except (AttributeError, KeyError) as error:
    # ml_collections names the nearest field, inside several layers of quotes.
    nearest = re.search(r'mean "(\w+)" instead of "(\w+)"', str(error))
    if nearest:
      good, bad = nearest.groups()
      fail(f'the config has no field {bad!r}; did you mean {good!r}?')
    fail(f'the config has no such field: {str(error).strip()}')
  except (ValueError, OSError, flags.Error) as error:
    # An error inside a config file comes with its traceback: keep its end.
    fail(str(error).strip().splitlines()[-1])


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
  if flags.FLAGS['config'].value is None:
    fail('pass --config=FILE, the path of a config file.')
  config_path = config_flags.get_config_filename(flags.FLAGS['config'])
  workdir = _WORKDIR.value or default_workdir(config_path)
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(worth_a_line)
  # Of Orbax's saves, where the disk refuses one.
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  # Imported here: a wrong flag is answered at once.
  import jax

  from video_diffusion import distributed
  from video_diffusion import evaluate
  from video_diffusion import inspect
  from video_diffusion import memory
  from video_diffusion import preemption
  from video_diffusion import prepare
  from video_diffusion import sample
  from video_diffusion import train

  run = {
      'train': train.train,
      'sample': sample.sample,
      'evaluate': evaluate.evaluate,
      'prepare': prepare.prepare,
      'inspect': inspect.inspect,
  }[_MODE.value]
  if _CACHE.value and 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    folder = os.path.expanduser(_CACHE.value)
    jax.config.update('jax_compilation_cache_dir', folder)
  # Sampling and evaluation take the run's own config but for these fields.
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  if prompts := read_prompts():
    overrides = {'sample.num_clips': len(prompts)} | overrides
    overrides['sample.prompts'] = prompts
  args = [
      overrides if _MODE.value in ('sample', 'evaluate') else _CONFIG.value,
      workdir,
  ]
  watch = preemption.Preemption()
  try:
    if _MODE.value not in ('prepare', 'inspect'):  # by one process
      distributed.initialize(
          _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
      )
      distributed.check(_CONFIG.value.mesh.processes)
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
    if error.errno not in DISK_ERRORS:
      raise
    where = error.filename or f'a file of {workdir}'
    fail(
        f'{where} cannot be read or written ({error.strerror}): make room, or '
        'allow it, and give the same command again.'
    )


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
