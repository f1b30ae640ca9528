"""--mode=prepare: both splits, and a table of what they hold."""
import types

import numpy as np
import pytest

from tests import test_configs
from video_diffusion import prepare

image = pytest.importorskip('PIL.Image')


@pytest.fixture(name='config')
def folder_config(tmp_path):
  config = test_configs.load('video_folder', 'laptop')
  config.data.path = str(tmp_path / 'videos')
  config.data.dir = str(tmp_path / 'records')
  (tmp_path / 'videos').mkdir()
  for i in range(3):
    frames = [
        image.fromarray(np.full((12, 16), 40 * i + j, np.uint8))
        for j in range(20)
    ]
    frames[0].save(
        tmp_path / 'videos' / f'{i}.gif', save_all=True,
        append_images=frames[1:], duration=5000,
    )
  (tmp_path / 'videos' / 'broken.mp4').touch()
  return config


def test_a_folder_is_prepared_and_told(config, tmp_path, capsys):
  pytest.importorskip('tensorflow_datasets')
  prepare.prepare(config, str(tmp_path / 'run'))
  rows = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert rows == [
      ['train', 'test'],
      ['clips', '2', '1'],
      ['frames', '40', '20'],
      ['seconds', '5m00s', '5m00s'],
      ['size', '16', 'x', '16', '16', 'x', '16'],
      ['skipped', '1', '1'],
      ['missing', '0', '0'],
  ]
  assert not (tmp_path / 'run').exists()
  assert len(list(tmp_path.glob('records/video_folder/*/*'))) == 1


def test_what_is_unknown_is_a_dash():
  source = types.SimpleNamespace(summary={'clips': 3, 'seconds': None})
  lines = prepare.summary_table({'train': source}).splitlines()
  assert lines[2].split() == ['seconds', '-']


def test_drawn_data_need_no_preparation(run_main, tmp_path):
  code, output = run_main('--mode=prepare', f'--workdir={tmp_path / "run"}')
  assert code == 0, output
  assert 'moving_shapes is drawn on the fly: there is nothing' in output
  assert not (tmp_path / 'run').exists()


def test_bad_data_are_one_sentence(run_main, tmp_path):
  code, output = run_main(
      '--mode=prepare', '--config=configs/video_folder.py:laptop',
      f'--config.data.path={tmp_path / "none"}', tiny=False,
  )
  assert code == 1 and 'Traceback' not in output
  assert output.strip().splitlines()[-1].endswith(
      f'data.path, {tmp_path}/none, is missing; give a folder of video files.'
  )
