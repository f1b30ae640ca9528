"""MP4, GIF and grids of videos, uint8 [time, height, width, 3]."""
from collections.abc import Sequence
import fractions
import importlib.util
import io
import math
import os
import pathlib

import numpy as np

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
  """At most TEXT_LINES lines within `width` pixels; what is cut ends in '..'.

  Broken between words, and within those that are wider than a line.
  """
  lines, left = [], text.split()
  while left:
    line = left.pop(0)
    while left and font.getlength(f'{line} {left[0]}') <= width:
      line += ' ' + left.pop(0)
    kept = line
    while font.getlength(kept) > width and len(kept) > 1:
      kept = kept[:-1]
    if kept != line:
      left.insert(0, line[len(kept) :])
    lines.append(kept)
  if len(lines) > TEXT_LINES:
    lines = lines[:TEXT_LINES]
    while len(lines[-1]) > 1 and font.getlength(lines[-1] + '..') > width:
      lines[-1] = lines[-1][:-1]
    lines[-1] += '..'
  return lines


def text_strip(text: str, *, width: int) -> np.ndarray:
  """uint8 [height, width, 3]: a strip with the text, white on black.

  Its height is that of TEXT_LINES lines, whatever the text.
  """
  from PIL import Image
  from PIL import ImageDraw
  from PIL import ImageFont

  font = ImageFont.load_default(size=11)
  strip = Image.new('RGB', (width, 13 * TEXT_LINES + 3))
  lines = wrap(text, width=width - 4, font=font)
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


def encode_gif(video: np.ndarray, *, fps: float) -> bytes:
  """An endless animated GIF."""
  import imageio.v3 as iio

  buffer = io.BytesIO()
  iio.imwrite(
      buffer, video, extension='.gif', plugin='pillow', duration=1000 / fps,
      loop=0,
  )
  return buffer.getvalue()


def write_gif(path: str | os.PathLike, video: np.ndarray, *, fps: float):
  """Writes an endless animated GIF."""
  pathlib.Path(path).write_bytes(encode_gif(video, fps=fps))


def write_mp4(
    path: str | os.PathLike, video: np.ndarray, *, fps: float, comment: str = ''
):
  """Writes an H.264 MP4 (MPEG-4 part 2 by OpenCV where PyAV is absent).

  Odd sides lose their last row or column: both codecs need even ones.

  Args:
    path: of the file.
    video: uint8 [time, height, width, 3].
    fps: frames a second.
    comment: kept in the file's metadata, which OpenCV cannot write.
  """
  t, h, w, _ = video.shape
  video = np.ascontiguousarray(video[:, : h - h % 2, : w - w % 2])
  if importlib.util.find_spec('av') is None:
    import cv2

    size = (video.shape[2], video.shape[1])
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    out = cv2.VideoWriter(str(path), codec, fps, size)
    for frame in video:
      out.write(frame[:, :, ::-1])
    out.release()
    return
  import av

  with av.open(str(path), 'w') as container:
    if comment:
      container.metadata['comment'] = comment
    rate = fractions.Fraction(fps).limit_denominator(1001)
    stream = container.add_stream('libx264', rate=rate)
    stream.height, stream.width = video.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.options = {'crf': '16'}
    for frame in video:
      frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
