"""What main shows: a sentence for people, a traceback for bugs."""
import os
import pickle
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
import video_diffusion
from video_diffusion.config import config_files
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.errors import naming

# main, in which a mode raises.
RAISING = '''
import errno, runpy
from video_diffusion import inspect
from video_diffusion.errors import UserError
def inspect_(config, workdir):
  {statement}
inspect.inspect = inspect_
runpy.run_module('video_diffusion.main', run_name='__main__', alter_sys=True)
'''


def start(folder, *arguments):
  done = subprocess.run(
      [sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  return done.returncode, done.stderr


@pytest.mark.parametrize('statement, last, bug', [
    ('list(zip([1], [1, 2], strict=True))',
     'ValueError: zip() argument 2 is longer than argument 1', True),
    ("raise UserError('a.b is 1.')", 'video_diffusion: a.b is 1.', False),
    ("open('/nowhere/x')", 'FileNotFoundError: [Errno 2] No such', True),
    ("raise OSError(errno.ENOSPC, 'No space left')",
     'video_diffusion: a file of runs/moving_shapes cannot be read', False),
    ("raise PermissionError(errno.EACCES, 'Denied', 'some/file')",
     'video_diffusion: some/file cannot be read or written (Denied)', False),
    # The error is about a signal or a port, not about a file.
    ("raise PermissionError(errno.EPERM, 'Not permitted')",
     'PermissionError: [Errno 1] Not permitted', True),
])
def test_a_sentence_or_a_traceback(tmp_path, statement, last, bug):
  code, errors = start(
      tmp_path, '-c', RAISING.format(statement=statement), '--mode=inspect'
  )
  assert code == 1
  assert errors.strip().splitlines()[-1].startswith(last), errors
  assert ('Traceback' in errors) == bug
  assert (statement in errors or 'inspect_' in errors) == bug


CONFIG = '''
from video_diffusion.config import defaults as defaults_lib

def get_config():
  config = defaults_lib.get_config()
  {statement}
  return config
'''


@pytest.mark.parametrize('statement, last', [
    ('config.optim.lrr.x = 1', 'AttributeError: '),
    ("raise ValueError('mine')", 'ValueError: mine'),
    ("config['optimm']", 'KeyError: '),
    ("open('nowhere')", 'FileNotFoundError: '),
    ('config.seed = = 1', 'SyntaxError: '),
])
def test_an_error_in_a_config_file_names_file_and_line(
    tmp_path, statement, last
):
  (tmp_path / 'mine.py').write_text(CONFIG.format(statement=statement))
  code, errors = start(
      tmp_path, '-m', 'video_diffusion.main', '--config=mine.py'
  )
  assert code == 1
  assert 'mine.py", line 6' in errors and statement in errors
  assert last in errors and 'video_diffusion: ' not in errors


def test_get_config_takes_a_name_and_a_variant(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = video_diffusion.get_config('moving_shapes:text')
  assert config.text.encoder == 'table'
  assert video_diffusion.get_config().text.encoder == ''
  with pytest.raises(UserError, match="names 'shapes', and there is no such"):
    video_diffusion.get_config('shapes')


def test_configs_are_found_and_named(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  packaged = config_files.packaged() / 'kinetics.py'
  for name in (
      'kinetics', 'configs/kinetics.py', 'kinetics.py', './kinetics.py'
  ):
    assert config_files.find(name) == packaged
  assert config_files.get_config('configs/kinetics.py:smoke').data.frames == 4
  # One of the working directory comes first.
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'kinetics.py').write_text(
      CONFIG.format(statement='config.seed = 7')
  )
  assert config_files.get_config('configs/kinetics.py').seed == 7
  assert config_files.get_config('kinetics').seed == 7
  monkeypatch.setenv('HOME', str(tmp_path))
  assert config_files.get_config('~/configs/kinetics.py').seed == 7


@pytest.mark.parametrize('name, sentence', [
    ('configs/kinetic.py', 'of the package are bair, distill, kinetics'),
    ('elsewhere/kinetics.py', 'there is no such file'),
    ('configs/kinetics.py:big', "no variant 'big'; it has paper, smoke"),
    ('plain.py:big', "cannot be called with the variant 'big'"),
    ('dictionary.py', 'dictionary.py returns dict; it must return'),
    ('empty.py', 'empty.py has no function get_config'),
    ('text.txt', "'text.txt'; it must be a Python file"),
])
def test_unusable_configs_are_one_sentence(
    tmp_path, monkeypatch, name, sentence
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'plain.py').write_text(CONFIG.format(statement='pass'))
  (tmp_path / 'dictionary.py').write_text('def get_config():\n  return {}\n')
  (tmp_path / 'empty.py').touch()
  (tmp_path / 'text.txt').touch()
  with pytest.raises(UserError) as error:
    config_files.get_config(name)
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_a_name_is_replaced_until_it_is_final():
  def fail():
    raise ArgumentError(Argument('count'), ' is 0, below ', Argument('least'))

  with pytest.raises(ArgumentError, match='^count is 0, below least$'):
    fail()
  with pytest.raises(ArgumentError, match='^eval.num_clips is 0, below sample'):
    with naming(lambda name: f'sample.{name}'):
      with naming({'count': 'eval.num_clips', 'least': Argument('few')}.get):
        fail()
  with pytest.raises(ArgumentError) as raised:
    with naming(lambda name: f'data.{name}'):
      # As from a worker of another process.
      raise pickle.loads(pickle.dumps(ArgumentError(Argument('dir'), ' is x.')))
  assert str(raised.value) == 'data.dir is x.'
