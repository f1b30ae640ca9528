"""A file that claims more than it may hold costs nothing and is named."""
import json
import resource
import struct
import time
import zlib

import numpy as np
import pytest

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import video
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import video_folder

av = pytest.importorskip('av')
image = pytest.importorskip('PIL.Image')


def huge_gif(*, side, frames):
  """A GIF of `frames` frames of one pixel each on a canvas of side x side."""
  frame = (
      b'\x21\xf9\x04\x00\x0a\x00\x00\x00'  # a tenth of a second
      b'\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00'
  )
  head = b'GIF89a' + struct.pack('<HH', side, side) + b'\x80\x00\x00'
  return head + b'\x00\x00\x00\xff\xff\xff' + frame * frames + b';'


def huge_png(*, side):
  """A black PNG, as small as it can be."""

  def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack(
        '>I', check)

  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  rows = zlib.compressobj(9)
  content = b''.join(rows.compress(bytes(1 + 3 * side)) for _ in range(side))
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(
      b'IDAT', content + rows.flush()) + chunk(b'IEND', b'')


def write_video(path, frames, *, side=16, rate=10, codec='mpeg4'):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate)
    stream.width = stream.height = side
    stream.pix_fmt = 'yuv420p'
    picture = np.zeros((side, side, 3), np.uint8)
    for _ in range(frames):
      container.mux(
          stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
    container.mux(stream.encode())
  return path


def reason(path, **options):
  count = 0
  with pytest.raises(limits_lib.LimitError) as caught:
    for _ in video.read_timed(path, **options):
      count += 1
  return caught.value.reason, count


@pytest.mark.parametrize('name, content, sentence', [
    ('a.gif', huge_gif(side=4000, frames=2000),
     'its 46020 bytes become 32000000000 pixels or more, above '
     'data.max_pixels_per_byte, 100000'),
    ('a.png', huge_png(side=9000),
     'its frames have 9000 x 9000 pixels, more than data.max_pixels, 67108864'),
    ('a.png', huge_png(side=16000)[:4000],
     'it has more pixels than data.max_pixels, 67108864'),
    ('a.gif', huge_gif(side=60_000, frames=1),
     'after 0 frames libav refuses one, perhaps for its size, which '
     'data.max_pixels, 67108864, limits'),
])
def test_headers_are_enough(tmp_path, name, content, sentence):
  """In about no time and memory, at the size that was seen."""
  path = tmp_path / name
  path.write_bytes(content)
  assert len(content) < 10**6
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start = time.process_time()
  assert reason(path) == (sentence, 0)
  assert time.process_time() - start < 5
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.ts', '.avi', '.gif'])
@pytest.mark.parametrize('limits, sentence', [
    (dict(pixels=255), 'its frames have 16 x 16 pixels, more than '
     'data.max_pixels, 255'),
    (dict(frames=19), 'it has 20 frames or more, above data.max_frames, 19'),
    (dict(seconds=1.5), 'it lasts 2 s or more, above data.max_seconds, 1.5'),
])
def test_each_limit(tmp_path, suffix, limits, sentence):
  path = tmp_path / f'a{suffix}'
  if suffix == '.gif':
    path.write_bytes(huge_gif(side=16, frames=20))
  else:
    write_video(path, 20, codec='mpeg2video' if suffix == '.ts' else 'mpeg4',
                rate=25 if suffix == '.ts' else 10)
  if suffix == '.ts' and 'seconds' in limits:
    limits, sentence = {'seconds': 0.5}, 'above data.max_seconds, 0.5'
  found, count = reason(path, limits=limits_lib.Limits(**limits))
  assert found.endswith(sentence) and count < 20
  enough = limits_lib.Limits(pixels=256, frames=20, seconds=2.5)
  assert len(list(video.read_timed(path, limits=enough))) == 20


def test_small_files_that_become_large(tmp_path, monkeypatch):
  """Counted as it is decoded where the header tells no number of frames."""
  monkeypatch.setattr(limits_lib, 'FREE_PIXELS', 64 * 64 * 10)
  path = write_video(tmp_path / 'a.mkv', 60, side=64)
  size = path.stat().st_size
  found, count = reason(path, limits=limits_lib.Limits(pixels_per_byte=1))
  most = max(size, limits_lib.FREE_PIXELS) // 64**2
  assert most - 2 <= count <= most
  assert found.startswith(f'its {size} bytes become')
  assert len(list(video.read_timed(
      path, limits=limits_lib.Limits(pixels_per_byte=64**2)))) == 60


def test_frames_that_are_repeated_count(tmp_path):
  path = write_video(tmp_path / 'a.mkv', 20)
  found, count = reason(path, fps=100, limits=limits_lib.Limits(frames=50))
  assert 'above data.max_frames, 50' in found and count <= 50


def test_the_report_names_the_limit_and_a_higher_one_admits(tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  write_video(folder / 'long.mkv', 30)
  write_video(folder / 'short.mkv', 10)

  def prepare(frames):
    settings = file_plans.Settings(
        height=8, width=8, clip_frames=4, min_frames=2,
        limits=limits_lib.Limits(frames=frames))
    directory = video_folder.prepare(
        folder, settings, data_dir=tmp_path / 'data')
    return json.loads((directory / 'report.json').read_text())

  skipped = [{
      'file': 'long.mkv',
      'reason': 'it has 21 frames or more, above data.max_frames, 20',
  }]
  first = prepare(20)
  assert first['skipped'] == skipped and first['usable'] == 1
  assert prepare(40)['usable'] == 2
  # What was decoded under a higher limit is refused by a lower one.
  again = prepare(20)['skipped']
  assert [each['file'] for each in again] == ['long.mkv']


def test_the_fields_are_those_of_the_config():
  data = defaults_lib.get_config().data
  assert limits_lib.from_fields(data) == limits_lib.DEFAULT
