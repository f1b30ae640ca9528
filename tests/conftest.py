"""Settings and helpers of all tests."""
import atexit
import contextlib
import fcntl
import io
import logging as stdlib_logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from unittest import mock
import warnings

from absl import flags
from absl import logging
from absl.testing import flagsaver

from tests.support.paths import ROOT

# Before JAX and TensorFlow start.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# What one process has compiled, no other one compiles again: the workers of
# pytest-xdist and whatever a test starts inherit this folder.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _cache = tempfile.mkdtemp(prefix='video_diffusion_tests_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.05')

import jax  # noqa: E402

# Half the compile time: tests compile much and compute little. XLA reads
# the flags when the first program is compiled, and knows no unknown ones.
_flags = [
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
    '--xla_cpu_parallel_codegen_split_count=1',
]
if jax.__version_info__ <= (0, 11, 0):  # later ones have nothing else
  _flags.append('--xla_cpu_use_fusion_emitters=false')
os.environ.setdefault('XLA_FLAGS', ' '.join(_flags))

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests.support.waiting import LIMIT  # noqa: E402
from video_diffusion.config import startup  # noqa: E402

startup.collect_seldom()

# A suite that is started in the background ignores Ctrl-C, and what it starts
# would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)



def pytest_addoption(parser):
  parser.addoption(
      '--fuzz_seconds', type=float, default=0.0,
      help='How long test_fuzz.py goes on after its fixed tries.',
  )


@pytest.fixture(scope='session')
def random_params():
  """(module, *args, **kwargs) -> {'params': ...} with nothing left at zero.

  Drawn in numpy by shape alone: an initialisation by JAX compiles for seconds,
  and its zero-initialised ends would hide most of the network.
  """

  def make(module, *args, **kwargs):
    abstract = jax.eval_shape(
        lambda: module.init(jax.random.key(0), *args, **kwargs)
    )
    rng = np.random.default_rng(0)

    def draw(path, leaf):
      fan_in = max(1, int(np.prod(leaf.shape[:-1])))
      scale = 1 / np.sqrt(fan_in) if len(leaf.shape) > 1 else 0.2
      one = 1.0 if 'scale' in jax.tree_util.keystr(path) else 0.0
      value = one + scale * rng.standard_normal(leaf.shape)
      return jax.numpy.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract)

  return make


@pytest.fixture(scope='session')
def make_t5(random_params):
  """T5Config -> parameters of its encoder, in numpy."""
  from video_diffusion.models import t5

  def make(config):
    ids, mask = np.zeros((1, 2), np.int32), np.ones((1, 2), bool)
    params = random_params(t5.T5Encoder(config), ids, mask)['params']
    return jax.tree.map(np.asarray, params)

  return make


TINY = {
    'data.frames': 2,
    'data.images': 1,
    'data.height': 8,
    'data.width': 8,
    'data.radius': 0.25,
    # An import of TensorFlow takes seconds; one test has its loader.
    'data.loader': 'threads',
    'batch_size': 8,
    'model.base_channels': 4,
    'model.channel_mults': (1,),
    # Three blocks in all: two in the middle, and one on the way up.
    'model.num_blocks': 0,
    # Attention is in the middle alone: half of what is traced and compiled.
    'model.attention_resolutions': (),
    'model.head_dim': 4,
    'model.emb_dim': 8,
    'model.cond_dim': 4,
    'train.steps': 6,
    'log.every': 1,
    'log.eval_every': 0,
    'log.sample_every': 0,
    'checkpoint.every': 2,
    'eval.num_clips': 16,
    'eval.batch_size': 8,
    'sample.num_videos': 8,
    'sample.batch_size': 8,
    'sample.num_steps': 2,
}


@pytest.fixture(scope='session')
def tiny_flags():
  """Flags that shrink configs/moving_shapes.py to seconds."""
  return [f'--config.{field}={value}' for field, value in TINY.items()]


@pytest.fixture
def tiny_config():
  """configs/moving_shapes.py with the same fields, as a ConfigDict."""
  from video_diffusion.config import config_files

  config = config_files.get_config()
  config.update_from_flattened_dict(TINY)
  return config


@pytest.fixture(scope='session')
def tiny_video_flags(tiny_flags):
  """The same without what moving_shapes alone has, its labels among it."""
  own = ('data.radius', 'model.cond_dim')
  return [flag for flag in tiny_flags if not any(name in flag for name in own)]


# Processes of tests that do not run `main` begin with this.
FIRST = 'from video_diffusion.config import startup; startup.collect_seldom()'


@pytest.fixture(scope='session')
def start_main(tiny_flags):
  """(*flags, devices, tiny, before, group, **environment) -> a Popen of main.

  `before` is code that runs first in its process; with `group` it leads a group
  of processes, as under a terminal.
  """

  def start(
      *flags, devices=1, tiny=True, before='', group=False, **environment
  ):
    environment = {
        **os.environ,
        'JAX_NUM_CPU_DEVICES': str(devices),
        **environment,
    }
    run = 'runpy.run_module("video_diffusion.main", run_name="__main__")'
    code = f'{before}\nimport runpy\n{run}'
    command = [sys.executable, '-c', code]
    return subprocess.Popen(
        [*command, *(tiny_flags if tiny else ()), *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=group,
    )

  return start


@pytest.fixture(scope='session')
def run_main(start_main):
  """The same, waited for -> (exit code, output)."""

  def run(*flags, **options):
    process = start_main(*flags, **options)
    output, _ = process.communicate(timeout=LIMIT)
    return process.returncode, output

  return run


@contextlib.contextmanager
def _fresh_flags():
  """Flags have the values, and --config the fields, that they had before.

  Flags of modules that are imported meanwhile stay.
  """
  before = flagsaver.save_flag_values()
  try:
    yield
  finally:
    for name in flags.FLAGS:
      if name not in before and not name.startswith('config'):
        before[name] = flags.FLAGS[name].__dict__
    flagsaver.restore_flag_values(before)


@contextlib.contextmanager
def _same_log_levels():
  """Loggers have the levels that they had before, for pytest's caplog."""
  loggers = stdlib_logging.getLogger(), logging.get_absl_logger()
  levels = [logger.level for logger in loggers]
  try:
    yield
  finally:
    for logger, level in zip(loggers, levels, strict=True):
      logger.setLevel(level)


@pytest.fixture(scope='session')
def run_main_here(tiny_flags):
  """(*flags, tiny) -> (exit code, output) of main, called in this process.

  Flags are parsed as at a start; the output is the log and what is printed.
  For whatever needs neither a signal nor a process or environment of its own:
  a start of main takes five seconds for its imports alone.
  """
  from video_diffusion import main
  from video_diffusion.config import flags as our_flags
  from video_diffusion.training import preemption

  def run(*flags, tiny=True):
    output = io.StringIO()
    argv = ['main', *(tiny_flags if tiny else ()), *flags]
    handler = logging.get_absl_handler()
    stream = handler.python_handler.stream
    cache = jax.config.jax_compilation_cache_dir
    with (
        _same_log_levels(),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        _fresh_flags(),
        warnings.catch_warnings(),
        # Signals are those of pytest.
        mock.patch.object(preemption.Preemption, 'start', lambda self: None),
        mock.patch.object(our_flags.signal, 'signal', lambda *_: None),
        # The memory of thousands of tests is to go back to the system.
        mock.patch.object(startup, 'keep_freed_memory', lambda: None),
    ):
      logging.use_absl_handler()
      handler.python_handler.setStream(output)
      try:
        main.main(our_flags.parse(argv))
        code = 0
      except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        print(error.code)
      except Exception:
        traceback.print_exc()
        code = 1
      finally:
        jax.config.update('jax_compilation_cache_dir', cache)
        handler.python_handler.setStream(stream)
        stdlib_logging.getLogger().removeHandler(handler)
    return code, output.getvalue()

  return run


@pytest.fixture(scope='session')
def once(tmp_path_factory):
  """(name, make) -> a folder that make(folder) has filled, once in a session.

  The workers of pytest-xdist share it: whoever comes second waits. Tests read
  it, and change a copy.
  """
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent

  def get(name, make):
    folder = root / 'once' / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f'{name}.lock').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      done = folder.parent / f'{name}.done'
      if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
        folder.mkdir()
        make(folder)
        done.touch()
    return folder

  return get


@pytest.fixture(scope='session')
def finished(once, run_main_here):
  """The workdir of an uninterrupted run of moving_shapes, and its output."""

  def make(folder):
    code, output = run_main_here(f'--workdir={folder / "run"}')
    assert code == 0, output
    (folder / 'output').write_text(output)

  folder = once('finished', make)
  return folder / 'run', (folder / 'output').read_text()


@pytest.fixture
def copied_run(finished, tmp_path):
  """A copy of that run, to be changed or written to."""
  return shutil.copytree(finished[0], tmp_path / 'copied_run')
