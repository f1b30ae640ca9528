"""TFDS's own sets, from its mocks and from tiny sets in either file format."""
import contextlib
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from video_diffusion.data import datasets
from video_diffusion.data import packing
from video_diffusion.data import records
from video_diffusion.data import video
from video_diffusion.data.builders import tfds_originals
from video_diffusion.data.builders import tfds_sets

for module in ['tensorflow', 'array_record']:
  pytest.importorskip(module)
tfds = pytest.importorskip('tensorflow_datasets')
image = pytest.importorskip('PIL.Image')

LENGTHS = {'train': (7, 2, 12), 'test': (5,)}
CUT = dict(clip_frames=6, min_frames=4)


def level(split, i):
  """A video of TinyVideos, uint8 [n, 6, 8, 1], unlike the others."""
  rng = np.random.default_rng((len(split), i))
  return rng.integers(0, 256, (LENGTHS[split][i], 6, 8, 1), np.uint8)


class TinyVideos(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.2.3')

  def _info(self):
    return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict({
            'clip': tfds.features.Video(shape=(None, 6, 8, 1)),
            'kind': tfds.features.ClassLabel(names=['walk', 'run']),
            'weight': np.float32,
        }),
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in LENGTHS}

  def _generate_examples(self, split):
    for i in range(len(LENGTHS[split])):
      yield i, {'clip': level(split, i), 'kind': i % 2, 'weight': 1.0}


class TinyImages(tfds.core.GeneratorBasedBuilder):
  """Image 1 is no PNG."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
            {'image': tfds.features.Image(shape=(None, None, 3))}
        ),
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples() for split in LENGTHS}

  def _generate_examples(self):
    folder = os.environ['TINY_IMAGES']
    for i in range(3):
      yield i, {'image': os.path.join(folder, f'{i}.png')}


class Offline(TinyVideos):

  def _split_generators(self, dl_manager):
    raise ConnectionError('no route\nto the host')


@pytest.fixture(autouse=True)
def tiny_mapping(monkeypatch):
  """Makes TinyVideos one of the sets."""
  mapping = tfds_sets.Mapping(
      'tiny_videos:1.2.3', 'clip', 'kind', 'train+test', 'test', 12
  )
  monkeypatch.setitem(tfds_sets.SETS, 'tiny', mapping)


def prepare(data_dir, name='tiny', **changed):
  settings = dict(height=6, width=8, short_clips='drop', **CUT) | changed
  return tfds_sets.prepare(name, data_dir=data_dir, **settings)


def all_records(directory, split):
  source = records.VideoRecords(directory, split)
  return [source._records.read(i) for i in range(len(source._records))]


@pytest.mark.parametrize(
    'name, fields, frames, labels, tfds_name',
    [
        (
            'ucf101', dict(tfds_config='ucf101_1_256', **CUT), None, 101,
            'ucf101/ucf101_1_256/2.0.0',
        ),
        (
            'bair_robot_pushing_small',
            dict(camera='image_aux1', clip_frames=30, min_frames=16), 30, 0,
            'bair_robot_pushing_small/2.0.0',
        ),
        (
            'moving_mnist', dict(clip_frames=20, min_frames=20), 20, 0,
            'moving_mnist/1.0.0',
        ),
        ('mnist', {}, 1, 10, 'mnist/3.0.1'),
        (
            'tfds_images',
            dict(tfds_name='cifar10', image_field='image', label_field='label'),
            1, 10, 'cifar10/3.0.2',
        ),
    ],
)
def test_sets_that_tfds_mocks(
    tmp_path, monkeypatch, name, fields, frames, labels, tfds_name
):
  pack = packing.pack
  with contextlib.ExitStack() as mock:
    # Our own packing goes through TFDS, too, and must not be mocked.
    def unmocked(*args, **options):
      mock.close()
      return pack(*args, **options)

    monkeypatch.setattr(packing, 'pack', unmocked)
    mock.enter_context(tfds.testing.mock_data(num_examples=2))
    directory = tfds_sets.prepare(
        name, data_dir=tmp_path, height=4, width=4, **fields
    )
  report = json.loads((directory / 'report.json').read_text())
  assert report['tfds'] == tfds_name
  assert report['videos'] == {'train': 2, 'test': 2}
  assert sum(report['sizes'].values()) == 4 and not report['skipped']
  assert len(report['class_names']) == labels
  for split, first_id in [('train', 0), ('test', 2)]:
    clips = all_records(directory, split)
    assert {clip['video_id'] for clip in clips} == {first_id, first_id + 1}
    for clip in clips:
      length, *shape = clip['video'].shape
      assert shape == [4, 4, 3] and clip['video'].dtype == np.uint8
      assert length == frames or 1 <= length <= CUT['clip_frames']
      assert clip['video'].std() > 1  # mocks are noise, and not yet a mean
      low, high = (0, labels - 1) if labels else (-1, -1)
      assert low <= clip['label'] <= high and clip['caption'] == b''
      if 'mnist' in name:
        assert (clip['video'] == clip['video'][..., :1]).all()


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_an_existing_copy_of_either_format(tmp_path, file_format):
  original = TinyVideos(data_dir=os.fspath(tmp_path))
  original.download_and_prepare(file_format=file_format)
  directory = prepare(tmp_path)
  train = all_records(directory, 'train')
  # Video 1 is too short. What is left of video 0 is less than a window, but
  # windows reach into it.
  expected = [
      ('train', 0, 0, 6), ('train', 0, 6, 7), ('train', 2, 0, 6),
      ('train', 2, 6, 12), ('test', 0, 0, 5),
  ]
  assert len(train) == len(expected)
  for clip, (split, i, start, stop) in zip(train, expected, strict=True):
    np.testing.assert_array_equal(
        clip['video'], np.repeat(level(split, i)[start:stop], 3, -1)
    )
    assert clip['label'] == i % 2
  assert [clip['video_id'] for clip in train] == [0, 0, 2, 2, 3]
  assert train[2]['file'] == b'tiny train+test[2]'
  source = records.VideoRecords(
      directory, 'train', epoch='windows', min_frames=4
  )
  assert source.num_videos == 3 and source.num_examples == 1 + 3 + 1
  test, = all_records(directory, 'test')
  np.testing.assert_array_equal(test['video'], train[4]['video'])
  assert test['video_id'] == 4 and test['label'] == 0
  report = json.loads((directory / 'report.json').read_text())
  digests = report.pop('content'), report.pop('content_of_clips')
  assert len({*digests}) == 2  # without the frame that is left of video 0
  assert all(digest.startswith('sha256:') for digest in digests)
  assert report == {
      'tfds': 'tiny_videos/1.2.3',
      'videos': {'train': 4, 'test': 1},
      'skipped': [
          {'file': 'tiny train+test[1]', 'reason': 'shorter than 4 frames'}
      ],
      'sizes': {'6 x 8': 5},
      'seconds': None,
      'clips': {'train': 5, 'test': 1},
      'frames': {'train': 24, 'test': 5},
      'class_names': ['walk', 'run'],
      'captions': 0,
      'shortest': 5,
  }


def test_prepares_what_is_not_there_and_resizes(tmp_path):
  directory = prepare(
      tmp_path, height=3, width=3, train_split='train[1:]', clip_frames=20
  )
  original = tfds.builder('tiny_videos', data_dir=os.fspath(tmp_path))
  assert original.info.file_format.value == 'array_record'
  clip, = all_records(directory, 'train')
  expected = np.repeat(level('train', 2), 3, -1)
  np.testing.assert_array_equal(
      clip['video'], video.resize_and_crop(expected, height=3, width=3)
  )


def test_a_second_call_needs_neither_the_original_nor_tensorflow(
    tmp_path, monkeypatch
):
  first = prepare(tmp_path)
  monkeypatch.setattr(tfds_originals, 'open_original', None)  # not to be called
  assert prepare(tmp_path) == first
  with pytest.raises(TypeError):
    prepare(tmp_path, height=3)
  script = f'''
import sys
import numpy as np
from video_diffusion.data import records
from video_diffusion.data.builders import tfds_sets
tfds_sets.SETS['tiny'] = tfds_sets.Mapping{tuple(tfds_sets.SETS['tiny'])!r}
directory = tfds_sets.prepare('tiny', data_dir={os.fspath(tmp_path)!r},
    height=6, width=8, short_clips='drop', clip_frames=6, min_frames=4)
source = records.VideoRecords(directory, 'train')
print(source.example(0, np.random.default_rng(0), 4)['video'].shape)
print('tensorflow' in sys.modules)
'''
  output = subprocess.run(
      [sys.executable, '-c', script], capture_output=True, text=True
  )
  assert output.stdout == '(4, 6, 8, 3)\nFalse\n', output.stderr


def test_every_setting_is_part_of_the_name(tmp_path):
  made = {prepare(tmp_path)}
  for changed in [
      dict(height=3), dict(width=4), dict(clip_frames=5), dict(min_frames=2),
      dict(short_clips='loop'), dict(train_split='train'),
      dict(test_split='test[:1]'),
  ]:
    made.add(prepare(tmp_path, **changed))
  assert len(made) == 8


def test_short_videos(tmp_path):
  clips = all_records(prepare(tmp_path, short_clips='loop'), 'train')
  assert len(clips) == 6
  two = np.repeat(level('train', 1), 3, -1)
  np.testing.assert_array_equal(clips[2]['video'], np.concatenate([two, two]))
  with pytest.raises(ValueError, match=r'tiny train\+test\[1\]: it has 2 fram'):
    prepare(tmp_path, short_clips='refuse')
  with pytest.raises(ValueError, match="short_clips is 'pad'.*'loop'"):
    prepare(tmp_path, short_clips='pad')


def test_broken_images_are_skipped_and_reported(tmp_path, monkeypatch, caplog):
  monkeypatch.setenv('TINY_IMAGES', os.fspath(tmp_path))
  for i in (0, 2):
    pixels = np.full((4 + i, 4, 3), 10 * i, np.uint8)
    image.fromarray(pixels).save(tmp_path / f'{i}.png')
  (tmp_path / '1.png').write_bytes(b'no picture')
  directory = tfds_sets.prepare(
      'tfds_images',
      data_dir=tmp_path,
      height=2,
      width=2,
      tfds_name='tiny_images',
      image_field='image',
      label_field='',
  )
  clips = all_records(directory, 'train')
  assert [clip['video'].ravel().tolist() for clip in clips] == [
      [0] * 12, [20] * 12
  ]
  report = json.loads((directory / 'report.json').read_text())
  assert [each['file'] for each in report['skipped']] == [
      'tfds_images train[1]', 'tfds_images test[1]'
  ]
  assert 'cannot decode' in report['skipped'][0]['reason']
  assert report['sizes'] == {'4 x 4': 2, '6 x 4': 2}
  warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
  assert sum('skipped tfds_images' in r.getMessage() for r in warnings) == 2


@pytest.mark.parametrize(
    'changed, sentence',
    [
        (
            dict(tfds_name='offline'),
            "'offline' is not prepared in dir, .* could not prepare it "
            r'there \(no route\)',
        ),
        (dict(tfds_name='no_such_set'), "'no_such_set' is not prepared in"),
        (dict(tfds_name=''), "tfds_name is empty; .*'cifar10'"),
        (dict(image_field='picture'), "no feature 'picture'; it has clip"),
        (dict(image_field='clip'), 'is uint8 .*; it must be uint8 of 3 axes'),
        (dict(image_field='weight'), "feature 'weight' .* is float32"),
        (dict(train_split='valid'), "has no split 'valid'"),
    ],
)
def test_one_sentence(tmp_path, changed, sentence):
  settings = dict(
      tfds_name='tiny_videos', image_field='clip', label_field=''
  ) | changed
  with pytest.raises(ValueError, match=sentence) as error:
    tfds_sets.prepare(
        'tfds_images', data_dir=tmp_path, height=2, width=2, **settings
    )
  assert '\n' not in str(error.value)


def test_registry(tmp_path):
  size = dict(split='train', height=8, width=8, seed=0, dir=os.fspath(tmp_path))
  splits = dict(train_split='', test_split='')
  with pytest.raises(ValueError, match="'mnist', which holds images.*mixture"):
    datasets.make_source('mnist', frames=2, **splits, **size)
  with pytest.raises(ValueError, match='is 8; it must be at least 9'):
    datasets.make_source(
        'ucf101', frames=9, clip_frames=8, short_clips='drop', epoch='clips',
        **splits, **size,
    )
  with pytest.raises(ValueError, match="'ucf101', which has no option camera;"):
    datasets.make_source('ucf101', frames=2, camera='x', **size)
  assert set(tfds_sets.SETS) - {'tiny'} < set(datasets.NAMES)
