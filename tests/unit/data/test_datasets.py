import numpy as np
import pytest

from video_diffusion.data import datasets
from video_diffusion.data import records
from video_diffusion.data import shapes
from video_diffusion.data import wanted
from video_diffusion.errors import UserError

SIZE = dict(split='train', frames=4, height=8, width=8, seed=0)


def test_moving_shapes():
  source = datasets.make_source(
      'moving_shapes',
      train_clips=7,
      test_clips=3,
      bounce=True,
      radius=0.2,
      speed=0.05,
      heldout_pairs=(),
      **SIZE,
  )
  assert isinstance(source, shapes.MovingShapes)
  assert (source.num_examples, source.bounce) == (7, True)


def test_an_unknown_name_lists_the_known_ones():
  known = "'imagenet'.*kinetics600.*moving_shapes"
  with pytest.raises(ValueError, match=known):
    datasets.make_source('imagenet', **SIZE)


def test_where_records_live(monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  monkeypatch.setenv('HOME', '/home/someone')
  assert wanted.data_dir('') == '/home/someone/tensorflow_datasets'
  assert wanted.data_dir('~/x') == '/home/someone/x'
  monkeypatch.setenv('TFDS_DATA_DIR', '/data')
  assert wanted.data_dir('') == '/data'
  assert wanted.data_dir('/mine') == '/mine'


FOLDER = dict(
    clip_frames=8, fps=0, short_clips='drop', classes=False, keep_cache=True
)


@pytest.fixture(name='options')
def folder_of_gifs(tmp_path):
  image = pytest.importorskip('PIL.Image')
  for module in ('av', 'tensorflow_datasets'):
    pytest.importorskip(module)
  (tmp_path / 'videos').mkdir()
  for i in range(2):
    frames = [
        image.fromarray(np.full((12, 16), 40 * i + j, np.uint8))
        for j in range(6)
    ]
    frames[0].save(
        tmp_path / 'videos' / f'{i}.gif', save_all=True,
        append_images=frames[1:],
    )
    frames[0].save(tmp_path / 'videos' / f'{i}.png')
  return {
      **SIZE, 'path': str(tmp_path / 'videos'), 'dir': str(tmp_path / 'data')
  }


def test_a_folder_of_videos_and_its_records(options, tmp_path):
  source = datasets.make_source('video_folder', **FOLDER, **options)
  assert source.num_examples == source.num_videos == 1
  directory, = tmp_path.glob('data/video_folder/*/*')
  # The records serve as data.path, without the videos.
  options |= dict(path=str(directory), dir='/nowhere')
  again = datasets.make_source('video_folder', **FOLDER, **options)
  assert isinstance(again, records.VideoRecords)
  assert again.fingerprint == source.fingerprint
  kinetics = {k: v for k, v in FOLDER.items() if k != 'classes'}
  datasets.make_source('kinetics600', **kinetics, **options)
  for changed, sentence in (
      (dict(height=16), 'holds records of 8 x 8 pixels; set height=8'),
      (dict(frames=7), 'holds no video of 7 frames, which a window spans'),
      (dict(frameskips=(3, 2)), 'holds no video of 7 frames, which a window'),
  ):
    with pytest.raises(ValueError, match=sentence):
      datasets.make_source('video_folder', **FOLDER, **(options | changed))


def test_a_path_that_the_system_refuses_is_one_sentence(options, tmp_path):
  options['path'] = str(tmp_path / ('x' * 300))
  with pytest.raises(
      UserError, match=r'path, .* cannot be read \(File name too long\)'
  ):
    datasets.make_source('video_folder', **FOLDER, **options)


def test_the_least_frameskip_decides_what_is_too_short(options):
  options['frames'] = 3
  datasets.make_source('video_folder', frameskips=(9, 2), **FOLDER, **options)
  with pytest.raises(ValueError, match='6 frames, fewer than the 7 wanted'):
    datasets.make_source('video_folder', frameskips=(3, 4), **FOLDER, **options)
  options['epoch'] = 'clips'
  with pytest.raises(ValueError, match='clip_frames is 8; .* at least 9, for'):
    datasets.make_source('video_folder', frameskips=(4,), **FOLDER, **options)


def test_a_folder_of_images(options):
  fields = dict(classes=False, keep_cache=True)
  with pytest.raises(ValueError, match='holds images, and frames is 4'):
    datasets.make_source('image_folder', **fields, **options)
  options['frames'] = 1
  source = datasets.make_source('image_folder', **fields, **options)
  example = source.example(0, np.random.default_rng(0), 1)
  assert (example['video'] == 40).all()


def test_options_of_another_data_set_are_named():
  with pytest.raises(ValueError, match='no option bounce, radius; use the fi'):
    datasets.make_source('video_folder', radius=1, bounce=True, **SIZE)


@pytest.mark.parametrize(
    'name', ['video_folder', 'image_folder', 'kinetics600']
)
def test_an_empty_path_says_what_to_give(name):
  with pytest.raises(ValueError, match='^path is empty; set it to (a|the) fol'):
    datasets.make_source(name, **(SIZE | {'frames': 1}))
