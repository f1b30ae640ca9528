"""Wrong flags: one sentence each, before any compile."""
import gc
import logging
import platform
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from video_diffusion.config import config_files
from video_diffusion.config import flags
from video_diffusion.config import startup
from video_diffusion.errors import UserError


@pytest.mark.parametrize(
    'flag, sentence',
    [
        ('--config.optim.lrr=1', "no field 'lrr'; did you mean 'lr'?"),
        ('--config.optm.lr=1', "no field 'optm'; did you mean 'optim'?"),
        ('--config.optim.lr=fast',
         "--config.optim.lr is 'fast'; it must be a number."),
        ('--config.batch_size=8.5',
         "--config.batch_size is '8.5'; it must be a whole number."),
        ('--config.data.flip=perhaps',
         "--config.data.flip is 'perhaps'; it must be True or False."),
        ('--workdir=', '--workdir is empty; name a folder, or leave it out.'),
        ('--config=configs/nothing.py', 'there is no such file'),
        ('--config=configs/kinetics.py:big', "no variant 'big'"),
        ('--mode=trian', "--mode is 'trian'; it must be one of train"),
        ('--wrkdir=x', 'wrkdir'),
        ('stray', "unknown argument 'stray'"),
        ('--config.data.height=9', 'data.height is 9; with 2 levels it must'),
        ('--config.data.width=1', 'data.width is 1; with 2 levels it must'),
        ('--config.data.frames=0', 'data.frames is 0; it must be at least 1'),
        (
            '--config.model.attention_resolutions=(8, 5)',
            'holds 5, which never occurs; the levels have (16, 8)',
        ),
        ('--config.model.head_dim=3', 'model.head_dim is 3'),
        ('--config.diffusion.prediction=z', "diffusion.prediction is 'z'"),
        ('--config.optim.schedule=step', "optim.schedule is 'step'"),
        ('--config.sample.labels=((9, 0, 0, 0, 0, 0),)', 'sample.labels'),
        ('--config.data.radius=0.9', 'data.radius'),
        ('--config.sample.labels=(0, 1, 2, 3, 4, 5)', 'a tuple of tuples'),
        ('--config.data.name=video_folder',
         "data.name is 'video_folder', which has no option data.bounce"),
        ('--config.optim.decay_steps=2', 'optim.decay_steps'),
        ('--config.data.name=nope', "data.name is 'nope'"),
        ('--config.data.weight=0.0', 'data.weight is 0.0'),
        ('--config.data.frameskips=(0,)', 'data.frameskips is (0,)'),
    ],
)
def test_one_sentence(run_main_here, tmp_path, flag, sentence):
  refused(run_main_here, tmp_path, flag, sentence)


def test_one_sentence_of_a_process(run_main, tmp_path):
  refused(
      run_main, tmp_path, '--config.batch_size=6',
      'batch_size is 6; it must divide by the 4', devices=4,
  )


def refused(run, tmp_path, flag, sentence, **options):
  """Asserts that main ends with a sentence, before anything is computed."""
  workdir = f'--workdir={tmp_path / "run"}'
  code, output = run(workdir, flag, tiny=False, **options)
  assert code == 1, output
  last = output.strip().splitlines()[-1]
  assert sentence in last and last.startswith('video_diffusion: ')
  assert 'Traceback' not in output and 'Compiled' not in output
  assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.parametrize('content, answer', [
    ('one\u2028still one\r\n\n two ', ('one\u2028still one', 'two')),
    (b'one\ncaf\xe9\n', 'line 2: its byte 0xE9 is not UTF-8; save the file as'),
    ('one'.encode('utf-16'), 'line 1: it is UTF-16; save the file as UTF-8'),
    (b'\n\n', 'holds no prompt'),
])
def test_a_file_of_prompts(tmp_path, content, answer):
  file = tmp_path / 'prompts.txt'
  file.write_bytes(content if isinstance(content, bytes) else content.encode())
  if isinstance(answer, tuple):
    prompts = flags.read_prompts(['first'], str(file))
    assert prompts == ('first', *answer)
    return
  with pytest.raises(UserError) as error:
    flags.read_prompts([], str(file))
  assert answer in str(error.value) and str(file) in str(error.value)


def test_prompts_are_for_sampling(run_main_here):
  code, output = run_main_here('--prompt=a')
  assert code == 1
  assert '--prompt and --prompt_file go with --mode=sample.' in output


@pytest.mark.parametrize('given, is_default, folder', [
    ('/a/b', False, '/a/b'),
    ('', False, None),
    ('~/c', True, None),
    ('~/c', False, '--compilation_cache'),
])
def test_the_folder_of_compiled_programs(
    monkeypatch, given, is_default, folder
):
  monkeypatch.delenv(startup.CACHE_VARIABLE, raising=False)
  monkeypatch.setenv('HOME', '')  # there is no home folder
  if not is_default and given.startswith('~'):
    with pytest.raises(UserError, match=folder):
      startup.compilation_cache(given, is_default=is_default)
    return
  assert startup.compilation_cache(given, is_default=is_default) == folder
  monkeypatch.setenv(startup.CACHE_VARIABLE, '/d')
  assert startup.compilation_cache(given, is_default=is_default) == '/d'


def test_help_is_in_sentences_and_names_every_flag(run_main):
  code, output = run_main('--help', tiny=False)
  assert code == 1  # as absl has it
  text = ' '.join(output.split())
  for name in ('config', 'workdir', 'mode', 'prompt', 'prompt_file',
               'compilation_cache', 'coordinator', 'num_processes',
               'process_id'):
    assert f' --{name}: ' in text
  assert 'Folder of the run. Defaults to runs/NAME' in text


def test_default_workdir():
  name = config_files.default_workdir
  assert name('/a/configs/moving_shapes.py') == 'runs/moving_shapes'
  assert name('kinetics:smoke') == 'runs/kinetics-smoke'
  assert name('configs/kinetics.py:smoke') == 'runs/kinetics-smoke'


def record(path, level, exc_info=None):
  return logging.LogRecord('x', level, path, 1, 'text', (), exc_info)


def test_orbax_is_heard_where_it_warns():
  error = (ValueError, ValueError('text'), None)
  orbax, ours = '/lib/orbax/checkpoint/future.py', '/video_diffusion/train.py'
  worth = startup.worth_a_line
  assert worth(record(orbax, logging.WARNING))
  assert not worth(record(orbax, logging.INFO))
  assert not worth(record(orbax, logging.ERROR, error))
  assert not worth(record('/lib/asyncio/events.py', logging.ERROR, error))
  assert worth(record(ours, logging.INFO))
  assert worth(record(ours, logging.ERROR, error))


def test_what_tracing_leaves_is_seldom_searched_for_garbage():
  before = gc.get_threshold()
  try:
    gc.set_threshold(700, 10, 10)  # as Python has it
    startup.collect_seldom()
    gc.collect()
    searches = sum(found['collections'] for found in gc.get_stats())
    kept = [[] for _ in range(40_000)]
    assert kept
    assert searches == sum(found['collections'] for found in gc.get_stats())
  finally:
    gc.set_threshold(*before)


@pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='the allocator is not glibc'
)
def test_a_step_on_cpus_takes_the_memory_of_the_one_before():
  code = """
import resource
from video_diffusion.config import startup
startup.keep_freed_memory()
import jax
x = jax.numpy.ones((2048, 4096))  # 32 MiB
step = jax.jit(lambda x: (jax.numpy.sort(x + 1) @ (x.T + 1)).sum())
for _ in range(3):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
  done = subprocess.run(
      [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
      check=True,
  )
  assert int(done.stdout) < 30_000, done.stdout  # 278,561 without
