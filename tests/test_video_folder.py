"""video_folder: decoded once, cut and split by rule, read by id."""
import concurrent.futures
import json
import logging
import os
import pathlib

import numpy as np
import pytest

from video_diffusion.data import records
from video_diffusion.data import video
from video_diffusion.data.builders import video_folder

for module in ['av', 'tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)
image = pytest.importorskip('PIL.Image')

CLIPS = pathlib.Path(__file__).parents[2] / 'shared' / 'data' / 'clips'
SETTINGS = dict(height=8, width=8, clip_frames=10, min_frames=4)


def write_gif(path, num_frames, *, first_level=0):
  """A video whose frame i is plain grey of level first_level + i."""
  path.parent.mkdir(parents=True, exist_ok=True)
  frames = [
      image.fromarray(np.full((12, 16), first_level + i, np.uint8))
      for i in range(num_frames)]
  frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def levels(clip):
  """The grey levels of uint8 [n, h, w, 3], each frame being plain."""
  assert (clip == clip[:, :1, :1, :1]).all()
  return clip[:, 0, 0, 0].tolist()


def read_all(directory, split):
  """The levels and the video id of all clips of a split, in order."""
  source = records.VideoRecords(directory, split)
  return [
      (levels(source._records[i]['video']), source.group(i))
      for i in range(source.num_examples)]


@pytest.fixture(name='decoded')
def count_decoded_files(monkeypatch):
  """Lists the names of the files that are decoded."""
  names, read_frames = [], video.read_frames

  def counting(path):
    names.append(path.name)
    return read_frames(path)

  monkeypatch.setattr(video, 'read_frames', counting)
  return names


@pytest.fixture(name='folder')
def three_videos(tmp_path):
  """Of 25, 3 and 14 frames; the second is too short."""
  write_gif(tmp_path / 'videos' / 'a.gif', 25)
  write_gif(tmp_path / 'videos' / 'b' / 'short.gif', 3)
  write_gif(tmp_path / 'videos' / 'c.GIF', 14, first_level=100)
  return tmp_path / 'videos'


@pytest.mark.parametrize('num_frames, expected', [
    (3, []), (4, [(0, 4)]), (10, [(0, 10)]), (13, [(0, 10)]),
    (14, [(0, 10), (10, 14)]), (25, [(0, 10), (10, 20), (20, 25)])])
def test_cut(num_frames, expected):
  assert video_folder.cut(num_frames, 10, 4) == expected


def test_every_twentieth_clip_is_for_the_test():
  clips = [video_folder.Clip('a', 0, i, i + 1) for i in range(41)]
  assert video_folder.split_clips(clips[:1]) == {
      'train': clips[:1], 'test': clips[:1]}
  assert video_folder.split_clips(clips[:2]) == {
      'train': clips[1:2], 'test': clips[:1]}
  splits = video_folder.split_clips(clips)
  assert splits['test'] == [clips[0], clips[20], clips[40]]
  assert sorted(splits['train'] + splits['test']) == clips


def test_clips_are_cut_and_dealt(folder, tmp_path):
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  assert directory.parent.parent == tmp_path / 'video_folder'
  assert directory.name == '1.0.0'
  assert read_all(directory, 'test') == [(list(range(10)), 0)]
  # a.gif, b/short.gif, c.GIF are files 0, 1, 2.
  assert read_all(directory, 'train') == [
      (list(range(10, 20)), 0), (list(range(20, 25)), 0),
      (list(range(100, 110)), 2), (list(range(110, 114)), 2)]
  source = records.VideoRecords(directory, 'train')
  assert source._records[2]['file'] == b'c.GIF'
  assert json.loads((directory / 'report.json').read_text()) == {
      'files': 3, 'clips': 5, 'frames': 39, 'skipped': [
          {'file': 'b/short.gif', 'reason': 'shorter than 4 frames'}]}
  assert os.listdir(tmp_path / 'video_folder') == [directory.parent.name]


def test_stride_thins_before_cutting(folder, tmp_path):
  directory = video_folder.prepare(
      folder, data_dir=tmp_path, frame_stride=3, **SETTINGS)
  assert read_all(directory, 'test') == [(list(range(0, 25, 3)), 0)]
  assert read_all(directory, 'train') == [([100, 103, 106, 109, 112], 2)]


def test_one_clip_is_in_both_splits(tmp_path):
  write_gif(tmp_path / 'videos' / 'a.gif', 6)
  directory = video_folder.prepare(
      tmp_path / 'videos', data_dir=tmp_path, **SETTINGS)
  for split in ['train', 'test']:
    assert read_all(directory, split) == [(list(range(6)), 0)]


def test_decodes_each_file_once(folder, tmp_path, decoded, capfd):
  def prepare(**changed):
    decoded.clear()
    return video_folder.prepare(
        folder, data_dir=tmp_path, **(SETTINGS | changed))

  first = prepare()
  assert decoded == ['a.gif', 'short.gif', 'c.GIF']
  out, err = capfd.readouterr()
  assert not out and '3/3' in err and 'absl' not in err
  assert prepare() == first and not decoded
  assert prepare(height=4) != first and decoded
  os.utime(folder / 'a.gif', ns=(1, 1))
  assert prepare() != first and decoded


def test_broken_files_are_skipped_and_reported(folder, tmp_path, caplog):
  (folder / 'b' / 'empty.mp4').touch()
  (folder / 'b' / 'text.mp4').write_text('no video at all\n' * 100)
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  report = json.loads((directory / 'report.json').read_text())
  assert (report['files'], report['clips'], report['frames']) == (5, 5, 39)
  skipped = {each['file']: each['reason'] for each in report['skipped']}
  assert set(skipped) == {'b/empty.mp4', 'b/text.mp4', 'b/short.gif'}
  assert 'Invalid data' in skipped['b/text.mp4']
  warnings = [
      record.getMessage() for record in caplog.records
      if record.levelno == logging.WARNING]
  assert warnings == [
      f'skipped {name}: {reason}' for name, reason in skipped.items()]
  assert [group for _, group in read_all(directory, 'train')] == [0, 0, 4, 4]


def test_film_that_breaks_late_leaves_nothing(folder, tmp_path, monkeypatch):
  read_frames = video.read_frames

  def breaking(path):
    yield from read_frames(path)
    if path.name == 'a.gif':
      raise video.VideoError(path, 'broken at the end')

  monkeypatch.setattr(video, 'read_frames', breaking)
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  assert read_all(directory, 'test') == [(list(range(100, 110)), 2)]
  assert read_all(directory, 'train') == [(list(range(110, 114)), 2)]


@pytest.mark.skipif(
    not CLIPS.is_dir(), reason='the clips for the decode tests are not there')
def test_real_clips(tmp_path):
  videos = tmp_path / 'videos'
  videos.mkdir()
  for name in ['corrupted.mp4', 'nasa_vfr.mp4', 'test_video_66x50.mov']:
    (videos / name).symlink_to(CLIPS / name)
  directory = video_folder.prepare(
      videos, data_dir=tmp_path, height=64, width=64, clip_frames=32,
      min_frames=16)
  report = json.loads((directory / 'report.json').read_text())
  assert [each['file'] for each in report['skipped']] == ['corrupted.mp4']
  source = records.VideoRecords(directory, 'train')
  expected = video.resize_and_crop(
      np.stack(list(video.read_frames(CLIPS / 'nasa_vfr.mp4'))[32:60]),
      height=64, width=64)
  got = source.example(0, np.random.default_rng(0), 28)['video']
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('make, sentence', [
    (lambda path: None, 'is missing: give a folder of video files'),
    (lambda path: path.touch(), 'is a file: give a folder of video files'),
    (lambda path: path.mkdir(), 'holds no video file: it should hold .*.mp4'),
    (lambda path: write_gif(path / 'a.gif', 2),
     'holds no usable video: all 1 were skipped, the first of them, a.gif, '
     'because: shorter than 4 frames')])
def test_useless_folders_are_named(tmp_path, make, sentence):
  make(tmp_path / 'videos')
  with pytest.raises(ValueError, match=f'{tmp_path}/videos {sentence}'):
    video_folder.prepare(
        tmp_path / 'videos', data_dir=tmp_path / 'data', **SETTINGS)
  assert not list(tmp_path.glob('data/*'))


@pytest.mark.parametrize('changed, sentence', [
    (dict(frame_stride=0), 'frame_stride must be at least 1, not 0'),
    (dict(min_frames=11), 'clip_frames = 10 must be at least min_frames = 11'),
])
def test_useless_settings_are_named(folder, tmp_path, changed, sentence):
  with pytest.raises(ValueError, match=sentence):
    video_folder.prepare(folder, data_dir=tmp_path, **(SETTINGS | changed))


def test_killed_while_decoding(folder, tmp_path, monkeypatch):
  def killed(path):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(video, 'read_frames', killed)
    with pytest.raises(KeyboardInterrupt):
      video_folder.prepare(folder, data_dir=tmp_path / 'data', **SETTINGS)
  assert not list((tmp_path / 'data').iterdir())
  directory = video_folder.prepare(
      folder, data_dir=tmp_path / 'data', **SETTINGS)
  assert len(read_all(directory, 'train')) == 4


def test_another_process_was_faster(folder, tmp_path, monkeypatch):
  savez = np.savez
  others = []

  def prepare_meanwhile(*args, **kwargs):  # while the records are written
    savez(*args, **kwargs)
    if not others:
      others.append(None)
      others.append(video_folder.prepare(
          folder, data_dir=tmp_path, **SETTINGS))

  monkeypatch.setattr(np, 'savez', prepare_meanwhile)
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  assert directory == others[1]
  assert os.listdir(directory.parent) == ['1.0.0']
  assert len(read_all(directory, 'train')) == 4


def test_order_survives_sorting_on_disk(folder, tmp_path, monkeypatch):
  from tensorflow_datasets.core import shuffle

  in_memory = video_folder.prepare(folder, data_dir=tmp_path / 'a', **SETTINGS)
  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 1000)
  on_disk = video_folder.prepare(folder, data_dir=tmp_path / 'b', **SETTINGS)
  assert read_all(on_disk, 'train') == read_all(in_memory, 'train')


def test_windows_are_uniform(folder, tmp_path):
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  source = records.VideoRecords(directory, 'test')
  rng = np.random.default_rng(0)
  counts = np.zeros(8, int)
  for _ in range(800):
    window = source.example(0, rng, 3)['video']
    assert window.shape == (3, 8, 8, 3) and window.dtype == np.uint8
    start, *others = levels(window)
    assert others == [start + 1, start + 2]
    counts[start] += 1
  assert (abs(counts - 100) < 40).all()  # four standard deviations
  whole = source.example(0, rng, 10)['video']
  assert levels(whole) == list(range(10)) and whole.flags.writeable
  # The random numbers serve the start alone: the same ones, the same window.
  again = [source.example(0, np.random.default_rng(3), 3) for _ in range(2)]
  np.testing.assert_array_equal(again[0]['video'], again[1]['video'])


def test_windows_longer_than_the_clip_are_refused(folder, tmp_path):
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  source = records.VideoRecords(directory, 'train')
  with pytest.raises(ValueError, match='c.GIF: .* 4 frames, fewer than the 5'):
    source.example(3, np.random.default_rng(0), 5)


def test_opening_what_is_not_there(folder, tmp_path):
  with pytest.raises(ValueError, match=f'{tmp_path} holds no prepared folder'):
    records.VideoRecords(tmp_path, 'train')
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)
  with pytest.raises(ValueError, match="no split 'valid'.*train, test"):
    records.VideoRecords(directory, 'valid')


def test_threads_read_the_same(folder, tmp_path):
  directory = video_folder.prepare(folder, data_dir=tmp_path, **SETTINGS)

  def read(source, i):
    rng = np.random.default_rng(i)
    return levels(source.example(i % 4, rng, 3)['video'])

  alone = records.VideoRecords(directory, 'train')
  expected = [read(alone, i) for i in range(400)]
  # Opened afresh, so that the first reads, too, come at the same time.
  shared = records.VideoRecords(directory, 'train')
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert list(pool.map(lambda i: read(shared, i), range(400))) == expected
