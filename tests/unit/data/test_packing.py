"""How videos are cut into clips, and clips packed."""
import concurrent.futures
import hashlib
import json
import os
import threading

import numpy as np
import pytest

from video_diffusion.data import packing
from video_diffusion.data import record_writer
from video_diffusion.data import records


@pytest.mark.parametrize(
    'num_frames, expected',
    [
        (0, []), (3, []), (4, [(0, 4)]), (10, [(0, 10)]),
        (11, [(0, 10), (10, 11)]), (25, [(0, 10), (10, 20), (20, 25)]),
    ],
)
def test_cuts(num_frames, expected):
  sizes = dict(clip_frames=10, min_frames=4)
  for short_clips in packing.SHORT_CLIPS:
    if num_frames < 4 and short_clips != 'drop':
      continue
    cuts = packing.cut_clips(num_frames, short_clips=short_clips, **sizes)
    assert [cut.tolist() for cut in cuts] == [
        list(range(*each)) for each in expected
    ]


def test_videos_that_are_too_short():
  sizes = dict(clip_frames=10, min_frames=8)
  loop, = packing.cut_clips(3, short_clips='loop', **sizes)
  assert loop.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
  sizes = dict(clip_frames=5, min_frames=8)
  loop = packing.cut_clips(3, short_clips='loop', **sizes)
  assert [each.tolist() for each in loop] == [[0, 1, 2, 0, 1], [2, 0, 1]]
  with pytest.raises(ValueError, match='it has 3 frames, fewer than the 8'):
    packing.cut_clips(3, short_clips='refuse', **sizes)
  with pytest.raises(ValueError, match='it has 0 frames'):
    packing.cut_clips(0, short_clips='loop', **sizes)


def clip(level, length, *, caption='', label=-1, start=0):
  frames = np.full((length, 4, 6, 3), level, np.uint8)
  return packing.Clip(
      lambda: frames, level, f'{level}.mp4', label, caption, start=start
  )


def pack(tmp_path, train, **options):
  splits = {
      'train': packing.Split(iter(train), max(1, len(train))),
      'test': packing.Split([clip(9, 2)], 1),
  }
  return packing.pack(
      splits, data_dir=tmp_path, name='set', key='0', height=4, width=6,
      **{'report': {}, **options},
  )


def test_the_report_says_what_there_is(tmp_path):
  pytest.importorskip('tensorflow_datasets')
  one = dict(caption='one', label=1)
  clips = [clip(1, 5, **one), clip(1, 1, start=5, **one), clip(2, 3)]
  report = {'skipped': ['x']}
  directory = pack(tmp_path, clips, class_names=('a', 'b'), report=report)
  assert directory == packing.directory(tmp_path, 'set', '0')
  report = json.loads((directory / 'report.json').read_text())
  content = report.pop('content')
  assert content.startswith('sha256:') and len(content) == 7 + 32
  assert report.pop('content_of_clips') == content  # the shortest window is 1
  assert report == {
      'skipped': ['x'],
      'clips': {'train': 3, 'test': 1},
      'frames': {'train': 9, 'test': 2},
      'captions': 2,
      'shortest': 2,
      'class_names': ['a', 'b'],
  }


def test_an_empty_split_leaves_nothing(tmp_path):
  pytest.importorskip('tensorflow_datasets')
  with pytest.raises(ValueError, match="set has no clip for the split 'train'"):
    pack(tmp_path, [])
  assert not packing.directory(tmp_path, 'set', '0').exists()


def test_one_of_several_packs_and_the_others_wait(tmp_path):
  pytest.importorskip('tensorflow_datasets')
  target = packing.directory(tmp_path, 'set', '0')
  (target.parent / '.2.0.part-killed.0').mkdir(parents=True)
  calls, lock = [], threading.Lock()

  def load():
    with lock:
      calls.append(sorted(p.name for p in target.parent.iterdir()))
    return np.zeros((5, 4, 6, 3), np.uint8)

  def work():
    return pack(tmp_path, [packing.Clip(load, 1, 'a.mp4')])

  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    found = list(pool.map(lambda _: work(), range(3)))
  assert found == [target] * 3 and len(calls) == 1
  # What a killed process left was deleted by the one that held the folder.
  assert '.2.0.part-killed.0' not in calls[0] and '.lock' in calls[0]
  assert os.listdir(target.parent) == [packing.VERSION]


@pytest.mark.parametrize('most_shards', [1, 3])
def test_clips_keep_their_order_in_any_number_of_files(
    tmp_path, monkeypatch, most_shards
):
  pytest.importorskip('tensorflow_datasets')
  monkeypatch.setattr(record_writer, 'MOST_SHARDS', most_shards)
  directory = pack(tmp_path, [clip(i % 256, 1) for i in range(600)])
  assert len(list(directory.glob('*train*'))) == (1 if most_shards == 1 else 3)
  source = records.VideoRecords(directory, 'train')
  rng = np.random.default_rng(0)
  found = [source._records.read(i)['video'][0, 0, 0, 0] for i in range(600)]
  assert found == [i % 256 for i in range(600)]
  levels = {
      source.example(i, rng, 1)['video'][0, 0, 0, 0] for i in range(600)
  }
  assert levels == {*range(256)} and source.num_videos == 256


def test_the_fingerprint_is_what_the_data_are(tmp_path):
  pytest.importorskip('tensorflow_datasets')

  def content(name, *clips, **options):
    directory = pack(tmp_path / name, clips, **options)
    return records.VideoRecords(directory, 'train').fingerprint

  names = ('a', 'b')
  one = clip(1, 5, caption='one', label=1)
  first = content('first', one, clip(2, 3), class_names=names)
  # Neither the place, nor names, nor what else is reported.
  moved = one._replace(name='moved.mp4')
  again = content(
      'again', moved, clip(2, 3), class_names=names, report={'skipped': ['x']}
  )
  assert again == first
  digest = hashlib.sha256(one.load().tobytes()).hexdigest()
  kept = content(
      'kept', one._replace(source=digest), clip(2, 3), class_names=names
  )
  assert kept == first
  for name, changed in {
      'frames': one._replace(load=clip(7, 5).load),
      'source': one._replace(source='of another file'),
      'length': one._replace(load=clip(1, 4).load),
      'label': one._replace(label=0),
      'caption': one._replace(caption='two'),
      'video': one._replace(video_id=2),
  }.items():
    assert content(name, changed, clip(2, 3), class_names=names) != first, name
  assert content('order', clip(2, 3), one, class_names=names) != first
  # What is left of a video counts, though no clip of it may hold a window: then
  # epochs over clips leave it out, and are those of before.
  rest = clip(1, 1, caption='one', label=1, start=5)
  given = dict(class_names=names, min_frames=2)
  directory = pack(tmp_path / 'rest', [one, rest, clip(2, 3)], **given)
  for epoch in ('windows', 'videos', 'clips'):
    source = records.VideoRecords(
        directory, 'train', epoch=epoch, min_frames=2
    )
    assert (source.fingerprint == first) == (epoch == 'clips')
  assert content('names', one, clip(2, 3), class_names=('a', 'c')) != first


def test_an_error_on_the_way_leaves_nothing(tmp_path):
  pytest.importorskip('tensorflow_datasets')

  def broken():
    raise OSError('no space left')

  clips = [clip(1, 3), packing.Clip(broken, 2, 'b')]
  with pytest.raises(OSError, match='no space left'):
    pack(tmp_path, clips)
  assert not (tmp_path / 'set' / '0').exists()
