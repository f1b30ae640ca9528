"""The package installed in a folder that holds no clone.

The source distribution becomes a wheel, so neither may lack a file.
"""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.unit.data.builders.test_kinetics600 import write_miniature

SMALL = (
    '--config.train.steps=1',
    '--config.sample.num_videos=8',
    '--config.sample.num_steps=2',
    '--config.eval.num_clips=8',
)


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """A folder of site packages with this package in it, and no clone near it."""
  source = tmp_path_factory.mktemp('source')
  for name in (
      'pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE'
  ):
    shutil.copy(ROOT / name, source)
  for name in ('video_diffusion', 'configs'):
    shutil.copytree(
        ROOT / name, source / name,
        ignore=shutil.ignore_patterns('__pycache__'),
    )
  subprocess.run(
      [sys.executable, 'setup.py', '--quiet', 'sdist'], cwd=source, check=True
  )
  (archive,) = (source / 'dist').iterdir()
  target = tmp_path_factory.mktemp('site_packages')
  # Its dependencies are installed, and setuptools among them: no network.
  subprocess.run(
      [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
       '--no-build-isolation', '--no-index', '--target', target, archive],
      check=True,
  )
  shutil.rmtree(source)
  return target


@pytest.fixture
def main(installed, tmp_path):
  """(*flags, folder='empty') -> the output of main there, which succeeds."""

  def run(*flags, folder='empty'):
    (tmp_path / folder).mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, '-m', 'video_diffusion.main', *flags],
        cwd=tmp_path / folder,
        env={**os.environ, 'PYTHONPATH': str(installed)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout

  return run


def samples(run):
  (folder,) = (run / 'samples').glob('step_*_seed_*')
  with np.load(folder / 'samples.npz') as arrays:
    return arrays['video']


def test_what_is_installed(installed):
  configs = {path.name for path in (ROOT / 'configs').glob('*.py')}
  package = installed / 'video_diffusion'
  assert {path.name for path in (package / 'configs').glob('*.py')} == configs
  ours = {
      path.relative_to(ROOT) for path in (ROOT / 'video_diffusion').rglob('*')
      if path.is_file() and path.suffix not in ('.pyc', '.so')
  }
  theirs = {path.relative_to(installed) for path in package.rglob('*')}
  assert ours <= theirs
  (information,) = installed.glob('video_diffusion-*.dist-info')
  assert list(information.rglob('LICENSE'))


def test_the_default_run_and_a_copy_of_it(main, tmp_path, tiny_flags):
  main(*tiny_flags, *SMALL)
  run = tmp_path / 'empty' / 'runs' / 'moving_shapes'
  assert (run / 'samples' / 'step_1.gif').exists()
  copy = tmp_path / 'elsewhere' / 'copy'
  shutil.copytree(run, copy)
  shutil.rmtree(tmp_path / 'empty')
  # Without --config, in a folder that does not hold it either.
  main('--mode=sample', '--workdir=copy', '--config.sample.num_videos=16',
       folder='elsewhere')
  assert samples(copy).shape == (16, 2, 8, 8, 3)
  main('--mode=evaluate', '--workdir', 'copy', folder='elsewhere')
  assert (copy / 'evaluation.json').exists()


def test_kinetics_and_a_copy_of_its_run(main, tmp_path, tiny_video_flags):
  videos = write_miniature(tmp_path / 'videos')
  where = [
      f'--config.data.path={videos}', f'--config.data.dir={tmp_path / "a"}'
  ]
  main('--config=configs/kinetics.py:smoke', *tiny_video_flags, *SMALL, *where)
  copy = tmp_path / 'copy'
  shutil.copytree(tmp_path / 'empty' / 'runs' / 'kinetics-smoke', copy)
  shutil.rmtree(tmp_path / 'empty')
  # The fields of its data set are flags, though the default config has none.
  moved = videos.rename(tmp_path / 'moved')
  where = [f'--config.data.path={moved}', f'--config.data.dir={tmp_path / "b"}']
  main('--mode=evaluate', f'--workdir={copy}', *where)
  assert (copy / 'evaluation.json').exists()
  assert not any((tmp_path / 'empty').iterdir())
