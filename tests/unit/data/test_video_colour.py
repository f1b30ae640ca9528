"""Decoded frames against the known pictures of generated clips."""
from fractions import Fraction
import itertools
import re
import struct

import numpy as np
import pytest

from tests.support.paths import DATA
from video_diffusion.data import video

pytest.importorskip('av')

from tests.support import colour_clips  # noqa: E402

FAULTS = DATA / 'faults'
needs_faults = pytest.mark.skipif(
    not FAULTS.is_dir(), reason='no clips in shared/data/faults')

X264 = dict(codec='libx264', suffix='.mp4', crf='4')
X265 = {'codec': 'libx265', 'suffix': '.mp4',
        'x265-params': 'crf=4:log-level=1'}
VP9 = dict(codec='libvpx-vp9', suffix='.webm', crf='4', deadline='realtime')
FFV1 = dict(codec='ffv1', suffix='.mkv')
INTERLACED = X264 | {'x264-params': 'interlaced=1:tff=1'}
HDR = dict(matrix=9, primaries=9, bits=10)


def case(name, **fields):
  return pytest.param(fields, id=name)


CASES = [
    case(f'matrix {matrix}, {"full" if full else "limited"}, {bits} bits, '
         f'{codec["codec"]}', matrix=matrix, full=full, bits=bits, **codec)
    for matrix, full, (bits, codec) in itertools.product(
        (1, 5, 6, 9), (False, True),
        ((8, FFV1), (10, FFV1), (8, X264), (10, X265), (8, VP9)))
    if matrix != 9
] + [
    # The matrix of BT.2020 with the primaries of BT.709.
    case(f'BT.2020 matrix, {bits} bits', matrix=9, primaries=1, bits=bits,
         **FFV1) for bits in (8, 10)
] + [
    case(f'pixels {aspect}, {codec["suffix"]}', matrix=6, aspect=aspect,
         **codec)
    for aspect in ('1/2', '3/4', '16/15', '4/3', '2')
    for codec in (X264, X264 | dict(suffix='.mkv'), X264 | dict(suffix='.ts'),
                  dict(codec='mpeg4', suffix='.avi', qmin='1', qmax='1'))
] + [
    case(f'turned by {90 * turns}, pixels {aspect}', matrix=6, turns=turns,
         aspect=aspect, **X264)
    for turns in (1, 2, 3) for aspect in ('1', '2')
] + [
    case(f'interlaced, matrix {matrix}, full {full}', matrix=matrix, full=full,
         note='deinterlaced', **INTERLACED)
    for matrix in (1, 6) for full in (False, True)
] + [
    case(f'{dynamic}, {codec["codec"]}, full {full}', dynamic=dynamic,
         full=full, note='' if dynamic == 'bt2020' else 'HDR', **HDR, **codec)
    for dynamic in ('bt2020', 'pq', 'hlg') for codec in (FFV1, X265, X264)
    for full in (False, True)
] + [
    case('HLG, wide pixels, turned, interlaced', dynamic='hlg', aspect='4/3',
         turns=1, note='HDR', **HDR, **INTERLACED),
    # What one tag tells of the others.
    case('BT.2020 by its matrix', dynamic='bt2020', matrix=9, bits=10,
         primaries=None, transfer=None, **FFV1),
    case('PQ by its transfer', dynamic='pq', matrix=9, tagged_matrix=None,
         bits=10, primaries=None, note='HDR', **FFV1),
    # Sizes of which the most players take BT.709 or BT.601.
    case('HD without tags', matrix=1, tagged_matrix=None, tag_range=False,
         size=(720, 1280), **X264),
    case('wide film without tags', matrix=1, tagged_matrix=None,
         tag_range=False, size=(544, 1280), **X264),
    case('upright film without tags', matrix=1, tagged_matrix=None,
         tag_range=False, size=(1280, 720), **X264),
    case('SD without tags', matrix=6, tagged_matrix=None, tag_range=False,
         size=(576, 720), **X264),
    case('motion JPEG', matrix=6, tagged_matrix=None, full=True, codec='mjpeg',
         suffix='.avi', qmin='1', qmax='1', size=(720, 1280)),
    case('codec of RGB', dynamic='rgb', codec='libx264rgb', suffix='.mkv',
         crf='0'),
]


@pytest.mark.parametrize('fields', CASES)
def test_flat_patches(tmp_path, fields):
  """Within 3 levels of the picture; 10 where HDR was mapped."""
  fields = dict(bits=8, full=False, dynamic='sdr', turns=0, size=(64, 128),
                note='', aspect=None, primaries=None) | fields
  dynamic, turns, bits = (fields.pop(k) for k in ('dynamic', 'turns', 'bits'))
  height, width = fields.pop('size')
  if turns % 2 and height < width:
    height, width = width, height
  note, suffix = fields.pop('note'), fields.pop('suffix')
  # Stored turned back, so that it is shown upright.
  picture = colour_clips.flat_patches(height, width, -turns)
  if dynamic == 'rgb':
    frames = [rgb_frame(picture) for _ in range(3)]
  else:
    coded = colour_clips.planes(
        picture, matrix=fields['matrix'], full=fields['full'], bits=bits,
        dynamic=dynamic)
    frames = [colour_clips.frame(coded, bits=bits) for _ in range(3)]
    for frame in frames:
      if fields['codec'] == 'mjpeg':
        frame.color_range = 2
  if 'tagged_matrix' in fields:
    fields['matrix'] = fields.pop('tagged_matrix')
  if dynamic in colour_clips.WIDE:
    fields = dict(transfer=colour_clips.WIDE[dynamic][0]) | fields
  colour_clips.write(
      tmp_path / f'a{suffix}', frames, rotation=90 * turns, **fields)

  found = list(video.read_timed(tmp_path / f'a{suffix}'))
  assert len(found) == 3
  aspect = float(Fraction(fields['aspect'] or 1))
  stored = height * max(1, 1 / aspect), width * max(1, aspect)
  shown = stored[::-1] if turns % 2 else stored
  worst = 10 if dynamic in ('pq', 'hlg') else 3
  for frame in found:
    np.testing.assert_allclose(frame.pixels.shape[:2], shown, atol=0.5)
    np.testing.assert_allclose(
        colour_clips.middles(frame.pixels), colour_clips.PATCHES, atol=worst)
    assert note in ' '.join(frame.notes) and bool(note) == bool(frame.notes)


def rgb_frame(picture):
  import av

  return av.VideoFrame.from_ndarray(picture.astype(np.uint8), format='rgb24')


@pytest.mark.parametrize('dynamic', ['hlg', 'hlg_luminance', 'pq'])
def test_reference_white_and_pure_colours_of_hdr(tmp_path, dynamic):
  """Whichever way HLG's system gamma was applied."""
  pure = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255),
                   (128, 128, 128), (255, 255, 0), (0, 255, 255), (0, 0, 0)])
  picture = pure.reshape(2, 4, 3).repeat(32, 0).repeat(32, 1)
  coded = colour_clips.planes(
      picture, matrix=9, full=False, bits=10, dynamic=dynamic)
  colour_clips.write(
      tmp_path / 'a.mkv', [colour_clips.frame(coded, bits=10)], matrix=9,
      primaries=9, transfer=colour_clips.WIDE[dynamic][0])
  found, = video.read_frames(tmp_path / 'a.mkv')
  np.testing.assert_allclose(
      colour_clips.middles(found), pure.reshape(2, 4, 3), atol=10)


def test_what_is_brighter_than_white_is_white(tmp_path):
  picture = np.full((32, 32, 3), 255 * (1000 / 203) ** (1 / 2.4))
  coded = colour_clips.planes(
      picture, matrix=9, full=False, bits=10, dynamic='pq')
  colour_clips.write(
      tmp_path / 'a.mkv', [colour_clips.frame(coded, bits=10)], matrix=9,
      primaries=9, transfer=16)
  found, = video.read_frames(tmp_path / 'a.mkv')
  assert found.min() == 255


@pytest.mark.parametrize('dynamic, matrix, bits', [
    ('sdr', 6, 8), ('bt2020', 9, 10), ('hlg', 9, 10), ('pq', 9, 10)])
def test_colours_beside_opacity(tmp_path, dynamic, matrix, bits):
  """The same colours where a frame is opaque, and black where it is not."""
  picture = colour_clips.flat_patches(64, 128)
  coded = colour_clips.planes(
      picture, matrix=matrix, full=False, bits=bits, dynamic=dynamic)
  opacity = np.zeros((64, 128), int)
  opacity[:, :64] = 2**bits - 1
  tags = {} if dynamic == 'sdr' else dict(
      primaries=9, transfer=colour_clips.WIDE[dynamic][0])
  colour_clips.write(
      tmp_path / 'a.mkv', [colour_clips.frame([*coded, opacity], bits=bits)],
      matrix=matrix, **tags)
  found, = video.read_frames(tmp_path / 'a.mkv')
  wanted = colour_clips.PATCHES * [[[1], [1], [0], [0]]]
  np.testing.assert_allclose(colour_clips.middles(found), wanted, atol=10)


@needs_faults
def test_white_of_hlg_is_white():
  frame, = {f.pixels.tobytes(): f for f in video.read_timed(
      FAULTS / 'hlg_white.mp4')}.values()
  assert frame.pixels.min() >= 245
  assert frame.notes == ('HDR (HLG), shown in standard dynamic range',)


def test_a_matrix_that_is_not_read_is_named(tmp_path):
  coded = colour_clips.planes(
      colour_clips.flat_patches(64, 128), matrix=9, full=False, bits=10)
  colour_clips.write(
      tmp_path / 'a.mkv', [colour_clips.frame(coded, bits=10)], matrix=14)
  with pytest.raises(video.VideoError, match=re.escape(
      'a.mkv: its colours are coded as ICtCp, which is not read')):
    list(video.read_frames(tmp_path / 'a.mkv'))


def disc(height, width):
  """A white disc on black that touches no side, grey levels [h, w]."""
  y, x = np.mgrid[:height, :width] + 0.5
  inside = (y / height - 0.5) ** 2 + (x / width - 0.5) ** 2 < 0.3**2
  return inside * 255


def extents(picture):
  """(columns, rows) that the disc spans, by its mean along each axis."""
  bright = picture[..., 0].astype(float) / 255
  return bright.max(0).sum(), bright.max(1).sum()


@pytest.mark.parametrize('size', [(64, 64), (32, 64), (64, 48)])
@pytest.mark.parametrize('aspect', ['1/2', '2/3', '1', '64/45', '2'])
def test_a_circle_stays_a_circle(tmp_path, aspect, size):
  rows, columns = 120, round(120 / Fraction(aspect))
  columns -= columns % 2
  grey = np.repeat(disc(rows, columns)[..., None], 3, axis=-1)
  coded = colour_clips.planes(grey, matrix=6, full=False, bits=8)
  colour_clips.write(
      tmp_path / 'a.mp4', [colour_clips.frame(coded, bits=8)], codec='libx264',
      matrix=6, aspect=aspect)
  found, = video.read_frames(tmp_path / 'a.mp4')
  small = video.resize_and_crop(found[None], height=size[0], width=size[1])[0]
  wide, high = extents(small)
  if min(size) == size[0] == size[1] or size == (64, 48):
    assert abs(wide - high) <= 1.5
  else:  # the crop keeps the middle half of the rows
    assert high == pytest.approx(32, abs=1) and wide == pytest.approx(38, abs=2)


@needs_faults
def test_the_circle_of_wide_pixels():
  found = next(video.read_frames(FAULTS / 'sar2.mp4'))
  small = video.resize_and_crop(found[None], height=64, width=64)[0]
  wide, high = extents(small)
  assert abs(wide - high) <= 2


def pixel_aspect_clip(path, container):
  """An MP4 whose container has another pixel aspect than its codec, 4:3."""
  coded = colour_clips.planes(
      colour_clips.flat_patches(64, 128), matrix=6, full=False, bits=8)
  colour_clips.write(
      path, [colour_clips.frame(coded, bits=8)], codec='libx264', matrix=6,
      aspect='4/3')
  content = path.read_bytes()
  old = b'pasp' + struct.pack('>ii', 4, 3)
  assert content.count(old) == 1
  new = b'pasp' + struct.pack('>ii', *container)
  path.write_bytes(content.replace(old, new))
  return next(video.read_timed(path))


def test_the_container_comes_before_the_codec(tmp_path):
  frame = pixel_aspect_clip(tmp_path / 'a.mp4', (2, 1))
  assert frame.pixels.shape == (64, 256, 3) and not frame.notes


@pytest.mark.parametrize('ratio', [(1, 1000), (1000, 1), (5, 1)])
def test_an_absurd_aspect_is_passed_over_and_said(tmp_path, ratio):
  frame = pixel_aspect_clip(tmp_path / 'a.mp4', ratio)
  assert frame.pixels.shape == (64, 128, 3)
  assert frame.notes == (
      f'pixels of {ratio[0]}:{ratio[1]}, taken for square ones',)


def combing(picture):
  """Mean difference of a line from its neighbours, in levels."""
  return np.abs(np.diff(picture[..., 1].astype(int), 2, axis=0)).mean()


def moving_bar(tmp_path, count=8, **options):
  """A bar that moves by 16 columns from one field to the next."""
  frames = []
  for i in range(count):
    grey = np.full((64, 256), 40)
    for field in range(2):
      left = 16 * (2 * i + field) % 208
      grey[field::2, left : left + 32] = 220
    coded = colour_clips.planes(
        np.repeat(grey[..., None], 3, axis=-1), matrix=6, full=False, bits=8)
    frames.append(colour_clips.frame(coded, bits=8))
  colour_clips.write(tmp_path / 'a.mp4', frames, matrix=6, **options)
  return list(video.read_timed(tmp_path / 'a.mp4'))


def test_interlaced_frames_are_deinterlaced_one_for_one(tmp_path):
  options = {k: v for k, v in INTERLACED.items() if k != 'suffix'}
  plain = moving_bar(tmp_path, codec='libx264', crf='4')
  found = moving_bar(tmp_path, **options)
  assert len(found) == len(plain) == 8
  assert [f.until for f in found] == pytest.approx([f.until for f in plain])
  assert np.mean([combing(f.pixels) for f in plain]) > 20
  assert max(combing(f.pixels) for f in found[1:-1]) < 4
  assert found[0].notes == ('deinterlaced',)
  assert not plain[0].notes


@needs_faults
def test_fields_of_a_file_are_separated():
  found = list(video.read_timed(FAULTS / 'interlaced.mp4'))
  assert len(found) == 8 and found[-1].until == pytest.approx(0.32)
  assert max(combing(f.pixels) for f in found) < 1
