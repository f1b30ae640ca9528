"""Paths that begin with ~, with a home folder and without one."""
import os
import pwd
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from video_diffusion.data import wanted
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

# main in a process whose user has no entry in the table of users, as in many
# containers.
HOMELESS = '''
import pwd, runpy
def nobody(key):
  raise KeyError(key)
pwd.getpwuid = pwd.getpwnam = nobody
runpy.run_module('video_diffusion.main', run_name='__main__', alter_sys=True)
'''


@pytest.fixture
def homeless(monkeypatch):
  def nobody(key):
    raise KeyError(key)

  monkeypatch.delenv('HOME')
  monkeypatch.setattr(pwd, 'getpwuid', nobody)


def test_the_home_folder_takes_the_place_of_a_tilde(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  assert files.expand('~', 'x') == '/home/ann'
  assert files.expand('~/a/~b', 'x') == '/home/ann/a/~b'
  root = pwd.getpwuid(0)
  assert files.expand(f'~{root.pw_name}/a', 'x') == f'{root.pw_dir}/a'
  for path in ('', 'a/~', './~a', '/a', 'gs://b/~'):
    assert files.expand(path, 'x', bucket=True) == path
  with pytest.raises(UserError, match="data.path is '~no/a', but there is no"):
    files.expand('~no/a', 'data.path')


@pytest.mark.parametrize('home', [None, ''])
def test_without_a_home_a_tilde_is_one_sentence(home, homeless, monkeypatch):
  if home is not None:
    monkeypatch.setenv('HOME', home)
  with pytest.raises(UserError) as error:
    files.expand('~/a', '--workdir')
  assert str(error.value) == (
      "--workdir is '~/a', but HOME is not set; set it, or write the whole "
      'path.'
  )


def test_defaults_and_variables_of_data_are_expanded(homeless, monkeypatch):
  with pytest.raises(UserError, match=r'^dir \(by default\) is'):
    wanted.data_dir('')
  with pytest.raises(UserError, match="^dir is '~/b'"):
    wanted.data_dir('~/b')
  monkeypatch.setenv('TFDS_DATA_DIR', '~/c')
  with pytest.raises(UserError, match="TFDS_DATA_DIR is '~/c'"):
    wanted.data_dir('')
  monkeypatch.setenv('HOME', '/home/ann')
  assert wanted.data_dir('') == '/home/ann/c'


def start(folder, *flags, **environment):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), **environment}
  environment.pop('HOME', None)
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  environment.pop('TFDS_DATA_DIR', None)
  done = subprocess.run(
      [sys.executable, '-c', HOMELESS, *flags],
      cwd=folder, env=environment, capture_output=True, text=True,
  )
  return done.returncode, done.stderr


@pytest.mark.parametrize('flags, named', [
    (['--workdir=~/run'], '--workdir'),
    (['--config=~/a.py'], '--config'),
    (['--compilation_cache=~/c'], '--compilation_cache'),
    (['--mode=sample', '--workdir=~/run'], '--workdir'),
    (['--config=configs/video_folder.py', '--config.data.path=~/v'],
     'data.path'),
    (['--config=configs/moving_mnist.py:original', '--config.data.dir=~/v'],
     'data.dir'),
    (['--config=configs/moving_mnist.py:original'], 'data.dir (by default)'),
    (["--config.data.mixture={'a': {'name': 'video_folder', 'path': '~/v', "
      "'dir': '', 'clip_frames': 16, 'fps': 0.0, 'short_clips': 'drop', "
      "'classes': False, 'keep_cache': True}}"], 'data.mixture.a.path'),
    (['--config=configs/moving_shapes.py:text', '--config.text.tokenizer=~/t'],
     'text.tokenizer'),
])
def test_every_flag_and_field_says_so(
    run_main_here, homeless, monkeypatch, tmp_path, flags, named
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  code, output = run_main_here(*flags, tiny=False)
  last = output.strip().splitlines()[-1]
  assert code == 1 and last.startswith(f'video_diffusion: {named} is'), output
  assert 'HOME is not set' in last and 'Traceback' not in output
  assert not (tmp_path / '~').exists()


def test_a_run_without_a_home(tmp_path, tiny_flags):
  # With the loader that imports TensorFlow, whose Keras writes a file at home.
  flags = ['--mode=inspect', *tiny_flags, '--config.data.loader=tf']
  code, errors = start(tmp_path, *flags)
  assert code == 0, errors
  assert errors.count('Compiled programs are not kept.') == 1
  assert sorted(path.name for path in tmp_path.iterdir()) == ['runs']
