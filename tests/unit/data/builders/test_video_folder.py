"""Folders of videos and images: decoded once, cut and split by rule."""
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from tests.support.waiting import until
from video_diffusion.data import packing
from video_diffusion.data import records
from video_diffusion.data import video
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import folders
from video_diffusion.data.builders import video_files
from video_diffusion.data.builders import video_folder
from video_diffusion.errors import UserError

for module in ['av', 'tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)
image = pytest.importorskip('PIL.Image')

CLIPS = ROOT.parent / 'shared' / 'data' / 'clips'
SETTINGS = file_plans.Settings(
    height=8, width=8, clip_frames=10, min_frames=4
)


def write_gif(path, num_frames, first_level=0):
  """A video whose frame i is plain grey of level first_level + i."""
  path.parent.mkdir(parents=True, exist_ok=True)
  frames = [
      image.fromarray(np.full((12, 16), first_level + i, np.uint8))
      for i in range(num_frames)
  ]
  frames[0].save(
      path, 'GIF', save_all=True, append_images=frames[1:], duration=100
  )


def read_all(directory, split):
  """(name, levels, video id, label) of all clips of a split, in order."""
  source = records.VideoRecords(directory, split)
  found = []
  for record in map(source._records.read, range(len(source._records))):
    clip = record['video']
    assert (clip == clip[:, :1, :1, :1]).all()
    found.append((
        os.fsdecode(record['file']), clip[:, 0, 0, 0].tolist(),
        record['video_id'], record['label'],
    ))
  return found


def read_report(directory):
  report = json.loads((directory / 'report.json').read_text())
  for digest in ('content', 'content_of_clips'):
    assert report.pop(digest).startswith('sha256:')
  return report


@pytest.fixture(name='folder')
def three_videos(tmp_path):
  """Of 25, 3 and 14 frames; the second is too short."""
  write_gif(tmp_path / 'videos' / 'a.gif', 25)
  write_gif(tmp_path / 'videos' / 'b' / 'short.gif', 3, 50)
  write_gif(tmp_path / 'videos' / 'c.GIF', 14, 100)
  return tmp_path / 'videos'


@pytest.fixture(name='prepare')
def prepare_into(tmp_path, folder):
  def prepare(path=folder, settings=SETTINGS, data='data', **options):
    return video_folder.prepare(
        path, settings, data_dir=tmp_path / data, **options
    )

  return prepare


def test_clips_are_cut_and_dealt(prepare, tmp_path):
  directory = prepare()
  assert directory.parent.parent == tmp_path / 'data' / 'video_folder'
  assert read_all(directory, 'test') == [('a.gif', list(range(10)), 0, -1)]
  # Only a.gif and c.GIF can be used: they are videos 0 and 1.
  assert read_all(directory, 'train') == [
      ('a.gif', list(range(10, 20)), 0, -1),
      ('a.gif', list(range(20, 25)), 0, -1),
      ('c.GIF', list(range(100, 110)), 1, -1),
      ('c.GIF', list(range(110, 114)), 1, -1),
  ]
  assert read_report(directory) == {
      'files': 3,
      'usable': 2,
      'seconds': pytest.approx(3.9),
      'smallest_source': [12, 16],
      'largest_source': [12, 16],
      'looped': 0,
      'captions_without_file': 0,
      'skipped': [{
          'file': 'b/short.gif',
          'reason': 'it has 3 frames, fewer than the 4 wanted',
      }],
      'left_out': [],
      'unread': {},
      'notes': {},
      'clips': {'train': 4, 'test': 1},
      'frames': {'train': 29, 'test': 10},
      'captions': 0,
      'shortest': 10,
      'class_names': [],
  }


def test_every_twentieth_of_twenty_videos_is_held_out(prepare, tmp_path):
  for i in range(21):
    write_gif(tmp_path / 'many' / f'{i:02d}.gif', 12, i)
  (tmp_path / 'many' / '05.gif').unlink()
  directory = prepare(tmp_path / 'many')
  assert {clip[0] for clip in read_all(directory, 'test')} == {'00.gif'}
  train = {clip[0] for clip in read_all(directory, 'train')}
  assert len(train) == 19 and '00.gif' not in train
  # With 19 of them every 20th clip is.
  (tmp_path / 'many' / '06.gif').unlink()
  for i in range(21):
    if i not in (5, 6):
      write_gif(tmp_path / 'many' / f'{i:02d}.gif', 14, i)
  directory = prepare(tmp_path / 'many')
  assert len(read_all(directory, 'train')) == 36
  assert [clip[:2] for clip in read_all(directory, 'test')] == [
      ('00.gif', list(range(10))), ('12.gif', list(range(12, 22))),
  ]


@pytest.mark.parametrize('clip_frames', [10, 4, 3])
def test_windows_reach_over_clips_but_not_over_what_is_held_out(
    prepare, tmp_path, clip_frames
):
  """Pieces of 10 or 12 frames; the last 6 belong to the piece before them."""
  for i in range(2):
    write_gif(tmp_path / 'few' / f'{i}.gif', 126, 127 * i)
  directory = prepare(tmp_path / 'few', SETTINGS._replace(
      clip_frames=clip_frames, min_frames=10
  ))
  opened = {
      split: records.VideoRecords(
          directory, split, epoch='windows', min_frames=10
      )
      for split in ('train', 'test')
  }
  rows = {
      split: np.stack(source.stretches[:3]).T.tolist()
      for split, source in opened.items()
  }
  piece = -(-10 // clip_frames) * clip_frames
  number = -(-126 // piece) - (126 % piece < 10)  # of pieces in a video
  late = (20 - number) * piece  # of the 20th piece, in the second video
  assert rows['test'] == [
      [0, 0, piece], *([[1, late, piece]] if late < 116 else [])
  ]
  held = {(number, start) for number, start, _ in rows['test']}
  assert sum(n for _, _, n in rows['train'] + rows['test']) == 252
  assert rows['train'][0] == [0, piece, 126 - piece]
  for number, start, n in rows['train']:
    assert n >= 10
    assert start + n == 126 or (number, start + n) in held
  rng, source = np.random.default_rng(0), opened['train']
  for index in range(source.num_examples):
    window = source.example(index, rng, 10)['video'][:, 0, 0, 0]
    assert (np.diff(window.astype(int)) == 1).all()


def test_one_clip_is_in_both_splits(prepare, tmp_path):
  write_gif(tmp_path / 'one' / 'a.gif', 6)
  directory = prepare(tmp_path / 'one')
  for split in ['train', 'test']:
    assert read_all(directory, split) == [('a.gif', list(range(6)), 0, -1)]


def test_a_rate_is_taken_before_cutting(prepare):
  directory = prepare(settings=SETTINGS._replace(fps=5))  # of 10
  # 25 frames leave 13; the three beyond the clip are too few for a window, so
  # that they are held out with it.
  assert [clip[1] for clip in read_all(directory, 'test')] == [
      list(range(0, 20, 2)), [20, 22, 24]
  ]
  assert [clip[1] for clip in read_all(directory, 'train')] == [
      list(range(100, 114, 2))
  ]


def test_short_videos_are_looped_or_refused(prepare):
  directory = prepare(settings=SETTINGS._replace(short_clips='loop'))
  looped = [c for c in read_all(directory, 'train') if c[0] == 'b/short.gif']
  assert looped == [('b/short.gif', [50, 51, 52, 50], 1, -1)]
  assert read_report(directory)['looped'] == 1
  assert read_report(directory)['skipped'] == []
  with pytest.raises(ValueError, match='b/short.gif: it has 3 frames'):
    prepare(settings=SETTINGS._replace(short_clips='refuse'))


def test_a_second_call_returns_at_once(prepare, folder, capfd):
  directory = prepare()
  assert 'decoding' in capfd.readouterr().err
  assert prepare() == directory
  assert 'decoding' not in capfd.readouterr().err
  keys = {directory}
  for changed in (
      dict(clip_frames=9), dict(min_frames=3), dict(short_clips='loop'),
  ):
    keys.add(prepare(settings=SETTINGS._replace(**changed)))
  write_gif(folder / 'new.gif', 5)
  keys.add(prepare())
  assert len(keys) == 5


def test_the_cache_is_kept_or_not(prepare, tmp_path):
  def entries(data):
    return list((tmp_path / data / 'decoded').glob('??/*'))

  prepare()
  assert len(entries('data')) == 6
  directory = prepare(data='other', keep_cache=False)
  assert not entries('other')
  assert prepare(data='other', keep_cache=False) == directory


def test_broken_files_are_skipped_and_listed(prepare, folder, caplog):
  (folder / 'b' / 'empty.mp4').touch()
  (folder / 'b' / 'text.mp4').write_text('no video here\n' * 50)
  with caplog.at_level(logging.INFO):
    directory = prepare()
  skipped = {
      each['file']: each['reason']
      for each in read_report(directory)['skipped']
  }
  assert set(skipped) == {'b/empty.mp4', 'b/text.mp4', 'b/short.gif'}
  assert 'Invalid data' in skipped['b/text.mp4']
  messages = [r.getMessage() for r in caplog.records]
  for name, reason in skipped.items():
    assert f'skipped {name}: {reason}' in messages
  assert messages[-1] == (
      'Prepared video_folder: 2 of 5 files, 3 skipped; see '
      f'{directory / "report.json"}.'
  )


def test_many_broken_files_do_not_flood_the_log(prepare, folder, caplog):
  for i in range(15):
    (folder / f'{i}.mp4').touch()
  directory = prepare()
  warnings = [r.getMessage() for r in caplog.records if r.levelno > 20]
  assert len(warnings) == 11 and warnings[-1] == 'skipped 6 more'
  assert len(read_report(directory)['skipped']) == 16


@pytest.mark.parametrize('name, content', [
    ('captions.jsonl',
     '{"file": "./a.gif", "caption": "first"}\n\n'
     '{"file": "b\\\\short.gif", "caption": "übrig"}\n'
     '{"file": "none.gif", "caption": "x"}\n'),
    ('captions.csv',
     '\ufefffile,caption,more\na.gif,first,1\nb/short.gif,übrig,2\n'
     'none.gif,"x, y",3\n'),
])
def test_captions(prepare, folder, name, content, caplog):
  before = prepare()
  (folder / name).write_text(content, encoding='utf-8')
  directory = prepare(settings=SETTINGS._replace(min_frames=3))
  report = read_report(directory)
  assert report['captions_without_file'] == 1 and report['captions'] == 4
  assert report['files_without_caption'] == 1  # c.GIF
  assert (
      f"{folder / name}: 1 of the 3 files that it names was not found, for "
      "instance 'none.gif' on line "
  ) in caplog.text
  assert (
      f"{folder / name}: 1 of the 3 files of its folder has no caption, for "
      "instance 'c.GIF'."
  ) in caplog.text
  source = records.VideoRecords(directory, 'train')
  captions = [
      source.example(i, np.random.default_rng(0), 1)['caption']
      for i in range(source.num_examples)
  ]
  assert captions == ['first', 'übrig', '']
  assert list(source.captions()) == ['first', 'first', 'übrig', '', '']
  assert prepare() != before  # a new caption file is new data


@pytest.mark.parametrize('name, content, sentence', [
    ('captions.jsonl', '{"file": "a", "caption": "b"}\n{"file": "a"',
     'captions.jsonl, line 2: it must have {"file"'),
    ('captions.jsonl', '["a", "b"]', 'captions.jsonl, line 1'),
    ('captions.jsonl', '{"file": "a", "caption": 3}', 'captions.jsonl, line 1'),
    ('captions.csv', 'file,caption\na,b\nc\n',
     'captions.csv, line 3: it must have the columns file and caption'),
    ('captions.csv', 'name,text\na,b\n', 'captions.csv, line 1'),
    ('captions.csv', 'file,caption\na.gif,a, b\n', 'line 2: it has more'),
    ('captions.csv', 'file,caption\nA.GIF,a\n',
     'none of its 1 captions names a file of'),
    ('captions.csv', 'name,text\n', 'captions.csv, line 1'),
    ('captions.csv', '', 'captions.csv, line 1'),
])
def test_malformed_captions_are_named(prepare, folder, name, content, sentence):
  (folder / name).write_text(content)
  with pytest.raises(ValueError) as error:
    prepare()
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_caption_files_of_other_names_are_told(prepare, folder, caplog):
  (folder / 'Captions.tsv').write_text('file\tcaption\na.gif\ta\n')
  write_gif(folder / 'caption.gif', 5)
  prepare()
  assert (
      f'{folder}/Captions.tsv is not read; captions are read from '
      'captions.jsonl or captions.csv.' in caplog.messages
  )
  assert 'caption.gif is not' not in caplog.text


def test_a_caption_file_that_is_not_there_is_not_passed_over(prepare, folder):
  (folder / 'captions.csv').symlink_to(folder / 'unmounted' / 'captions.csv')
  with pytest.raises(UserError, match='captions.csv cannot be read .No such'):
    prepare()


def test_two_caption_files_are_one_too_many(prepare, folder):
  for name in video_folder.CAPTIONS:
    (folder / name).write_text('')
  with pytest.raises(ValueError, match='both captions.jsonl and captions.csv'):
    prepare()


def test_classes_are_the_first_folders(prepare, folder, tmp_path):
  with pytest.raises(ValueError, match='a.gif lies in no folder'):
    prepare(classes=True)
  for i, name in enumerate(['run/deep/a.gif', 'jump/b.gif', 'run/c.gif']):
    write_gif(tmp_path / 'sorted' / name, 4, 10 * i)
  directory = prepare(tmp_path / 'sorted', classes=True)
  assert read_report(directory)['class_names'] == ['jump', 'run']
  labels = {
      name: label
      for split in ('train', 'test')
      for name, _, _, label in read_all(directory, split)
  }
  assert labels == {'jump/b.gif': 0, 'run/c.gif': 1, 'run/deep/a.gif': 1}


def test_a_folder_of_images(prepare, tmp_path):
  folder = tmp_path / 'images'
  (folder / 'x').mkdir(parents=True)
  for i in range(30):
    level = np.full((5 + i, 9), i, np.uint8)
    image.fromarray(level).save(folder / 'x' / f'{i:02d}.png')
  (folder / 'broken.JPG').write_text('no image')
  write_gif(folder / 'a.gif', 5)  # a video
  directory = prepare(
      folder, SETTINGS._replace(clip_frames=1, min_frames=1),
      name='image_folder',
  )
  assert [clip[1] for clip in read_all(directory, 'test')] == [[0], [20]]
  train = read_all(directory, 'train')
  assert [clip[1] for clip in train] == [[i] for i in range(30) if i % 20]
  report = read_report(directory)
  assert [each['file'] for each in report['skipped']] == ['broken.JPG']
  assert report['smallest_source'] == [5, 9]
  assert report['largest_source'] == [34, 9] and report['seconds'] == 0


@pytest.mark.skipif(
    not CLIPS.is_dir(), reason='the clips for the decode tests are not there')
def test_real_clips(prepare, tmp_path):
  """Every clip is prepared, or refused, as its description says."""
  directory = prepare(
      CLIPS,
      file_plans.Settings(height=64, width=64, clip_frames=32, min_frames=1),
  )
  report = read_report(directory)
  assert report['files'] == 11 and report['usable'] == 10
  assert report['smallest_source'] == [1, 1]
  assert report['largest_source'] == [720, 1280]
  assert report['seconds'] == pytest.approx(43.1, abs=0.05)
  skipped, = report['skipped']
  assert skipped['file'] == 'corrupted.mp4' and '28' in skipped['reason']
  frames = {}
  for split in ('train', 'test'):
    source = records.VideoRecords(directory, split)
    for record in map(source._records.read, range(len(source._records))):
      name = record['file'].decode()
      frames[name] = frames.get(name, 0) + len(record['video'])
  assert frames == {
      'av1_video.mkv': 125, 'big_buck_bunny_432_433.webm': 24,
      'chaplin.mp4': 241, 'h265_video.mp4': 10, 'nasa_13013.mp4': 325,
      'nasa_mpeg4.avi': 96, 'nasa_vfr.mp4': 60, 'rotation_0.mov': 3,
      'test_video_66x50.mov': 82, 'tiny_1x1.mp4': 5,
  }
  source = records.VideoRecords(directory, 'train')
  wanted = video.resize_and_crop(
      np.stack(list(video.read_frames(CLIPS / 'nasa_vfr.mp4'))[32:60]),
      height=64, width=64)
  found = [
      record['video']
      for record in map(source._records.read, range(len(source._records)))
      if record['file'] == b'nasa_vfr.mp4'
  ]
  np.testing.assert_array_equal(found[-1], wanted)


@pytest.mark.parametrize('make, sentence', [
    (lambda path: None, 'is missing; give a folder of video files'),
    (lambda path: path.touch(), 'is a file; give a folder of video files'),
    (lambda path: path.mkdir(), 'holds no file that ends in .mp4, .*; give'),
])
def test_useless_folders_are_named(prepare, tmp_path, make, sentence):
  make(tmp_path / 'useless')
  with pytest.raises(ValueError, match=f'{tmp_path}/useless, {sentence}'):
    prepare(tmp_path / 'useless')
  assert not list(tmp_path.glob('data/*'))


def test_a_folder_of_useless_videos_says_why(prepare, tmp_path):
  write_gif(tmp_path / 'short' / 'a.gif', 2)
  with pytest.raises(ValueError) as error:
    prepare(tmp_path / 'short')
  assert str(error.value) == (
      "video_folder has no usable video for the split 'train': of 1 files 1 "
      'were skipped, the first of them, a.gif, because: it has 2 frames, fewer '
      'than the 4 wanted.'
  )


def test_a_useless_folder_says_what_it_passed_over(prepare, tmp_path):
  (tmp_path / 'useless').mkdir()
  (tmp_path / 'useless' / 'disk').symlink_to(tmp_path / 'unmounted')
  with pytest.raises(ValueError, match='; it holds disk .a link to nothing.;'):
    prepare(tmp_path / 'useless')


def test_what_is_not_read_is_in_the_report(prepare, folder, tmp_path, caplog):
  (folder / 'disk').symlink_to(tmp_path / 'unmounted')
  (folder / 'gone.mp4').symlink_to(tmp_path / 'gone.mp4')
  write_gif(folder / 'runs' / 'mine' / 'samples' / 's.gif', 20)
  run = '{"data_fingerprint": ""}'
  (folder / 'runs' / 'mine' / 'config.json').write_text(run)
  (folder / 'caf\udce9.mp4').touch()  # not UTF-8
  report = read_report(prepare())
  assert report['left_out'] == ['runs/mine'] and report['usable'] == 2
  skipped = {each['file']: each['reason'] for each in report['skipped']}
  assert skipped['disk'] == 'a link to nothing'
  assert skipped['gone.mp4'] == 'No such file or directory'
  assert 'Invalid data' in skipped['caf\udce9.mp4']
  assert 'skipped disk: a link to nothing' in caplog.messages
  assert any(m.startswith('skipped caf\\xe9.mp4: ') for m in caplog.messages)
  assert any(m.endswith('prepared data: runs/mine.') for m in caplog.messages)
  (folder / 'config.json').write_text(run)
  with pytest.raises(ValueError, match='is the folder of a run, whose own'):
    prepare()


def test_a_run_among_the_videos_changes_nothing(prepare, folder, monkeypatch):
  monkeypatch.chdir(folder)
  directory = prepare('.')
  # What a first start leaves where data.path is '.'.
  write_gif(folder / 'runs' / 'video_folder' / 'samples' / 's.gif', 20)
  config = folder / 'runs' / 'video_folder' / 'config.json'
  config.write_text('{"data_fingerprint": ""}')
  monkeypatch.setattr(video_files, 'pack', None)  # it is not needed
  assert prepare('.') == directory == prepare()


def test_a_file_that_vanishes_is_skipped(prepare, folder, monkeypatch):
  key = folders.listing_key

  def vanish(*args, **options):
    (folder / 'c.GIF').unlink()
    return key(*args, **options)

  monkeypatch.setattr(folders, 'listing_key', vanish)
  skipped = read_report(prepare())['skipped']
  assert {'file': 'c.GIF', 'reason': 'No such file or directory'} in skipped


@pytest.mark.parametrize('changed, sentence', [
    (dict(clip_frames=0), 'clip_frames is 0; it must be at least 1'),
    (dict(min_frames=0), 'min_frames is 0; it must be at least 1'),
    (dict(fps=-1), 'fps is -1'),
    (dict(short_clips='pad'), "short_clips is 'pad'; it must be one of"),
])
def test_useless_settings_are_named(prepare, changed, sentence):
  with pytest.raises(ValueError, match=sentence):
    prepare(settings=SETTINGS._replace(**changed))


SCRIPT = '''
import sys
from video_diffusion.data.builders import file_plans, video_folder
if __name__ == '__main__':
  settings = file_plans.Settings(64, 64, clip_frames=10, min_frames=4)
  print(video_folder.prepare(sys.argv[1], settings, data_dir=sys.argv[2]))
'''


def start_preparation(tmp_path, folder):
  return subprocess.Popen(
      [sys.executable, '-c', SCRIPT, folder, tmp_path / 'data'],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True,
  )


def test_preparations_of_shared_data_at_once(tmp_path):
  films = tmp_path / 'films'
  for i in range(8):
    write_gif(films / ('a' if i % 2 else 'b') / f'{i}.gif', 12, 20 * i)
  # Two of the same folder, and one of a part of it.
  crowd = [start_preparation(tmp_path, f) for f in (films, films, films / 'a')]
  found = []
  for process in crowd:
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    found.append(pathlib.Path(output.strip()))
  assert found[0] == found[1] != found[2]
  for directory, usable in ((found[0], 8), (found[2], 4)):
    assert read_report(directory)['usable'] == usable
    train = {clip[0] for clip in read_all(directory, 'train')}
    assert len(train) == usable - 1  # one is held out
  assert not list((tmp_path / 'data').rglob('.*'))  # no part, no mark
  assert len(list(tmp_path.glob('data/decoded/??/*.json'))) == 8
  assert len(list(tmp_path.glob('data/video_folder/*/*'))) == 2


def test_killed_preparation_goes_on_where_it_was(tmp_path):
  import av

  (tmp_path / 'films').mkdir()
  rng = np.random.default_rng(0)
  for i in range(30):
    with av.open(str(tmp_path / 'films' / f'{i:02d}.mp4'), 'w') as container:
      stream = container.add_stream('mpeg4', rate=25)
      stream.width, stream.height = 640, 480
      picture = rng.integers(0, 256, (480, 640, 3), np.uint8)
      frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
      for _ in range(60):
        frame.pts = None
        container.mux(stream.encode(frame))
      container.mux(stream.encode())

  def start():
    return start_preparation(tmp_path, tmp_path / 'films')

  def whole():
    """Entries that say that they are whole -> inode: a new one if redone."""
    return {
        path: path.stat().st_ino
        for path in tmp_path.glob('data/decoded/??/*.json')
    }

  process = start()
  until(lambda: len(whole()) >= 5, process)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  before = whole()
  assert len(before) < 29
  again = start()
  output, errors = again.communicate(timeout=LIMIT)
  assert again.returncode == 0, errors
  after = whole()
  assert len(after) == 30 and before.items() <= after.items()
  directory = pathlib.Path(output.strip())
  assert directory.name == packing.VERSION
  report = read_report(directory)
  assert report['usable'] == 30 and report['frames']['test'] == 120
