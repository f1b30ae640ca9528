"""Records read by id: windows, labels, captions, from several threads."""
import concurrent.futures
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import packing
from video_diffusion.data import pipeline
from video_diffusion.data import records
from video_diffusion.errors import UserError

for module in ['tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)

LENGTHS = (10, 4, 7, 5)  # clip i has the levels 20 i, 20 i + 1, ...


def make(directory, *, classes=False, captions=False):
  def clip(i, length):
    frames = np.broadcast_to(
        np.arange(20 * i, 20 * i + length)[:, None, None, None],
        (length, 8, 6, 3),
    ).astype(np.uint8)
    return packing.Clip(
        lambda: frames,
        video_id=i // 2,
        name=f'{i}.gif',
        label=i - 1 if classes else -1,
        caption='ein größerer Satz' if captions and i == 2 else '',
    )

  clips = [clip(i, length) for i, length in enumerate(LENGTHS)]
  return packing.pack(
      {'train': packing.Split(clips, 4), 'test': packing.Split(clips[:1], 1)},
      data_dir=directory,
      name='set',
      key=f'{classes}{captions}',
      height=8,
      width=6,
      class_names=('a', 'b', 'c') if classes else (),
      report={'seconds': 12.5, 'skipped': [{}, {}], 'missing': 3},
  )


@pytest.fixture(name='directory', scope='module')
def plain_records(tmp_path_factory):
  return make(tmp_path_factory.mktemp('records'))


def levels(video):
  """The levels of uint8 [n, h, w, 3], each frame being plain."""
  assert (video == video[:, :1, :1, :1]).all()
  return video[:, 0, 0, 0].tolist()


def test_what_a_source_says_of_itself(directory):
  source = records.VideoRecords(directory, 'train')
  assert source.num_examples == 4 and source.num_groups == 2
  assert [source.group(i) for i in range(4)] == [0, 0, 1, 1]
  assert [source.length(i) for i in range(4)] == [*LENGTHS]
  assert source.frame_size == (8, 6) and source.shortest == 4
  assert list(source.captions()) == []
  assert source.label_sizes == () and source.class_names == ()
  assert source.summary == {
      'clips': 4, 'frames': 26, 'seconds': 12.5, 'size': '8 x 6', 'skipped': 2,
      'missing': 3,
  }
  test = records.VideoRecords(directory, 'test')
  assert test.summary['frames'] == 10
  assert test.fingerprint == source.fingerprint
  assert test.fingerprint.startswith(mixture_lib.CONTENT)
  assert set(source.example(0, np.random.default_rng(0), 3)) == {'video'}


def test_labels_and_captions_of_sets_that_have_them(tmp_path):
  source = records.VideoRecords(
      make(tmp_path, classes=True, captions=True), 'train'
  )
  assert source.label_sizes == (3,) and source.class_names == ('a', 'b', 'c')
  rng = np.random.default_rng(0)
  examples = [source.example(i, rng, 2) for i in range(4)]
  assert [e['labels'].tolist() for e in examples] == [[-1], [0], [1], [2]]
  assert {e['labels'].dtype for e in examples} == {np.dtype(np.int32)}
  captions = [e['caption'] for e in examples]
  assert captions == ['', '', 'ein größerer Satz', '']
  assert list(source.captions()) == captions


def test_windows_are_uniform(directory):
  source = records.VideoRecords(directory, 'test')
  rng = np.random.default_rng(0)
  counts = np.zeros(8, int)
  for _ in range(800):
    window = source.example(0, rng, 3)['video']
    assert window.shape == (3, 8, 6, 3) and window.dtype == np.uint8
    start, *others = levels(window)
    assert others == [start + 1, start + 2]
    counts[start] += 1
  assert (abs(counts - 100) < 40).all()  # four standard deviations
  whole = source.example(0, rng, 10)['video']
  assert levels(whole) == list(range(10)) and whole.flags.writeable
  apart = source.example(0, rng, 4, (3,))['video']
  assert levels(apart) == [0, 3, 6, 9]


def test_windows_longer_than_the_clip_are_refused(directory):
  source = records.VideoRecords(directory, 'train')
  with pytest.raises(ValueError, match='1.gif: .* 4 frames, fewer than the 5'):
    source.example(1, np.random.default_rng(0), 5)


def test_opening_what_is_not_there(directory, tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path} holds no records'):
    records.VideoRecords(tmp_path, 'train')
  with pytest.raises(ValueError, match="no split 'valid'; it has train, test"):
    records.VideoRecords(directory, 'valid')


def test_threads_read_the_same(directory):
  def read(source, i):
    rng = np.random.default_rng(i)
    return levels(source.example(i % 4, rng, 3)['video'])

  alone = records.VideoRecords(directory, 'train')
  expected = [read(alone, i) for i in range(400)]
  # Opened afresh, so that the first reads, too, come at the same time.
  shared = records.VideoRecords(directory, 'train')
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert list(pool.map(lambda i: read(shared, i), range(400))) == expected


def test_batches_take_videos_and_images_from_records(tmp_path):
  source = records.VideoRecords(make(tmp_path, classes=True), 'train')
  batch, = pipeline.batches(
      source, batch_size=4, num_frames=3, num_images=2, stop=1,
      loader='threads',
  )
  assert batch['video'].shape == (4, 5, 8, 6, 3)
  clips = batch['video'][:, :, 0, 0, 0] // 20
  assert (clips[:, :3] == clips[:, :1]).all()
  # Images are of another video: clips 0, 1 are of one, 2, 3 of the other.
  assert (clips[:, 3:] // 2 != clips[:, :1] // 2).all()
  np.testing.assert_array_equal(batch['labels'][..., 0], clips[:, 2:] - 1.0)


def test_records_from_before_content_was_known_have_the_old_form(tmp_path):
  directory = make(tmp_path)
  new = records.VideoRecords(directory, 'train').fingerprint
  report = json.loads((directory / 'report.json').read_text())
  del report['content']
  (directory / 'report.json').write_text(json.dumps(report))
  old = records.VideoRecords(directory, 'train').fingerprint
  assert re.fullmatch('[0-9a-f]{16}', old)
  assert mixture_lib.may_be_same(old, new)
  assert not mixture_lib.may_be_same(new, old)


def damage_json(name, change):
  def damage(directory):
    content = json.loads((directory / name).read_text())
    change(content)
    (directory / name).write_text(json.dumps(content))

  return damage


def cut(name, size):
  def damage(directory):
    file, = directory.glob(name)
    os.truncate(file, size)

  return damage


def flip(directory):
  file, = directory.glob('*train*record*')
  content = bytearray(file.read_bytes())
  content[100] ^= 0xFF
  file.write_bytes(content)


def foreign_module(content):
  text = content['featuresDict']['features']['caption']
  text['pythonClassName'] = 'module_of_another.Text'


def elsewhere(content):
  content['splits'][0]['filepathTemplate'] = '/etc/{SPLIT}'


DAMAGES = {
    'a record file is cut': cut('*train*record*', 1000),
    'a record file is empty': cut('*train*record*', 0),
    'a record file is damaged': flip,
    'the ids are cut': cut('video_ids.npz', 100),
    'the ids are objects': lambda d: np.savez(
        d / 'video_ids.npz', train=np.array([{}], object)),
    'the ids are of others': lambda d: np.savez(
        d / 'video_ids.npz', train=np.arange(3)),
    'the report is cut': cut('report.json', 30),
    'the report is gone': lambda d: (d / 'report.json').unlink(),
    'the report lacks what is read':
        damage_json('report.json', lambda x: x.pop('shortest')),
    'the report counts clips in words': damage_json(
        'report.json', lambda x: x['clips'].update(train='two')),
    'the report has no clips':
        damage_json('report.json', lambda x: x.pop('clips')),
    'the report has classes that are numbers':
        damage_json('report.json', lambda x: x.update(class_names=[1, 2])),
    'the report has sides without an example': damage_json(
        'report.json', lambda x: x.update(captions_naming_sides=[1])),
    'the report has a number for the skipped files':
        damage_json('report.json', lambda x: x.update(skipped=3)),
    'the report is a list':
        lambda d: (d / 'report.json').write_text('[]'),
    'features are cut': cut('features.json', 30),
    'features are gone': lambda d: (d / 'features.json').unlink(),
    'features are others':
        damage_json('features.json', lambda x: x.pop('featuresDict')),
    'the info is cut': cut('dataset_info.json', 30),
    'the info is another':
        damage_json('dataset_info.json', lambda x: x.update(splits=3)),
    'features name a module': damage_json('features.json', foreign_module),
    'the info names a file': damage_json('dataset_info.json', elsewhere),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_records_are_one_sentence(
    directory, tmp_path, monkeypatch, name
):
  (tmp_path / 'module_of_another.py').write_text('print(1 / 0)')
  monkeypatch.syspath_prepend(tmp_path)
  copied = tmp_path / 'copied'
  shutil.copytree(directory, copied)
  DAMAGES[name](copied)
  with pytest.raises(UserError) as error:
    source = records.VideoRecords(copied, 'train')
    source.example(0, np.random.default_rng(0), 1)
  assert str(error.value).startswith(f'{copied} holds damaged records (')
  assert '\n' not in str(error.value)
  assert 'module_of_another' not in sys.modules
