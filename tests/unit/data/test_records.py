"""Records read by number: windows, labels, captions, from several threads."""
import collections
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from tests.support import bucket
from video_diffusion.data import limits
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import packing
from video_diffusion.data import pipeline
from video_diffusion.data import records
from video_diffusion.data import wanted as wanted_lib
from video_diffusion.data import windows
from video_diffusion.errors import UserError

for module in ['tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)

LENGTHS = (10, 4, 17, 5)  # video i has the levels 20 i, 20 i + 1, ...
CHUNK = 6


def clips_of(i, length, *, classes=False, captions=False):
  levels = np.arange(20 * i, 20 * i + length, dtype=np.uint8)
  for start in range(0, length, CHUNK):
    part = levels[start : start + CHUNK, None, None, None]
    yield packing.Clip(
        lambda part=part: np.broadcast_to(part, (len(part), 8, 6, 3)),
        video_id=i,
        name=f'{i}.gif',
        label=i - 1 if classes else -1,
        caption='ein größerer Satz' if captions and i == 2 else '',
        start=start,
    )


def make(directory, **kinds):
  clips = [
      clip for i, length in enumerate(LENGTHS)
      for clip in clips_of(i, length, **kinds)
  ]
  return packing.pack(
      {
          'train': packing.Split(clips, len(clips)),
          'test': packing.Split(clips[:2], 2),
      },
      data_dir=directory,
      name='set',
      key=f'{kinds}',
      height=8,
      width=6,
      min_frames=4,
      class_names=('a', 'b', 'c') if kinds.get('classes') else (),
      report={'seconds': 12.5, 'skipped': [{}, {}], 'missing': 3},
  )


@pytest.fixture(name='directory', scope='module')
def plain_records(tmp_path_factory):
  return make(tmp_path_factory.mktemp('records'))


def levels(video):
  """The levels of uint8 [n, h, w, 3], each frame being plain."""
  assert (video == video[:, :1, :1, :1]).all()
  return video[:, 0, 0, 0].tolist()


def test_records_in_a_bucket_are_read(directory, tmp_path, monkeypatch):
  """ArrayRecord's own client asks a server of this process."""
  shutil.copytree(directory, tmp_path / 'name' / 'records')
  (tmp_path / 'name' / 'videos').mkdir()
  wanted = wanted_lib.Wanted('train', 4, 8, 6, 0, (1,), limits.DEFAULT)
  local = records.VideoRecords(directory, 'train')
  with bucket.serve(tmp_path, monkeypatch) as asked:
    source = wanted_lib.stored_records('gs://name/records', wanted)
    assert source.fingerprint == local.fingerprint
    for i in range(len(LENGTHS)):
      one, other = (
          each.example(i, np.random.default_rng(i), 4)
          for each in (source, local)
      )
      np.testing.assert_array_equal(one['video'], other['video'])
    assert asked and all('array_record' in name for name in asked)
    with pytest.raises(UserError, match='^path, gs://name/videos, holds no pr'):
      wanted_lib.stored_records('gs://name/videos', wanted)
    (tmp_path / 'name' / 'records' / 'report.json').write_text('{')
    with pytest.raises(UserError, match='damaged records'):
      wanted_lib.stored_records('gs://name/records', wanted)


def test_what_a_source_says_of_itself(directory):
  source = records.VideoRecords(directory, 'train')
  assert source.num_examples == source.num_videos == 4
  assert [source.video(i) for i in range(4)] == [0, 1, 2, 3]
  assert source.stretches.frames.tolist() == [*LENGTHS]
  assert source.frame_size == (8, 6) and source.shortest == 4
  assert list(source.captions()) == []
  assert source.label_sizes == () and source.class_names == ()
  assert source.summary == {
      'epoch': 'videos', 'frames': 36, 'seconds': 12.5,
      'size': '8 x 6', 'skipped': 2, 'missing': 3,
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
  # The videos are stored in seven clips.
  assert [bool(caption) for caption in source.captions()] == [
      False, False, False, True, True, True, False
  ]


def test_an_epoch_runs_over_windows_videos_or_clips(directory):
  opened = {
      epoch: records.VideoRecords(
          directory, 'train', epoch=epoch, min_frames=4
      )
      for epoch in windows.EPOCHS
  }
  sizes = {epoch: source.num_examples for epoch, source in opened.items()}
  assert sizes == {
      'windows': 2 + 1 + 4 + 1, 'videos': 4,
      'clips': 2 + 1 + 3 + 1,  # of 6 + 4, 4, 6 + 6 + 5 and 5 frames
  }
  rng, seen = np.random.default_rng(0), collections.defaultdict(set)
  for epoch, source in opened.items():
    assert source.num_videos == 4 and source.summary['epoch'] == epoch
    for _ in range(200):
      for index in range(source.num_examples):
        example = source.example(index, rng, 3, (1, 2))
        first, *others = levels(example['video'])
        skip = others[0] - first
        assert others == [first + skip, first + 2 * skip] and skip in (1, 2)
        seen[epoch].add((first, skip))
  every = {
      (20 * i + start, skip)
      for i, length in enumerate(LENGTHS)
      for skip in (1, 2)
      for start in range(length - 2 * skip)
  }
  assert seen['windows'] == seen['videos'] == every
  assert seen['clips'] < every and (4, 1) not in seen['clips']


def test_an_epoch_without_an_example_is_refused(directory):
  for epoch, frames, words in (
      ('windows', 18, 'no video of 18 fr'), ('clips', 7, 'no clip of 7 frames'),
  ):
    with pytest.raises(UserError, match=words):
      records.VideoRecords(directory, 'train', epoch=epoch, min_frames=frames)


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


def test_windows_longer_than_the_video_are_refused(directory):
  source = records.VideoRecords(directory, 'train')
  with pytest.raises(ValueError, match='1.gif: .* 4 frames, fewer than the 5'):
    source.example(1, np.random.default_rng(0), 5)
  source = records.VideoRecords(directory, 'train', epoch='windows')
  words = f'{directory}: the longest video has 17 frames, fewer than the 18'
  with pytest.raises(ValueError, match=words):
    source.example(1, np.random.default_rng(0), 18)


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


@pytest.mark.parametrize('epoch', windows.EPOCHS)
def test_batches_take_videos_and_images_from_records(tmp_path, epoch):
  source = records.VideoRecords(
      make(tmp_path, classes=True), 'train', epoch=epoch, min_frames=3
  )
  seen = collections.Counter()
  for batch in pipeline.batches(
      source, batch_size=4, num_frames=3, num_images=2, stop=100,
      loader='threads',
  ):
    assert batch['video'].shape == (4, 5, 8, 6, 3)
    videos = batch['video'][:, :, 0, 0, 0] // 20
    assert (videos[:, :3] == videos[:, :1]).all()
    assert (videos[:, 3:] != videos[:, :1]).all()  # images are of others
    np.testing.assert_array_equal(batch['labels'][..., 0], videos[:, 2:] - 1.0)
    seen.update(batch['video'][:, 3:, 0, 0, 0].ravel().tolist())
  # Images are any frames, also such as no clip of three frames holds.
  missing = {*range(10), *range(20, 24), *range(40, 57), *range(60, 65)} - {
      *seen
  }
  assert not missing


def batches(source, **fields):
  given = dict(
      batch_size=4, num_frames=3, num_images=1, seed=5, stop=6, flip=True,
      frameskips=(1, 2), loader='threads',
  )
  return [b['video'] for b in pipeline.batches(source, **(given | fields))]


@pytest.mark.parametrize('epoch', windows.EPOCHS)
def test_any_step_on_any_number_of_hosts_has_its_windows(directory, epoch):
  opened = lambda: records.VideoRecords(
      directory, 'train', epoch=epoch, min_frames=3
  )
  whole = batches(opened())
  np.testing.assert_array_equal(batches(opened(), start=4), whole[4:])
  for hosts in (2, 4):
    parts = [
        batches(opened(), process_index=i, process_count=hosts, start=2)
        for i in range(hosts)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[2:])
  if epoch == 'windows':
    for loader in ('tf', 'processes'):
      np.testing.assert_array_equal(batches(opened(), loader=loader), whole)


def test_records_from_before_content_was_known_have_the_old_form(tmp_path):
  directory = make(tmp_path)
  new = records.VideoRecords(directory, 'train').fingerprint
  report = json.loads((directory / 'report.json').read_text())
  del report['content'], report['content_of_clips']
  (directory / 'report.json').write_text(json.dumps(report))
  old = records.VideoRecords(directory, 'train').fingerprint
  assert re.fullmatch('[0-9a-f]{16}', old)
  assert mixture_lib.may_be_same(old, new)
  assert not mixture_lib.may_be_same(new, old)


def test_a_run_over_clips_has_the_batches_of_before(directory):
  """These are from the version that knew no other epochs."""
  source = records.VideoRecords(
      directory, 'train', epoch='clips', min_frames=4
  )
  assert source.fingerprint == 'sha256:74f2cf2ac7d7e51990f6596301e99537'
  content = b''.join(batch.tobytes() for batch in batches(source))
  assert hashlib.sha256(content).hexdigest()[:16] == '0ac5044769039001'


def as_of_version_2_0(directory, target):
  """Copies records as they were before there was the table of videos."""
  shutil.copytree(directory, target)
  with np.load(target / records.FILE) as tables:
    ids = {
        split: np.repeat(table[:, 0], -(-table[:, 2] // table[:, 3]))
        for split, table in tables.items()
    }
  np.savez(target / records.OLD_FILE, **ids)
  (target / records.FILE).unlink()
  report = json.loads((target / 'report.json').read_text())
  report['content'] = report.pop('content_of_clips')
  (target / 'report.json').write_text(json.dumps(report))
  return target


def test_records_of_an_earlier_version_are_read(directory, tmp_path, caplog):
  old = as_of_version_2_0(directory, tmp_path / 'old')
  given = dict(epoch='clips', min_frames=4)
  now = records.VideoRecords(directory, 'train', **given)
  before = records.VideoRecords(old, 'train', **given)
  assert 'an earlier version, which do not say where' in caplog.text
  # So a run that began with them goes on with either.
  assert before.fingerprint == now.fingerprint
  assert before.num_examples == now.num_examples == 7
  for i in range(7):
    np.testing.assert_array_equal(*(
        source.example(i, np.random.default_rng(i), 3, (1, 2))['video']
        for source in (before, now)
    ))
  np.testing.assert_array_equal(batches(before), batches(now))
  # A run over windows or videos does not go on with the others: they have more.
  for epoch in ('windows', 'videos'):
    given = dict(epoch=epoch, min_frames=4)
    before = records.VideoRecords(old, 'train', **given)
    now = records.VideoRecords(directory, 'train', **given)
    assert before.num_videos == now.num_videos == 4
    assert before.num_examples == 7
    assert before.fingerprint != now.fingerprint
    assert before.fingerprint.startswith(mixture_lib.CONTENT)


def test_videos_of_one_clip_are_the_same_in_every_version(tmp_path):
  directory = packing.pack(
      {
          split: packing.Split([*clips_of(0, 5), *clips_of(1, 6)], 2)
          for split in ('train', 'test')
      },
      data_dir=tmp_path, name='set', key='x', height=8, width=6, min_frames=4,
      report={},
  )
  old = as_of_version_2_0(directory, tmp_path / 'old')
  given = dict(epoch='videos', min_frames=4)
  before = records.VideoRecords(old, 'train', **given)
  now = records.VideoRecords(directory, 'train', **given)
  assert before.fingerprint == now.fingerprint
  np.testing.assert_array_equal(batches(before), batches(now))


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
    'the table is cut': cut(records.FILE, 100),
    'the table is of objects': lambda d: np.savez(
        d / records.FILE, train=np.array([{}], object)),
    'the table is of others': lambda d: np.savez(
        d / records.FILE, train=np.ones((3, 4), np.int32)),
    'the table lacks a split': lambda d: np.savez(
        d / records.FILE, test=np.ones((7, 4), np.int32)),
    'the table claims more frames than there are': lambda d: np.savez(
        d / records.FILE, train=np.array([[0, 9, 7 * 99, 99]], np.int32)),
    'the ids of an earlier version are of others': lambda d: (
        (d / records.FILE).unlink(),
        np.savez(d / records.OLD_FILE, train=np.arange(3))),
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
    source.example(0, np.random.default_rng(1), 1)
  assert str(error.value).startswith(f'{copied} holds damaged records (')
  assert '\n' not in str(error.value)
  assert 'module_of_another' not in sys.modules
