"""Files decoded by one call, by an array of calls and by Apache Beam.

The records are the same byte for byte, whoever decoded and whoever died of it.
"""
import collections
import concurrent.futures
import errno
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from unittest import mock

import numpy as np
import pytest

from tests.support import poisoned
from tests.support.paths import ROOT
from tests.support.poisoned import plan_of
from tests.support.waiting import until
from video_diffusion.data import processes
from video_diffusion.data import record_writer
from video_diffusion.data import storage
from video_diffusion.data.builders import beam
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import shard_files
from video_diffusion.data.builders import shards
from video_diffusion.data.builders import staging
from video_diffusion.data.builders import video_files
from video_diffusion.data.builders import video_folder
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

for module in ['av', 'tensorflow_datasets', 'array_record']:
  pytest.importorskip(module)
image = pytest.importorskip('PIL.Image')


@pytest.fixture(autouse=True, scope='module')
def small_shards():
  """Not in the processes that pack: what a shard holds is written down."""
  with mock.patch.object(record_writer, 'FEWEST_CLIPS', poisoned.FEWEST_CLIPS):
    yield


@pytest.fixture(name='folder', scope='module')
def videos_and_broken_files(tmp_path_factory):
  """Read by all tests, and changed by none."""
  folder = tmp_path_factory.mktemp('videos')
  for i in range(24):
    frames = [
        image.fromarray(np.full((12, 16), 9 * i + j, np.uint8))
        for j in range(5 + i % 9)
    ]
    frames[0].save(
        folder / f'{i:02d}.gif', save_all=True, append_images=frames[1:],
        duration=100,
    )
  (folder / '03.gif').write_bytes(b'crash')
  (folder / '08.gif').write_bytes(b'hang')
  (folder / '11.gif').write_bytes(b'GIF89a but no more')
  (folder / '15.gif').write_bytes((folder / '14.gif').read_bytes()[:60])
  (folder / '20.gif').unlink()
  (folder / '20.gif').symlink_to('nowhere.gif')
  return folder


def content(data_dir):
  """Name -> bytes of all files of the records below a folder."""
  return {
      path.relative_to(data_dir).as_posix(): path.read_bytes()
      for path in sorted(pathlib.Path(data_dir, 'video_folder').rglob('*'))
      if path.is_file()
  }


@pytest.fixture(name='one', scope='module')
def folder_of_one_call(tmp_path_factory):
  return tmp_path_factory.mktemp('one')


@pytest.fixture(name='decoded')
def plan_whose_files_are_decoded(folder, expected, one, tmp_path):
  shutil.copytree(one / 'decoded', tmp_path / 'decoded')
  return plan_of(folder, tmp_path)


@pytest.fixture(name='expected', scope='module')
def records_of_one_call(folder, one):
  """The records, checked for the reasons that the report gives."""
  data_dir = one
  directory = video_files.pack(plan_of(folder, data_dir))
  report = json.loads((directory / 'report.json').read_text())
  reasons = {each['file']: each['reason'] for each in report['skipped']}
  assert reasons.keys() == {f'{i:02d}.gif' for i in (3, 8, 11, 15, 20)}
  assert reasons['03.gif'] == 'the decoder crashed (SIGSEGV)'
  assert reasons['08.gif'] == 'the decoder gave no frame for 3 s'
  assert report['usable'] == 19
  assert len([*directory.glob('*train*')]) == 11
  return content(data_dir)


def test_shares_are_of_the_names_alone(folder, tmp_path):
  plan = plan_of(folder, tmp_path / 'a')
  shares = [plan.share(i, 3) for i in range(3)]
  assert sorted(sum(shares, [])) == list(range(24)) and all(shares)
  assert plan.share(0, 1) == list(range(24))
  half = plan._replace(files=plan.files[::2])
  names = [half.files[i].name for i in half.share(1, 3)]
  assert names == [
      plan.files[i].name for i in shares[1] if plan.files[i] in half.files
  ]
  counts = collections.Counter(
      file_plans.share_of(f'{i}.mp4', 10) for i in range(10_000)
  )
  assert sorted(counts) == list(range(10))
  assert all(850 < count < 1150 for count in counts.values())
  # The first k of n shares are a fraction of k / n, whatever else there is.
  assert file_plans.of_fraction(plan.files, 1 / 3) == [
      plan.files[i] for i in shares[0]
  ]
  two_thirds = file_plans.of_fraction(plan.files, 2 / 3)
  assert {*two_thirds} == {plan.files[i] for i in shares[0] + shares[1]}
  assert file_plans.of_fraction(half.files, 2 / 3) == [
      file for file in two_thirds if file in half.files
  ]
  assert file_plans.of_fraction(plan.files, 1) == plan.files
  with pytest.raises(ArgumentError, match='^fraction is 1e-09, and none'):
    file_plans.of_fraction(plan.files, 1e-9)
  # Where the files say their split, a fraction has some of both.
  split = [
      file._replace(split='train' if file in two_thirds else 'test')
      for file in plan.files
  ]
  assert {f.split for f in file_plans.of_fraction(split, 0.9)} == {
      'train', 'test'
  }
  with pytest.raises(ArgumentError, match="^fraction is 0.5, .* of 'test' be"):
    file_plans.of_fraction(split, 0.5)
  # A new version must share as the one that began.
  first = [file_plans.share_of(f'{i}.mp4', 10) for i in range(5)]
  assert first == [0, 8, 6, 8, 3]


def has_lines(path, number):
  return path.exists() and len(path.read_text().split()) >= number


SCRIPT = '''
import sys
from tests.support import poisoned
if __name__ == '__main__':
  poisoned.{}(poisoned.plan_of(*sys.argv[1:3], patience=1000))
'''


def kill_twice(decode, folder, data_dir):
  """Calls `decode` in a process that is killed at its fourth file, twice."""
  data_dir.mkdir(exist_ok=True)
  (data_dir / 'script.py').write_text(SCRIPT.format(decode.__name__))
  for log in (data_dir / 'first', data_dir / 'second'):
    process = subprocess.Popen(
        [sys.executable, data_dir / 'script.py', folder, data_dir],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'READ_LOG': str(log)},
        start_new_session=True,
    )
    until(functools.partial(has_lines, log, 4), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_an_array_whose_task_was_killed_twice(folder, tmp_path, expected):
  data_dir = tmp_path / 'array'
  kill_twice(poisoned.decode_first_share, folder, data_dir)
  for task in (2, 0, 1):
    plan = plan_of(folder, data_dir)
    plan.decode(plan.share(task, 3), part=f'{task}-of-3')
  # A reason that may pass is not remembered: a limit, and a link to nothing.
  left = plan_of(folder, data_dir).undecoded()
  assert left == [11, 20]
  video_files.pack(plan_of(folder, data_dir))
  assert content(data_dir) == expected


def test_a_packing_that_was_killed_twice(folder, tmp_path, expected, decoded):
  kill_twice(poisoned.pack, folder, tmp_path)
  written = {
      path: path.stat().st_mtime_ns
      for path in tmp_path.rglob('[!.]*.array_record-*')
  }
  assert len(written) == 4  # 11.gif was tried once more, and counts
  with (
      mock.patch.object(
          files, 'flush_folder',
          lambda folder: None if 'part' in str(folder) else full(),
      ),
      pytest.raises(storage.StorageError, match='No space left'),
  ):
    video_files.pack(decoded)  # when it makes records of the shards
  assert all(path.stat().st_mtime_ns == written[path] for path in written)
  # Nothing is written again, but for a shard whose file was cut.
  cut = next(iter(written))
  cut.write_bytes(cut.read_bytes()[:-1])
  with mock.patch.object(
      record_writer.Writer, 'write', autospec=True,
      side_effect=record_writer.Writer.write,
  ) as write:
    directory = video_files.pack(decoded)
  assert len(write.mock_calls) == 1
  assert all(
      (directory / path.name).stat().st_mtime_ns == written[path]
      for path in written if path != cut
  )
  assert content(tmp_path) == expected
  assert [*directory.parent.iterdir()] == [directory]


def full():
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_fraction_is_a_data_set_of_its_own_while_the_rest_is_decoded(
    folder, tmp_path, expected
):
  part = plan_of(folder, tmp_path, fraction=1 / 3)
  part.decode(range(len(part.files)))
  directory = video_files.pack(part)
  report = json.loads((directory / 'report.json').read_text())
  assert 2 < report['files'] == len(part.files) < 12
  assert len(plan_of(folder, tmp_path).undecoded()) >= 24 - report['files']
  whole = video_files.pack(plan_of(folder, tmp_path))
  whole_report = json.loads((whole / 'report.json').read_text())
  assert whole_report['content'] != report['content']
  # It is found again, by its listing, and is what it was.
  again = video_folder.plan(
      folder, poisoned.SETTINGS, data_dir=tmp_path, fraction=1 / 3
  )
  assert again == directory
  assert json.loads((again / 'report.json').read_text()) == report
  assert expected.items() <= content(tmp_path).items()


def test_calls_that_pack_at_once_share_the_shards(
    tmp_path, expected, decoded, monkeypatch
):
  began, writes = threading.Barrier(2, timeout=60), []
  write = record_writer.Writer.write

  def write_after_both_began(self, path, clips):
    path.touch()
    if len(writes) < 2:
      writes.append(path)
      began.wait()
    else:
      writes.append(path)
    return write(self, path, clips)

  monkeypatch.setattr(record_writer.Writer, 'write', write_after_both_began)
  monkeypatch.setattr(shards, 'SHARDS_OF_POOL', 100)
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first, second = pool.map(video_files.pack, [decoded, decoded])
  assert first == second and content(tmp_path) == expected
  # Both may begin the first at once, and the last ones.
  assert len(writes) < 1.5 * len([*first.glob('*.array_record-*')])


def test_a_shard_that_another_process_has_begun(tmp_path):
  final = tmp_path / 'records' / 'video_folder-train.array_record-00003'
  final.parent.mkdir()
  with files.writing(final, parts=tmp_path) as part:
    part.touch()
    assert shard_files.is_begun(tmp_path, 'train-00003')
    for other in ('test-00003', 'train-00004'):
      assert not shard_files.is_begun(tmp_path, other)
    os.utime(part, (0, 0))
    assert not shard_files.is_begun(tmp_path, 'train-00003')
  assert final.exists() and not shard_files.is_begun(tmp_path, 'train-00003')


def test_a_process_that_packs_and_is_killed_is_a_sentence(
    decoded, monkeypatch
):
  monkeypatch.setattr(shards, 'SHARDS_OF_POOL', 1)
  monkeypatch.setattr(processes, 'usable_cores', lambda: 2)
  monkeypatch.setattr(shards, 'write_unless_begun', poisoned.die)
  with pytest.raises(UserError, match='the shard .*SIGKILL.* goes on with'):
    video_files.pack(decoded)


@pytest.mark.parametrize('mode', ['multi_threading', 'multi_processing'])
def test_beam_whose_decoder_was_killed_twice(
    folder, tmp_path, expected, monkeypatch, mode
):
  pytest.importorskip('apache_beam')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('KILL_LOG', str(tmp_path / 'kills'))
  monkeypatch.setattr(beam, 'FEWEST_BATCHES', 6)
  data_dir = tmp_path / 'beam'
  options = (
      f'--runner={beam.LOCAL_RUNNER} --direct_num_workers=4 '
      f'--direct_running_mode={mode}'
  )
  beam.decode(plan_of(folder, data_dir), options)
  # Killed in the pool and then alone, it is left to the packing.
  assert has_lines(tmp_path / 'kills', 2)
  assert plan_of(folder, data_dir).undecoded() == [5, 11, 20]
  monkeypatch.setattr(shards, 'write_here', None)  # Beam packs all of them
  beam.prepare(plan_of(folder, data_dir), options)
  assert content(data_dir) == expected
  assert not [*data_dir.rglob('*.todo')]


def test_beam_whose_workers_find_a_bucket_and_no_folder(
    folder, tmp_path, expected, monkeypatch
):
  """The bucket is a folder, which Beam's file systems read as they read gs://.

  It is mounted by a link, through which no worker reads a video.
  """
  pytest.importorskip('apache_beam')
  monkeypatch.setattr(beam, 'FEWEST_BATCHES', 6)
  shutil.copytree(folder, tmp_path / 'bucket' / 'videos', symlinks=True)
  mount = tmp_path / 'mount'
  mount.symlink_to('bucket')
  bucket = staging.parse(f'{mount}={tmp_path}/bucket')
  options = f'--runner={beam.LOCAL_RUNNER}'
  plan = plan_of(mount / 'videos', mount / 'data')
  with mock.patch.dict(os.environ, HIDDEN=str(mount)):
    beam.decode(plan, options, bucket)
  left = plan.undecoded()
  assert left == [11, 20]
  monkeypatch.setattr(shards, 'write_here', None)  # Beam packs all of them
  beam.prepare(plan, options, bucket)
  found, wanted = content(mount / 'data'), dict(expected)
  for records in (found, wanted):  # but for what says of which folder they are
    del records[next(name for name in records if name.endswith('.listing'))]
  assert found == wanted
  assert not [*tmp_path.rglob('*.todo')]
  with pytest.raises(ArgumentError, match='^bucket says where .*/one.* is not'):
    beam.prepare(plan_of(folder, tmp_path / 'one'), options, bucket)


@pytest.mark.parametrize('place, sentence', [
    ('{}/nowhere', 'says that workers find .*/nowhere/.*it is not there'),
    ('none://name', 'says that workers find .* as none://name, but none://name/'
     'data/.*Unable to get filesystem'),
    ('{}/bucket', 'has workers copy .* copy .*/bucket/videos/.*No such file'),
])
def test_buckets_that_workers_do_not_find(
    folder, tmp_path, capfd, place, sentence
):
  pytest.importorskip('apache_beam')
  mount = tmp_path / 'mount'
  for path in (mount, tmp_path / 'bucket' / 'data'):
    path.mkdir(parents=True)
  (mount / 'data').symlink_to(tmp_path / 'bucket' / 'data')
  (mount / 'videos').symlink_to(folder)
  bucket = staging.parse(f'{mount}={place.format(tmp_path)}')
  with pytest.raises(staging.BucketError, match=f'^bucket {sentence}'):
    beam.decode(plan_of(mount / 'videos', mount / 'data'), '', bucket)
  assert 'Traceback' not in ''.join(capfd.readouterr())
  assert not [*tmp_path.rglob('*.todo')]


def test_a_shard_that_is_in_the_bucket_is_not_written(tmp_path):
  pytest.importorskip('apache_beam')
  (tmp_path / 'train-00000.written').touch()
  write = functools.partial(
      staging.write_shard, data_dir='gone', folder=str(tmp_path), write=None
  )
  write('train-00000')
  with pytest.raises(staging.BucketError, match='cannot copy .*form.json'):
    write('train-00001')


def test_where_workers_find_what_lies_in_a_bucket():
  bucket = staging.parse('/mnt/b=gs://name/')
  assert bucket.of('/mnt/b/data/x y') == 'gs://name/data/x y'
  for path in ('/mnt/bc', '/mnt/b', '/mnt/b/../c'):
    with pytest.raises(ArgumentError, match=f'^bucket says .* {path[:4]}'):
      bucket.of(path)
  assert staging.parse('') is None


@pytest.mark.parametrize('text', ['gs://b', '/m', 'm=gs://b', '/m=b', '=gs://b'])
def test_buckets_of_another_form(text):
  with pytest.raises(ArgumentError, match='^bucket is .* must be /FOLDER=gs:'):
    staging.parse(text)


def test_beam_whose_driver_was_killed_twice(folder, tmp_path, expected):
  pytest.importorskip('apache_beam')
  data_dir = tmp_path / 'beam'
  kill_twice(poisoned.decode_by_beam, folder, data_dir)
  left = plan_of(folder, data_dir).undecoded()
  assert 5 < len(left) < 24  # it goes on with these
  for lines in data_dir.rglob('*.todo'):
    os.utime(lines, (0, 0))  # they are deleted when they are old
  poisoned.decode_by_beam(plan_of(folder, data_dir))
  assert plan_of(folder, data_dir).undecoded() == [11, 20]
  video_files.pack(plan_of(folder, data_dir))
  assert content(data_dir) == expected
  assert not [*data_dir.glob('video_folder/*.todo')]


@pytest.mark.parametrize('mode', ['multi_threading', 'multi_processing'])
def test_a_folder_that_workers_of_beam_cannot_write(
    folder, tmp_path, monkeypatch, capfd, mode
):
  pytest.importorskip('apache_beam')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  (tmp_path / 'decoded').write_text('a file where a folder is wanted')
  with pytest.raises(storage.StorageError) as error:
    beam.decode(
        plan_of(folder, tmp_path),
        f'--runner={beam.LOCAL_RUNNER} --direct_num_workers=2 '
        f'--direct_running_mode={mode}',
    )
  assert str(error.value) == (
      f'dir cannot be written ({tmp_path}/decoded: File exists); set it to a '
      'folder that can be written.'
  )
  assert 'Traceback' not in ''.join(capfd.readouterr())
  assert not [*tmp_path.glob('video_folder/*.todo')]


def test_beam_is_named_where_it_is_not_installed(
    folder, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  with pytest.raises(UserError, match=r'not installed .*video_diffusion\[beam'):
    beam.decode(plan_of(folder, tmp_path / 'beam'), '')


def test_runners_whose_workers_are_of_this_machine():
  pytest.importorskip('apache_beam')
  for local in ('', '--runner=DirectRunner', f'--runner={beam.LOCAL_RUNNER}'):
    assert beam.is_local(local)
  assert not beam.is_local('--runner=FlinkRunner --flink_master=host:8081')


@pytest.mark.parametrize('options, sentence', [
    ('--runner="X', 'is .*quot'),
    ('--direct_num_workers=x', "is .*; argument .* invalid int value: 'x'\\."),
    ('--runner=DataflowRunner', 'has the runner DataflowRunner, whose workers '
     'share no folder .* videos and of dir here by gcsfuse and set bucket=/F'),
])
def test_options_that_beam_or_we_refuse(
    folder, tmp_path, capfd, options, sentence
):
  pytest.importorskip('apache_beam')
  with pytest.raises(ArgumentError, match=f'^beam_options {sentence}'):
    beam.decode(plan_of(folder, tmp_path / 'beam'), options)
  assert 'usage' not in capfd.readouterr().err
