"""video.py: frames as ffmpeg gives them, upright, at their times."""
from fractions import Fraction
import itertools
import pickle

import numpy as np
import pytest

from tests.support.paths import DATA
from video_diffusion.data import containers
from video_diffusion.data import video

av = pytest.importorskip('av')

CLIPS = DATA / 'clips'
needs_clips = pytest.mark.skipif(
    not CLIPS.is_dir(), reason='the clips for the decode tests are not there')


def write_video(path, frames, **display):
  """Writes uint8 [n, h, w, 3], if asked with a rotation in the container."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=10)
    _, stream.height, stream.width, _ = frames.shape
    stream.pix_fmt = 'yuv420p'
    stream.bit_rate = 4_000_000
    if display:
      stream.set_display_rotation(**display)
    for frame in frames:
      container.mux(
          stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
    container.mux(stream.encode())


def quadrants(levels, *, height=48, width=64):
  """Grey [3, height, width, 3] of four levels: two above, two below."""
  frame = np.kron(
      np.reshape(levels, (2, 2)), np.ones((height // 2, width // 2)))
  return np.tile(frame[None, :, :, None].astype(np.uint8), (3, 1, 1, 3))


@needs_clips
def test_frames_equal_those_of_ffmpeg():
  reference = np.load(CLIPS / 'nasa_13013_reference_frames.npz')
  indices = reference['stream0_frame_index'].tolist()
  wanted = reference['stream0_frames']
  decoded = itertools.islice(
      containers.decode(CLIPS / 'nasa_13013.mp4'), max(indices) + 1)
  frames = [each.frame.to_ndarray(format='rgb24') for each in decoded]
  np.testing.assert_array_equal(
      np.stack([frames[i] for i in indices]), wanted)
  # The reader's colours are more precise than ffmpeg's own defaults, and the
  # colour differences are interpolated: at edges single pixels differ.
  frames = list(itertools.islice(
      video.read_frames(CLIPS / 'nasa_13013.mp4'), max(indices) + 1))
  small = [
      video.resize_and_crop(x, height=45, width=80).astype(int)
      for x in (np.stack([frames[i] for i in indices]), wanted)]
  difference = np.abs(small[0] - small[1])
  assert difference.max() <= 20 and difference.mean() <= 1


@needs_clips
@pytest.mark.parametrize('name, shape', [
    ('big_buck_bunny_432_433.webm', (24, 720, 1280, 3)),
    ('h265_video.mp4', (10, 128, 128, 3)),
    ('nasa_mpeg4.avi', (96, 180, 320, 3)),
    ('nasa_vfr.mp4', (60, 180, 320, 3)),
    ('rotation_0.mov', (3, 320, 568, 3)),
    ('test_video_66x50.mov', (82, 50, 66, 3)),
    ('tiny_1x1.mp4', (5, 1, 1, 3)),
])
def test_reads_containers_and_codecs(name, shape):
  count = 0
  for frame in video.read_frames(CLIPS / name):
    assert frame.dtype == np.uint8 and frame.shape == shape[1:]
    count += 1
  assert count == shape[0]


@needs_clips
def test_break_in_mid_stream_is_an_error():
  count = 0
  with pytest.raises(video.VideoError, match='corrupted.mp4.*after 28 frames'):
    for _ in video.read_frames(CLIPS / 'corrupted.mp4'):
      count += 1
  assert 20 < count <= 28


def test_reads_gif(tmp_path):
  image = pytest.importorskip('PIL.Image')
  frames = np.stack([quadrants([i, 0, 100, 255])[0] for i in range(5)])
  first, *others = [image.fromarray(frame) for frame in frames]
  first.save(tmp_path / 'a.gif', save_all=True, append_images=others)
  np.testing.assert_array_equal(
      list(video.read_frames(tmp_path / 'a.gif')), frames)


@pytest.mark.parametrize('suffix', ['.mp4', '.mov'])
@pytest.mark.parametrize('display, levels, shape', [
    # Stored 250 170 / 90 10; degrees turn it against the clock.
    (dict(degrees=90), [170, 10, 250, 90], (64, 48, 3)),
    (dict(degrees=180), [10, 90, 170, 250], (48, 64, 3)),
    (dict(degrees=270), [90, 250, 10, 170], (64, 48, 3)),
    (dict(degrees=0, hflip=True), [170, 250, 10, 90], (48, 64, 3)),
    (dict(degrees=0, vflip=True), [90, 10, 250, 170], (48, 64, 3)),
    (dict(degrees=90, hflip=True), [10, 170, 90, 250], (64, 48, 3)),
])
def test_turned_clips_come_out_upright(
    tmp_path, suffix, display, levels, shape):
  path = tmp_path / f'a{suffix}'
  write_video(path, quadrants([250, 170, 90, 10]), **display)
  frames = list(video.read_frames(path))
  assert len(frames) == 3
  assert frames[0].shape == shape and frames[0].flags.c_contiguous
  got = video.resize_and_crop(frames[0][None], height=2, width=2)[0, :, :, 0]
  # The corners are 80 apart, the crop and the codec move them by less.
  np.testing.assert_allclose(got.ravel().astype(int), levels, atol=20)


def test_identity_matrix_changes_nothing():
  frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
  np.testing.assert_array_equal(
      video.upright(frame, np.diag([65536, 65536, 2**30])), frame)


@pytest.mark.parametrize('content, reason', [
    (b'', 'Invalid data'), (b'a text file\n' * 40, 'Invalid data'),
    (None, 'No such file')])
def test_useless_files_are_named(tmp_path, content, reason):
  path = tmp_path / 'clip.mp4'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(video.VideoError) as caught:
    next(video.read_frames(path))
  assert str(path) in str(caught.value) and reason in caught.value.reason
  assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_file_without_video_stream(tmp_path):
  path = tmp_path / 'sound.mp4'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=44100)
    frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
    frame.rate = 44100
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(video.VideoError, match='sound.mp4.*no video stream'):
    next(video.read_frames(path))


def test_unknown_codec(tmp_path):
  path = tmp_path / 'new.avi'
  write_video(path, quadrants([250, 170, 90, 10]))
  path.write_bytes(path.read_bytes().replace(b'FMP4', b'zzzz'))
  with pytest.raises(video.VideoError, match='new.avi.*no decoder'):
    next(video.read_frames(path))


def test_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_video(tmp_path / 'http:a.avi', quadrants([250, 170, 90, 10]))
  assert len(list(video.read_frames('http:a.avi'))) == 3


class Stamped:
  """As a frame of libav, with a time of presentation and a duration."""

  time_base = Fraction(1, 1000)

  def __init__(self, number, milliseconds, duration=None):
    self.number, self.duration = number, duration
    self.time = None if milliseconds is None else milliseconds / 1000


@pytest.fixture(name='shown')
def frames_on_show(monkeypatch):
  """(fps, (time, duration) of each frame in ms) -> numbers, length in s."""

  def show(fps, stamps, rate=25):
    clock = containers._Clock(1 / rate)
    frames = [Stamped(i, *stamp) for i, stamp in enumerate(stamps)]
    starts = [clock.start(frame) for frame in frames]
    ends = [*starts[1:], clock.end()]
    monkeypatch.setattr(
        containers, 'decode', lambda *_: map(
            containers.Decoded, frames, ends, frames, frames))
    monkeypatch.setattr(
        video, '_convert',
        lambda _, decoded: video.Frame(decoded.frame.number, decoded.end))
    found = list(video.read_timed('a.mp4', fps=fps))
    return [frame.pixels for frame in found], found[-1].until

  return show


@pytest.mark.parametrize('fps, stamps, numbers, seconds', [
    # 25 frames a second, all and every second one, and each twice.
    (25, [(40 * i, 40) for i in range(4)], [0, 1, 2, 3], 0.16),
    (12.5, [(40 * i, 40) for i in range(5)], [0, 2, 4], 0.2),
    (50, [(40 * i, 40) for i in range(2)], [0, 0, 1, 1], 0.08),
    # Matroska's rounding loses no frame.
    (30, [(t, 33) for t in (0, 33, 67, 100, 133, 167)], [0, 1, 2, 3, 4, 5], .2),
    # A variable rate: each frame for as long as it is shown.
    (10, [(0, 0), (300, 0), (350, 0), (500, 0)], [0, 0, 0, 1, 2, 3, 3], 0.65),
    # The first time need not be zero, nor be known.
    (10, [(7000, 100), (7100, 100)], [0, 1], 0.2),
    (10, [(None, 100), (None, 100), (None, 100)], [0, 1, 2], 0.3),
    (25, [(None, None), (None, None)], [0, 1], 0.08),
    # One that is absent, repeated, earlier, or hours ahead.
    (10, [(0, 100), (None, 100), (200, 100)], [0, 1, 2], 0.3),
    (10, [(0, 100), (0, 100), (100, 100)], [0, 1, 2], 0.3),
    (10, [(500, 100), (100, 100), (200, 100)], [0, 1, 2], 0.3),
    (10, [(0, 100), (10**8, 100), (10**8 + 100, 100)], [0, 1, 2], 0.3),
    # A frame at least, though it ends before the tolerance.
    (10, [(0, 1)], [0], 0.001),
    (0, [(0, 40), (400, 40)], [0, 1], 0.44),
])
def test_frames_by_time_of_presentation(shown, fps, stamps, numbers, seconds):
  found, until = shown(fps, stamps)
  assert found == numbers
  assert until == pytest.approx(seconds)


@needs_clips
@pytest.mark.parametrize('name, fps, count, seconds', [
    ('nasa_13013.mp4', 5, 65, 13.0),
    ('nasa_vfr.mp4', 10, 38, 3.8),
    ('test_video_66x50.mov', 30, 41, 82 / 60),
    ('tiny_1x1.mp4', 2, 10, 5.0),
    ('big_buck_bunny_432_433.webm', 12, 12, 1.0),
])
def test_real_clips_at_a_rate(name, fps, count, seconds):
  frames = list(video.read_timed(CLIPS / name, fps=fps))
  assert len(frames) == count
  assert frames[-1].until == pytest.approx(seconds, abs=2e-3)


@needs_clips
def test_a_variable_rate_shows_what_was_on_show():
  frames = list(video.read_frames(CLIPS / 'nasa_vfr.mp4'))
  # Frames 0 .. 4 come at 0, 200, 220, 287, 354 ms.
  at_ten = list(video.read_timed(CLIPS / 'nasa_vfr.mp4', fps=10))
  for number, frame in zip([0, 0, 1, 3], at_ten, strict=False):
    np.testing.assert_array_equal(frame.pixels, frames[number])


def test_transparent_parts_are_black(tmp_path):
  image = pytest.importorskip('PIL.Image')
  rgba = np.zeros((2, 4, 4), np.uint8)
  rgba[..., :3] = 200
  rgba[:, :, 3] = [0, 51, 255, 255]
  image.fromarray(rgba).save(tmp_path / 'a.png')
  found, = video.read_frames(tmp_path / 'a.png')
  assert found[0, :, 1].tolist() == [0, 40, 200, 200]
  with av.open(str(tmp_path / 'a.mov'), 'w') as container:
    stream = container.add_stream('qtrle', rate=10)
    stream.width, stream.height, stream.pix_fmt = 4, 2, 'argb'
    frame = av.VideoFrame.from_ndarray(rgba, format='rgba')
    container.mux(stream.encode(frame.reformat(format='argb')))
    container.mux(stream.encode())
  film, = video.read_frames(tmp_path / 'a.mov')
  np.testing.assert_array_equal(film, found)


def test_ten_bits_and_odd_sizes(tmp_path):
  path = tmp_path / 'a.mkv'
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('ffv1', rate=10)
    stream.width, stream.height, stream.pix_fmt = 67, 33, 'yuv420p10le'
    frame = av.VideoFrame.from_ndarray(
        np.full((33, 67, 3), 128, np.uint8), format='rgb24')
    container.mux(stream.encode(frame.reformat(format='yuv420p10le')))
    container.mux(stream.encode())
  found, = video.read_frames(path)
  assert found.shape == (33, 67, 3) and abs(found.astype(int) - 128).max() <= 2


def test_a_cover_is_no_video(tmp_path):
  path = tmp_path / 'song.mp4'
  with av.open(str(path), 'w') as container:
    cover = container.add_stream('png')
    cover.width, cover.height, cover.pix_fmt = 16, 8, 'rgb24'
    cover.disposition = av.stream.Disposition.attached_pic
    song = container.add_stream('aac', rate=44100)
    sound = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
    sound.rate = 44100
    picture = av.VideoFrame.from_ndarray(
        np.zeros((8, 16, 3), np.uint8), format='rgb24')
    for stream, frame in [(cover, picture), (song, sound)]:
      container.mux(stream.encode(frame))
      container.mux(stream.encode())
  with av.open(str(path)) as container:
    assert len(container.streams.video) == 1
  with pytest.raises(video.VideoError, match='song.mp4.*no video stream'):
    list(video.read_frames(path))


@pytest.mark.parametrize('suffix', video.IMAGE_SUFFIXES)
def test_images_are_videos_of_one_frame(tmp_path, suffix):
  image = pytest.importorskip('PIL.Image')
  pixels = quadrants([250, 170, 90, 10])[0]
  image.fromarray(pixels).save(tmp_path / f'a{suffix}')
  frame, = video.read_timed(tmp_path / f'a{suffix}', fps=3)
  assert frame.until == 0 and frame.pixels.shape == pixels.shape
  assert abs(frame.pixels.astype(int) - pixels).mean() < 3


def test_images_of_every_mode(tmp_path):
  image = pytest.importorskip('PIL.Image')
  pixels = quadrants([250, 170, 90, 10])[0]
  grey = image.fromarray(pixels[..., 0])
  grey.convert('P').save(tmp_path / 'palette.png')
  image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(
      tmp_path / 'sixteen.png')
  exif = image.Exif()
  exif[0x0112] = 6  # turn it by 90 degrees with the clock
  turned = image.fromarray(np.rot90(pixels))
  turned.save(tmp_path / 'turned.png', exif=exif)
  for name in ['palette', 'sixteen', 'turned']:
    found, = video.read_frames(tmp_path / f'{name}.png')
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize('content', [b'', b'a text file', None])
def test_useless_images_are_named(tmp_path, content):
  pytest.importorskip('PIL.Image')
  if content is not None:
    (tmp_path / 'a.png').write_bytes(content)
  with pytest.raises(video.VideoError) as caught:
    list(video.read_frames(tmp_path / 'a.png'))
  assert 'a.png' in str(caught.value)
  # Whether the system would not open it: then the reason may pass.
  assert isinstance(caught.value.__cause__, OSError) == (content is None)
  wanted = 'No such file' if content is None else 'cannot identify image file'
  assert wanted in caught.value.reason and 'Buffered' not in caught.value.reason


TEXTS = {
    'text': 'The quick brown fox jumps over the lazy dog.\n' * 20,
    'concat': 'ffconcat version 1.0\nfile other.mp4\nfile other.mp4\n',
    'playlist': '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n'
                '#EXT-X-ENDLIST\n',
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\n'
           'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    'dash': '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
            'type="static" mediaPresentationDuration="PT1S"><Period>'
            '<AdaptationSet><Representation id="0"><BaseURL>other.mp4</BaseURL>'
            '</Representation></AdaptationSet></Period></MPD>',
    'subtitles': '1\n00:00:00,000 --> 00:00:01,000\nother.mp4\n\n' * 9,
    'asx': '<ASX version="3.0"><ENTRY><REF href="other.mp4"/></ENTRY></ASX>',
    'lines': '[Reference]\nRef1=http://127.0.0.1:9/other.mp4\n',
    'typescript': 'export const video: string = "other.mp4";\n' * 40,
}


@pytest.mark.parametrize('suffix', ['.mp4', '.ts', '.mov', '.txt', ''])
@pytest.mark.parametrize('kind', TEXTS)
def test_texts_and_scripts_are_no_video(tmp_path, kind, suffix, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_video(tmp_path / 'other.mp4', quadrants([250, 170, 90, 10]))
  (tmp_path / f'a{suffix}').write_text(TEXTS[kind])
  with pytest.raises(video.VideoError, match='Invalid data'):
    list(video.read_frames(tmp_path / f'a{suffix}'))


def test_pictures_and_scripts_of_other_programs_are_no_images(tmp_path):
  image = pytest.importorskip('PIL.Image')
  picture = image.fromarray(quadrants([250, 170, 90, 10])[0])
  for kind in ('EPS', 'PPM', 'ICO'):
    picture.save(tmp_path / 'a.png', kind)
    with pytest.raises(video.VideoError, match='cannot identify image file'):
      list(video.read_frames(tmp_path / 'a.png'))


@pytest.mark.parametrize('suffix, codec', [
    ('.m4v', 'mpeg4'), ('.mpg', 'mpeg1video'), ('.mpeg', 'mpeg2video'),
    ('.vob', 'mpeg2video'), ('.wmv', 'wmv2'), ('.asf', 'msmpeg4v3'),
    ('.flv', 'libx264'), ('.f4v', 'libx264'), ('.ts', 'mpeg2video'),
    ('.mts', 'libx264'), ('.m2ts', 'libx264'), ('.3gp', 'mpeg4'),
    ('.3g2', 'mpeg4'), ('.mxf', 'mpeg2video'), ('.mkv', 'libx264'),
    ('.nut', 'mpeg4'), ('.m2v', 'mpeg2video'), ('.ivf', 'libvpx-vp9'),
    ('.ogv', 'libvpx'), ('.y4m', 'rawvideo'), ('.divx', 'mpeg4'),
    ('.qt', 'mpeg4'), ('.webm', 'libvpx-vp9'),
])
def test_containers_of_every_suffix(tmp_path, suffix, codec):
  assert suffix in video.VIDEO_SUFFIXES
  kinds = {'.f4v': 'f4v', '.mts': 'mpegts', '.m2ts': 'mpegts', '.y4m':
           'yuv4mpegpipe', '.divx': 'avi', '.qt': 'mov', '.mpeg': 'mpeg'}
  path = tmp_path / f'a{suffix}'
  with av.open(str(path), 'w', format=kinds.get(suffix)) as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 176, 144, 'yuv420p'
    stream.bit_rate = 4_000_000
    for picture in np.repeat(
        quadrants([250, 170, 90, 10], height=144, width=176), 4, axis=0):
      container.mux(stream.encode(
          av.VideoFrame.from_ndarray(picture, format='rgb24')))
    container.mux(stream.encode())
  frames = list(video.read_frames(path))
  assert len(frames) == 12
  small = video.resize_and_crop(frames[0][None], height=2, width=2)[0, :, :, 0]
  np.testing.assert_allclose(
      small.ravel().astype(int), [250, 170, 90, 10], atol=12)


def test_colours_of_images_are_those_of_their_profile(tmp_path):
  image = pytest.importorskip('PIL.Image')
  cms = pytest.importorskip('PIL.ImageCms')
  picture = image.new('RGB', (4, 4), (200, 100, 50))
  profile = cms.ImageCmsProfile(cms.createProfile('sRGB')).tobytes()
  # Red and green change places.
  other = profile.replace(b'rXYZ', b'....').replace(b'gXYZ', b'rXYZ').replace(
      b'....', b'gXYZ')
  for name, content, level in (
      ('same', profile, (200, 100, 50)), ('other', other, (100, 200, 50)),
      ('broken', profile[:200], (200, 100, 50)),
  ):
    picture.save(tmp_path / f'{name}.png', icc_profile=content)
    found, = video.read_frames(tmp_path / f'{name}.png')
    np.testing.assert_allclose(
        found, np.broadcast_to(level, found.shape), atol=2)
