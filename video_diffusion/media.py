"""MP4, GIF and grids of videos, uint8 [time, height, width, 3]."""
import bisect
from collections.abc import Sequence
import fractions
import functools
import importlib.util
import io
import math
import unicodedata

from etils import epath
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.filesystem import files

# In the files that are written here: their frames lie as far apart as those of
# the run's clips, whatever their rate of presentation.
MARK = 'Written by video_diffusion'
# Of ITU-T H.273, as libav has them.
_BT709, _BT601, _LIMITED = 1, 6, 1
HD_WIDTH, HD_HEIGHT = 1280, 720  # as in data/colour.py
MIN_SIDE = 128  # pixels; smaller videos are enlarged to look at
TEXT_LINES = 3


def to_uint8(x: np.ndarray) -> np.ndarray:
  """float [-1, 1] -> uint8 [0, 255], rounded; values outside are clipped."""
  x = np.asarray(x, np.float32)
  return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def enlarge(video: np.ndarray, min_side: int = MIN_SIDE) -> np.ndarray:
  """Nearest-neighbour zoom by a whole factor until a side is min_side."""
  zoom = max(1, math.ceil(min_side / max(video.shape[-3:-1])))
  return video.repeat(zoom, axis=-3).repeat(zoom, axis=-2)


def grid(videos: np.ndarray, *, columns: int | None = None) -> np.ndarray:
  """uint8 [n, t, h, w, 3] -> one [t, H, W, 3], row by row, with thin gaps.

  Args:
    videos: of one size.
    columns: by default the nearest to a square.
  """
  n, t, h, w, c = videos.shape
  columns = columns or math.ceil(math.sqrt(n))
  rows = math.ceil(n / columns)
  gap = max(1, h // 32)
  canvas = np.full(
      (t, rows * (h + gap) + gap, columns * (w + gap) + gap, c), 64, np.uint8
  )
  for i, video in enumerate(videos):
    y = gap + (i // columns) * (h + gap)
    x = gap + (i % columns) * (w + gap)
    canvas[:, y : y + h, x : x + w] = video
  return canvas


def wrap(text: str, *, width: int, font) -> list[str]:
  """Breaks a text into at most TEXT_LINES lines of `width` pixels.

  Lines break between words, and within words that are wider than a line. A
  text that needs more lines is cut and ends in '..'. The time is linear in the
  length of the text.
  """
  lines, left = [], ' '.join(text.split())
  while left and len(lines) < TEXT_LINES:
    end = _fitting(left, width, font)
    if end < len(left) and left[end] != ' ':
      last_space = left.rfind(' ', 0, end)
      end = last_space if last_space > 0 else end
    lines.append(left[:end].rstrip())
    left = left[end:].lstrip()
  if left:
    width -= math.ceil(font.getlength('..'))
    lines[-1] = lines[-1][: _fitting(lines[-1], width, font)] + '..'
  return lines


def _fitting(text: str, width: float, font) -> int:
  """How many characters from the start of a text fit; at least one.

  A line holds few characters of a long text, so the number is doubled until it
  is too large, and then bisected.
  """
  most = 16
  while most < len(text) and font.getlength(text[:most]) <= width:
    most *= 2
  counts = range(1, min(most, len(text)) + 1)
  length = lambda count: font.getlength(text[:count])
  return max(1, bisect.bisect_right(counts, width, key=length))


def drawable(text: str) -> str:
  """A text whose every letter the font of `text_strip` has.

  Letters that the font would show as boxes are transliterated to ASCII
  ('cafe', 'HongQiu', ':grinning:'). Control characters, and marks without a
  counterpart, are left out; any other character becomes '?'.
  """
  text = unicodedata.normalize('NFC', ' '.join(text.split()))
  return ''.join(map(_drawable_character, text))


@functools.lru_cache(maxsize=2**16)
def _drawable_character(character: str) -> str:
  import anyascii

  font = _font()
  glyph = lambda c: (font.getmask(c).size, bytes(font.getmask(c)))
  # U+10FFFF stands for no letter: fonts show it as they show what they lack.
  if character.isprintable() and glyph(character) != glyph('\U0010ffff'):
    return character
  category = unicodedata.category(character)
  if category in ('Cc', 'Cf'):
    return ''
  return anyascii.anyascii(character) or ('' if category[0] == 'M' else '?')


@functools.cache
def _font():
  """The font of all captions: Pillow's own, which has little beyond ASCII."""
  from PIL import ImageFont

  return ImageFont.load_default(size=11)


def text_strip(text: str, *, width: int) -> np.ndarray:
  """uint8 [height, width, 3]: a strip with the text, white on black.

  Its height is that of TEXT_LINES lines, whatever the text. Letters that the
  font lacks are transliterated, see `drawable`.
  """
  from PIL import Image
  from PIL import ImageDraw

  font = _font()
  strip = Image.new('RGB', (width, 13 * TEXT_LINES + 3))
  lines = wrap(drawable(text), width=width - 4, font=font)
  drawing = ImageDraw.Draw(strip)
  drawing.multiline_text((2, 0), '\n'.join(lines), font=font, spacing=1)
  return np.asarray(strip)


def with_texts(videos: np.ndarray, texts: Sequence[str]) -> np.ndarray:
  """uint8 [n, t, h, w, 3] with a text beneath each; as they are without texts.

  Enlarged first, so that there is room to write.
  """
  if not texts:
    return videos
  videos = enlarge(videos, min_side=96)
  n, t, h, w, c = videos.shape
  strips = np.stack([text_strip(text, width=w) for text in texts])
  strips = np.broadcast_to(strips[:, None], (n, t, *strips.shape[1:]))
  return np.concatenate([videos, strips], axis=2)


def write_video(
    path: epath.PathLike, video: np.ndarray, *, fps: float = 8.0
) -> None:
  """Writes a video, or a grid of several, enlarged where it is small.

  Args:
    path: ends in .mp4 or .gif.
    video: uint8 [frames, height, width, 3], or [n, frames, height, width, 3].
    fps: frames per second.

  Raises:
    ArgumentError: the path ends otherwise, or the video has another type or
      shape.
  """
  path, video = epath.Path(path), np.asarray(video)
  if path.suffix not in ('.mp4', '.gif'):
    raise ArgumentError(
        Argument('path'), f' is {str(path)!r}; it must end in .mp4 or .gif.'
    )
  if (
      video.dtype != np.uint8
      or video.ndim not in (4, 5)
      or video.shape[-1] != 3
      or not video.size
  ):
    raise ArgumentError(
        Argument('video'), f' is {video.dtype} {list(video.shape)}; it must '
        'be uint8 [frames, height, width, 3], or several of such.',
    )
  video = enlarge(grid(video) if video.ndim == 5 else video)
  write = write_mp4 if path.suffix == '.mp4' else write_gif
  write(path, video, fps=fps)


def encode_gif(video: np.ndarray, *, fps: float) -> bytes:
  """An endless animated GIF, with MARK as its comment."""
  import imageio.v3 as iio

  buffer = io.BytesIO()
  iio.imwrite(
      buffer, video, extension='.gif', plugin='pillow', duration=1000 / fps,
      loop=0, comment=MARK.encode(),
  )
  return buffer.getvalue()


def write_gif(path: epath.PathLike, video: np.ndarray, *, fps: float):
  """Writes an endless animated GIF, local or to gs://, whole or not at all."""
  files.write(path, encode_gif(video, fps=fps))


def write_mp4(
    path: epath.PathLike, video: np.ndarray, *, fps: float, comment: str = ''
):
  """Writes an H.264 MP4, local or to gs://, whole or not at all.

  Its colours are tagged: limited range, the primaries and transfer of BT.709,
  and the matrix that players assume where they do not look, BT.709's for
  frames at least HD_WIDTH wide or HD_HEIGHT high and BT.601's for smaller ones.
  MARK is its description. Odd sides lose their last row or column: the codec
  needs even ones.

  Where PyAV is absent OpenCV writes it, as MPEG-4 part 2. Such a file has no
  tags and BT.601's matrix, so that players may show other colours where frames
  are large, neither MARK nor comment, and browsers do not play it.

  Args:
    path: of the file.
    video: uint8 [time, height, width, 3], sRGB.
    fps: frames a second.
    comment: kept in the file's metadata.
  """
  t, h, w, _ = video.shape
  video = np.ascontiguousarray(video[:, : h - h % 2, : w - w % 2])
  with files.writing(path) as part:
    if importlib.util.find_spec('av') is None:
      _write_by_opencv(part, video, fps)
    else:
      _write_by_pyav(part, video, fps, comment)


def _write_by_opencv(path, video, fps):
  import cv2

  size = (video.shape[2], video.shape[1])
  codec = cv2.VideoWriter_fourcc(*'mp4v')
  out = cv2.VideoWriter(str(path), codec, fps, size)
  for frame in video:
    out.write(frame[:, :, ::-1])
  out.release()


def _write_by_pyav(path, video, fps, comment):
  import av
  from av.video.reformatter import Colorspace
  from av.video.reformatter import Interpolation

  flags = (
      Interpolation.BILINEAR | Interpolation.ACCURATE_RND
      | Interpolation.FULL_CHR_H_INP
  )
  with av.open(str(path), 'w') as container:
    container.metadata['description'] = MARK
    if comment:
      container.metadata['comment'] = comment
    rate = fractions.Fraction(fps).limit_denominator(1001)
    stream = container.add_stream('libx264', rate=rate)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.options = {'crf': '16'}
    hd = stream.width >= HD_WIDTH or stream.height >= HD_HEIGHT
    context = stream.codec_context
    context.colorspace = _BT709 if hd else _BT601
    context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    for frame in video:
      frame = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(
          format='yuv420p', dst_color_range=_LIMITED, interpolation=flags,
          dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
      )
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
