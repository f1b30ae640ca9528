"""Folders of models: saved, loaded elsewhere, from a hub, and in the package."""
import json
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest

import video_diffusion
from video_diffusion.config import demo
from video_diffusion.errors import UserError


@pytest.fixture(scope='module')
def trained(tmp_path_factory, run_main_here):
  folder = tmp_path_factory.mktemp('trained') / 'run'
  code, output = run_main_here(
      f'--workdir={folder}', '--config.train.steps=2'
  )
  assert code == 0, output
  return folder


@pytest.fixture(scope='module')
def saved(trained):
  model = video_diffusion.load(trained)
  model.save(trained.parent / 'saved', dtype='float32')
  return trained.parent / 'saved'


def sample(model):
  return model.sample(num_videos=2, num_steps=2, labels=[(0, 1, 2, -1, -1, -1)])


def test_a_saved_model_samples_what_its_run_samples(trained, saved):
  assert sorted(path.name for path in saved.iterdir()) == [
      'README.md', 'config.json', 'weights',
  ]
  np.testing.assert_array_equal(
      sample(video_diffusion.load(saved)), sample(video_diffusion.load(trained))
  )
  again = saved.parent / 'again'
  video_diffusion.load(saved).save(again, dtype='float32', card='# Mine\n')
  assert (again / 'config.json').read_text() == (
      saved / 'config.json'
  ).read_text()
  assert (again / 'README.md').read_text() == '# Mine\n'
  params = [video_diffusion.load(folder).params for folder in (saved, again)]
  jax.tree.map(np.testing.assert_array_equal, *params)


def test_the_card_has_the_recipe_and_the_scores(trained, run_main_here):
  code, output = run_main_here(
      f'--workdir={trained}', '--mode=evaluate', tiny=False
  )
  assert code == 0, output
  video_diffusion.load(trained).save(trained.parent / 'card')
  card = (trained.parent / 'card' / 'README.md').read_text()
  assert 'moving_shapes' in card and '| updates | 2 |' in card
  loss = json.loads((trained / 'evaluation.json').read_text())['losses']['loss']
  assert str(loss) in card


def test_nothing_else_is_overwritten(trained, saved, tmp_path):
  (tmp_path / 'thesis.tex').write_text('years')
  model = video_diffusion.load(trained)
  with pytest.raises(UserError, match='holds something else than a model'):
    model.save(tmp_path)
  with pytest.raises(UserError, match="dtype is 'int8'"):
    model.save(tmp_path / 'new', dtype='int8')
  model.save(saved, dtype='float32')  # its own kind is replaced


def with_format(saved, tmp_path, version):
  folder = tmp_path / 'model'
  shutil.copytree(saved, folder)
  config = json.loads((folder / 'config.json').read_text())
  if version is None:
    del config['format']
  else:
    config['format'] = version
  (folder / 'config.json').write_text(json.dumps(config))
  return folder


def test_an_older_format_is_read_and_a_newer_one_refused(saved, tmp_path):
  old = with_format(saved, tmp_path / 'old', None)
  np.testing.assert_array_equal(
      sample(video_diffusion.load(old)), sample(video_diffusion.load(saved))
  )
  new = with_format(saved, tmp_path / 'new', 2)
  with pytest.raises(UserError, match='is of format 2, and this version .* 1;'):
    video_diffusion.load(new)
  odd = with_format(saved, tmp_path / 'odd', 'one')
  with pytest.raises(UserError, match='is of format'):
    video_diffusion.load(odd)


def test_a_model_of_the_hub(saved, monkeypatch):
  asked = []

  def snapshot_download(name, *, revision, allow_patterns):
    asked.append((name, revision))
    assert 'config.json' in allow_patterns
    if name == 'some/other':
      raise OSError('404 Client Error.\nmore')
    return str(saved)

  hub = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
  assert video_diffusion.load('hf://some/model').step == 2
  assert video_diffusion.load('hf://some/model@v1').step == 2
  assert asked == [('some/model', None), ('some/model', 'v1')]
  with pytest.raises(UserError, match=r'fetched \(404 Client Error.\)'):
    video_diffusion.load('hf://some/other')
  with pytest.raises(UserError, match='is hf://OWNER/NAME'):
    video_diffusion.load('hf://model')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r"pip install 'video_diffusion\[hub\]'"):
    video_diffusion.load('hf://some/model')


def test_the_model_of_the_package_is_small_and_whole():
  files = [path for path in demo.PACKAGED.rglob('*') if path.is_file()]
  assert sum(path.stat().st_size for path in files) < 4 * 2**20
  model = video_diffusion.load()
  assert model.size == (32, 32) and model.frames == 16 and model.step > 0
  config = json.loads((demo.PACKAGED / 'config.json').read_text())
  assert config['format'] == 1 and not config['sample']['prompts']


def test_without_a_run_sample_draws_from_the_model_of_the_package(
    run_main_here, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  code, output = run_main_here(
      '--mode=sample', '--prompt=a red circle moves right',
      '--config.sample.num_steps=2', tiny=False,
  )
  assert code == 0, output
  assert 'is copied to runs/demo' in output
  [folder] = pathlib.Path('runs/demo/samples').iterdir()
  with np.load(folder / 'samples.npz') as arrays:
    assert arrays['video'].shape == (1, 16, 32, 32, 3)
  # A run of the default config comes first.
  pathlib.Path('runs/moving_shapes').mkdir()
  shutil.copy('runs/demo/config.json', 'runs/moving_shapes')
  code, output = run_main_here('--mode=sample', tiny=False)
  assert code == 1 and 'runs/moving_shapes holds no checkpoint yet' in output
