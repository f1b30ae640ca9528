import numpy as np
import pytest

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import read_samples


def test_real_clips_are_read_as_their_captions_say(tmp_path):
  """By parts, from the files of two processes and of two calls."""
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=40, num_frames=20, height=64, width=64
  )
  rng = np.random.default_rng(0)
  clips = [source.example(i, rng, 20) for i in range(40)]
  videos = np.stack([clip['video'] for clip in clips])
  captions = np.array([f'{clip["caption"].capitalize()}.' for clip in clips])
  videos[0, 5] = 0
  config = defaults_lib.get_config()
  config.data.update(name='moving_shapes', radius=source.radius)
  (tmp_path / 'config.json').write_text(config.to_json())
  folders = [tmp_path / 'samples' / name for name in ('a', 'b')]
  for folder, name, part in (
      (folders[0], 'samples_0', slice(10)),
      (folders[0], 'samples_1', slice(10, 20)),
      (folders[1], 'samples', slice(20, 40)),
  ):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / f'{name}.npz', video=videos[part], captions=captions[part]
    )
  content = read_samples.read(folders)
  assert content['folders'] == [*map(str, folders)]
  assert content['frames'] == 20 and content['size'] == [64, 64]
  rows = {row['part']: row for row in content['rows']}
  two = sum(', ' in caption for caption in captions)
  assert {name: row['clips'] for name, row in rows.items()} == {
      'all frames': 40, '- one object': 40 - two, '- two objects': two,
      'first 16': 40, 'last 16': 40,
  }
  assert 0 < two < 40
  # The empty frame may hide which way a clip goes.
  assert all(row['all'] > 0.97 and row['path'] < 1 for row in rows.values())
  assert rows['all frames']['empty'] == rows['first 16']['empty'] == 1
  assert rows['last 16']['empty'] == 1  # of 20 frames they share the middle
  np.savez(folders[1] / 'samples.npz', video=videos[:, :9], captions=captions)
  with pytest.raises(ValueError, match='several sizes'):
    read_samples.read(folders)
  config.data.name = 'video_folder'
  (tmp_path / 'config.json').write_text(config.to_json())
  with pytest.raises(ValueError, match="data.name 'video_folder'"):
    read_samples.read(folders[:1])


def test_folders_without_samples_or_captions_are_one_sentence(tmp_path):
  with pytest.raises(UserError, match='samples.npz does not exist; give a fo'):
    read_samples.read([tmp_path])
  video = np.zeros((1, 2, 8, 8, 3), np.uint8)
  np.savez(tmp_path / 'samples.npz', video=video)
  with pytest.raises(UserError, match='npz holds no captions: the run knows n'):
    read_samples.read([tmp_path])


def test_one_kind_of_clips_and_few_frames_have_one_row():
  videos = np.zeros((3, 16, 8, 8, 3), np.uint8)
  captions = ['a red circle moves right'] * 3
  (row,) = read_samples.score(videos, captions, radius=0.25)
  assert row == {
      'part': 'all frames', 'clips': 3, 'colour': 0.0, 'shape': 0.0,
      'motion': 0.0, 'all': 0.0, 'path': None, 'empty': 3,
  }
  with pytest.raises(UserError, match="'a dog' is no caption of moving_shape"):
    read_samples.score(videos, ['a dog'] * 3, radius=0.25)
