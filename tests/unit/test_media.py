import resource

import imageio.v3 as iio
import numpy as np
import pytest

from video_diffusion import media


def clip(t=5, h=16, w=24):
  video = np.zeros((t, h, w, 3), np.uint8)
  for i in range(t):
    video[i, :, : 4 * (i + 1)] = (250, 30, 30)
  return video


def test_to_uint8():
  x = np.array([-2.0, -1.0, -0.6, 0.0, 1.0, 1.5])
  np.testing.assert_array_equal(media.to_uint8(x), [0, 0, 51, 128, 255, 255])


def test_enlarge_is_by_whole_factors():
  video = clip(h=16, w=24)
  big = media.enlarge(video, min_side=48)
  assert big.shape == (5, 32, 48, 3)
  np.testing.assert_array_equal(big[:, ::2, ::2], video)
  assert media.enlarge(video, min_side=8) is not None
  np.testing.assert_array_equal(media.enlarge(video, min_side=8), video)


def test_grid_holds_every_video_in_its_place():
  videos = np.stack([np.full((2, 4, 6, 3), i + 1, np.uint8) for i in range(5)])
  picture = media.grid(videos, columns=3)
  assert picture.shape == (2, 2 * 5 + 1, 3 * 7 + 1, 3)
  for i in range(5):
    y, x = 1 + (i // 3) * 5, 1 + (i % 3) * 7
    assert np.all(picture[:, y : y + 4, x : x + 6] == i + 1)
  assert np.sum(picture == 5) == 2 * 4 * 6 * 3


def test_gif_plays_every_frame_for_ever(tmp_path):
  media.write_gif(tmp_path / 'a.gif', clip(), fps=8)
  back = iio.imread(tmp_path / 'a.gif', plugin='pillow', mode='RGB')
  assert back.shape == clip().shape
  assert np.abs(back.astype(int) - clip()).mean() < 2
  meta = iio.immeta(tmp_path / 'a.gif', plugin='pillow')
  # GIF counts in hundredths of a second.
  assert meta['loop'] == 0 and meta['duration'] in (120, 130)


def test_mp4_can_be_read_back(tmp_path):
  av = pytest.importorskip('av')
  video = media.enlarge(clip(h=17, w=25))
  media.write_mp4(tmp_path / 'a.mp4', video, fps=8)
  with av.open(str(tmp_path / 'a.mp4')) as container:
    stream = container.streams.video[0]
    assert stream.average_rate == 8
    frames = [f.to_ndarray(format='rgb24') for f in container.decode(stream)]
  want = video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]
  assert np.shape(frames) == want.shape
  assert np.abs(np.asarray(frames, int) - want).mean() < 8


class CountingFont:
  """Five pixels a character; counts calls and the characters measured."""

  def __init__(self):
    self.calls, self.characters = 0, 0

  def getlength(self, text):
    self.calls += 1
    self.characters += len(text)
    return 5 * len(text)


@pytest.mark.parametrize('text', [
    '字' * 400, '字' * 100_000, 'word ' * 20_000, 'a' + ' b' * 50_000,
])
def test_wrapping_measures_a_few_lines_however_long_the_text(text):
  font = CountingFont()
  lines = media.wrap(text, width=95, font=font)
  assert len(lines) == media.TEXT_LINES and lines[-1].endswith('..')
  assert all(5 * len(line) <= 95 for line in lines)
  # Characters beyond the lines that are drawn cost nothing.
  assert font.calls < 40 and font.characters < 40 * 40


@pytest.mark.parametrize('text, drawn', [
    ('a "plain" caption, 7!', 'a "plain" caption, 7!'),
    ('a café – Straße', 'a cafe - Strasse'),
    ('cafe\u0301', 'cafe'),  # decomposed, as macOS writes it
    ('红球 rolls', 'HongQiu rolls'),
    ('красный мяч', 'krasnyy myach'),
    ('a \U0001f600 face', 'a :grinning: face'),
    ('a\x00b\u200dc\x1b\ufe0f', 'abc'),
    ('tabs\tand\nlines', 'tabs and lines'),
    ('\ud800 \ue000 \U000e0fff', '? ? ?'),
    ('', ''),
])
def test_letters_that_the_font_lacks_are_transliterated(text, drawn):
  assert media.drawable(text) == drawn


@pytest.mark.parametrize(
    'text', ['红球', 'ΩФש', 'ก', 'é–', '\U0001f600', '\ue000']
)
def test_no_caption_is_drawn_as_boxes(text):
  strip = media.text_strip(text, width=96)
  assert strip.any()
  np.testing.assert_array_equal(
      strip, media.text_strip(media.drawable(text), width=96)
  )
  glyph = lambda c: (media._font().getmask(c).size,
                     bytes(media._font().getmask(c)))
  assert glyph('\U0010ffff') not in map(glyph, media.drawable(text))


@pytest.mark.parametrize('suffix', ['.mp4', '.gif'])
def test_a_full_disk_leaves_no_part_of_a_video(tmp_path, suffix):
  video = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
  write = media.write_mp4 if suffix == '.mp4' else media.write_gif
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(OSError) as error:
      write(tmp_path / f'a{suffix}', video, fps=8)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert error.value.filename == str(tmp_path / f'a{suffix}')
  assert not list(tmp_path.iterdir())
