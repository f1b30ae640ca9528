"""Kinetics-600 in small: the real CSV header, layouts, gaps, broken files."""
import json
import os

import numpy as np
import pytest

from video_diffusion.data import records
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import kinetics600

for module in ['tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)
av = pytest.importorskip('av')

HEADER = 'label,youtube_id,time_start,time_end,split\n'
SETTINGS = file_plans.Settings(
    height=8, width=8, clip_frames=16, min_frames=8
)
LABELS = ('testifying', 'baking cookies', 'zumba')


def write_clip(path, level, frames=20):
  """A small H.264 clip of plain grey."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=10)
    stream.width, stream.height, stream.pix_fmt = 34, 26, 'yuv420p'
    picture = np.full((26, 34, 3), level, np.uint8)
    for _ in range(frames):
      frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def row(i, split):
  """Clip i of a split: its line of the CSV and its name."""
  youtube_id = f'-{split[:2]}_{i:07d}'
  line = f'{LABELS[i % 3]},{youtube_id},{i},{i + 10},{split}\n'
  return line, f'{youtube_id}_{i:06d}_{i + 10:06d}'


def write_miniature(folder, *, splits=('train', 'val'), count=6):
  """Of each split clips 0 .. count - 1; 2 is missing, 3 broken."""
  for split in splits:
    (folder / f'{split}.csv').parent.mkdir(parents=True, exist_ok=True)
    (folder / f'{split}.csv').write_text(
        HEADER + ''.join(row(i, split)[0] for i in range(count))
    )
    for i in range(count):
      path = folder / split / LABELS[i % 3] / f'{row(i, split)[1]}.mp4'
      if i == 3:
        path.write_text('<html>Video unavailable</html>')
      elif i != 2:
        write_clip(path, 8 * i)
  return folder


def read_all(directory, split):
  """(name, label) of the videos."""
  source = records.VideoRecords(directory, split)
  found = map(source._records.read, range(len(source._records)))
  return [*dict.fromkeys(
      (os.fsdecode(record['file']), int(record['label'])) for record in found
  )]


def read_report(directory):
  return json.loads((directory / 'report.json').read_text())


@pytest.fixture(name='miniature', scope='module')
def miniature_folder(tmp_path_factory):
  return write_miniature(tmp_path_factory.mktemp('kinetics'))


def test_missing_and_broken_clips_are_counted(miniature, tmp_path):
  directory = kinetics600.prepare(miniature, SETTINGS, data_dir=tmp_path)
  report = read_report(directory)
  assert report['class_names'] == sorted(LABELS)
  assert report['splits'] == {'train': 'train.csv', 'test': 'val.csv'}
  assert report['missing'] == 2
  assert report['missing_ids'] == [row(2, 'train')[1], row(2, 'val')[1]]
  assert [each['file'] for each in report['skipped']] == [
      f'{split}/testifying/{row(3, split)[1]}.mp4' for split in ('train', 'val')
  ]
  assert report['files'] == 10 and report['usable'] == 8
  assert report['clips'] == {'train': 8, 'test': 8}  # of 16 and 4 frames
  labels = {'testifying': 1, 'baking cookies': 0, 'zumba': 2}
  for split, csv in (('train', 'train'), ('test', 'val')):
    assert read_all(directory, split) == [
        (f'{csv}/{LABELS[i % 3]}/{row(i, csv)[1]}.mp4', labels[LABELS[i % 3]])
        for i in (0, 1, 4, 5)
    ]
  source = records.VideoRecords(directory, 'train')
  assert source.label_sizes == (3,) and source.summary['missing'] == 2
  # A second call neither needs the clips' content nor reads the CSVs.
  assert kinetics600.prepare(
      miniature, SETTINGS, data_dir=tmp_path) == directory


def test_a_test_csv_with_clips_comes_before_the_validation(tmp_path):
  folder = write_miniature(tmp_path / 'k', splits=('train', 'val', 'test'))
  directory = kinetics600.prepare(folder, SETTINGS, data_dir=tmp_path)
  assert read_report(directory)['splits']['test'] == 'test.csv'
  names = [name for name, _ in read_all(directory, 'test')]
  assert names and all(name.startswith('test/') for name in names)
  # Without its clips, which few people have, it does not.
  (folder / 'test').rename(tmp_path / 'elsewhere')
  directory = kinetics600.prepare(folder, SETTINGS, data_dir=tmp_path)
  assert read_report(directory)['splits']['test'] == 'val.csv'


def test_with_a_training_csv_alone_videos_are_held_out(tmp_path):
  folder = write_miniature(tmp_path / 'k', splits=('train',), count=24)
  directory = kinetics600.prepare(folder, SETTINGS, data_dir=tmp_path)
  assert read_report(directory)['splits'] == {'train': 'train.csv', 'test': ''}
  held = [row(i, 'train')[1] for i in (0, 22)]  # 22 usable, 0 and 20 of them
  assert [name.split('/')[-1][:-4] for name, _ in read_all(directory, 'test')
          ] == held
  assert len(read_all(directory, 'train')) == 20


@pytest.mark.parametrize('name', [
    'train/baking_cookies/aB-_c_000005_000015.mp4',
    'train/aB-_c_000005_000015.mkv',
    'aB-_c_000005_000015.mp4',
    'clips/aB-_c_5_15.webm',
    'train/aB-_c.mp4',
])
def test_layouts_of_downloaders(tmp_path, name):
  (tmp_path / 'annotations').mkdir()
  (tmp_path / 'annotations' / 'kinetics_600_train.csv').write_text(
      HEADER.replace('split', 'split,is_cc')
      + 'baking_cookies,aB-_c,5.0,15.0,train,0\n'
  )
  for decoy in ('train/aB-_c_000006_000016.mp4', 'other.mp4'):
    (tmp_path / decoy).parent.mkdir(exist_ok=True)
    (tmp_path / decoy).touch()
  write_clip(tmp_path / name.replace('.webm', '.mp4'), 90)
  (tmp_path / name.replace('.webm', '.mp4')).rename(tmp_path / name)
  directory = kinetics600.prepare(
      tmp_path, SETTINGS, data_dir=tmp_path / 'data'
  )
  assert read_all(directory, 'train') == [(name, 0)]
  assert read_report(directory)['class_names'] == ['baking cookies']


def test_the_file_in_the_own_folder_is_preferred(tmp_path):
  line, name = row(0, 'train')
  (tmp_path / 'train.csv').write_text(HEADER + line)
  (tmp_path / 'validate.csv').write_text(HEADER + line)
  for folder in ('a', 'train', 'val'):
    write_clip(tmp_path / folder / f'{name}.mp4', 9)
  directory = kinetics600.prepare(
      tmp_path, SETTINGS, data_dir=tmp_path / 'data'
  )
  assert read_all(directory, 'train')[0][0] == f'train/{name}.mp4'
  assert read_all(directory, 'test')[0][0] == f'val/{name}.mp4'


@pytest.mark.parametrize('table, sentence', [
    (None, 'holds no train.csv of Kinetics-600; give the folder with'),
    ('', 'train.csv, line 1: .* the columns label, youtube_id, time_start and '
     'time_end'),
    ('label,id,split\na,b,train\n', "line 1: its columns are 'label', 'id'"),
    (HEADER.replace(',', ';'), 'line 1: .* this line seems to have semicolons'),
    (HEADER + 'a,b,one,11,train\n', 'train.csv, line 2: it must have a label'),
    (HEADER + 'a,b,inf,11,train\n', 'train.csv, line 2: it must have a label'),
    (HEADER + 'a,,1,11,train\n', 'train.csv, line 2: it must have a label'),
    (HEADER + 'a,b\n', 'line 2: it must have the columns .* fewer fields'),
    (HEADER + 'a, or b,c,1,11,train\n',
     'line 2: it has more fields than columns; put quotes around labels'),
    (HEADER + '"a,b,1,11,train\n', 'line 2: a quote opens here and is never'),
    ((HEADER + 'caf\xe9,b,1,11,train\n').encode('cp1252'),
     'line 2: its byte 0xE9 is not UTF-8'),
    (HEADER, 'train.csv names no clips'),
    (HEADER + row(0, 'train')[0],
     f'holds none of the 1 clips .* such as {row(0, "train")[1]}.mp4'),
])
def test_useless_tables_are_named(tmp_path, table, sentence):
  (tmp_path / 'another.mp4').touch()
  if table is not None:
    content = table if isinstance(table, bytes) else table.encode()
    (tmp_path / 'train.csv').write_bytes(content)
  with pytest.raises(ValueError, match=sentence) as error:
    kinetics600.prepare(tmp_path, SETTINGS, data_dir=tmp_path / 'data')
  assert '\n' not in str(error.value)


def test_no_videos_at_all(tmp_path):
  (tmp_path / 'train.csv').write_text(HEADER + row(0, 'train')[0])
  with pytest.raises(ValueError, match='no file that ends in .*; give the'):
    kinetics600.prepare(tmp_path, SETTINGS, data_dir=tmp_path / 'data')


def test_prepares_and_trains_through_main(run_main, miniature, tmp_path):
  flags = [
      '--config=configs/kinetics.py:smoke',
      f'--config.data.path={miniature}',
      f'--config.data.dir={tmp_path / "records"}',
      f'--workdir={tmp_path / "run"}',
      '--config.model.base_channels=8',
      '--config.model.head_dim=8',
      '--config.train.steps=1',
      '--config.sample.num_steps=2',
  ]
  code, output = run_main('--mode=prepare', *flags, tiny=False)
  assert code == 0, output
  table = output[output.index('train'):]
  assert 'missing' in table and '16 x 16' in table, output
  assert not (tmp_path / 'run').exists()
  code, output = run_main(*flags, tiny=False)
  assert code == 0 and 'skipped' not in output, output
  assert 'decoding' not in output
  assert (tmp_path / 'run' / 'samples' / 'step_1.gif').exists()
