"""Video and image files as arrays: decode, crop and resize.

PyAV and Pillow are imported when the first file is read, so that this module
can be imported where they are absent.
"""
from collections.abc import Iterator
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.errors import UserError

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.gif')
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# Containers round times, Matroska to a millisecond: a frame counts as shown
# this much before its time, in seconds.
TIME_TOLERANCE = 1e-3
# A longer pause between two frames is taken for a broken time stamp.
LONGEST_PAUSE = 60.0
DEFAULT_RATE = 25.0  # where a file names none


class VideoError(UserError):
  """A video file that cannot be used; the message names the file.

  Attributes:
    reason: what is wrong with the file, without its name.
  """

  def __init__(self, path: str | os.PathLike, reason: str):
    super().__init__(path, reason)  # both, so that it survives pickling
    self.reason = reason

  def __str__(self) -> str:
    path, reason = self.args
    return f'cannot use the video {os.fspath(path)}: {reason}'


class Frame(NamedTuple):
  """A frame of a video.

  Attributes:
    pixels: uint8 RGB [height, width, 3].
    until: seconds from the start of the first frame to the end of this one;
      that of the last frame is the length of the video. 0 for an image.
  """

  pixels: np.ndarray
  until: float


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
  """All frames of the first video stream, in the order of presentation.

  Yields:
    uint8 RGB [height, width, 3]; see `read_timed`, whose errors it has.
  """
  for frame in read_timed(path):
    yield frame.pixels


def read_timed(path: str | os.PathLike, *, fps: float = 0) -> Iterator[Frame]:
  """Decodes a video, or an image as a video of one frame.

  The stream is the first that is not an attached picture (a cover). Frames are
  turned upright as the file's display matrix or EXIF orientation asks.
  Transparent parts are laid over black. Of an animated image that is no GIF
  the first frame counts.

  With `fps`, frame k is the one on show k / fps seconds after the first frame
  began, so each is repeated or left out as its time of presentation asks, at
  variable rates too. A time stamp that is absent, does not grow, or lies more
  than LONGEST_PAUSE ahead, is replaced by the end of the frame before, and
  later ones are shifted to follow it. A frame ends where the next one begins;
  the last one after its duration, or as long as the one before where the file
  gives none.

  Args:
    path: a file that libav, or for IMAGE_SUFFIXES Pillow, can read.
    fps: frames per second; 0 takes all frames of the stream.

  Yields:
    The frames. Their size follows the stream, which may change it on the way.

  Raises:
    VideoError: the file cannot be opened, holds no video stream or no frame,
      or breaks in mid-stream. Frames before the break have been yielded by
      then: whoever wants whole videos only must drop them.
  """
  if pathlib.Path(path).suffix.lower() in IMAGE_SUFFIXES:
    yield Frame(_read_image(path), 0.0)
    return
  count, held = 0, None
  for frame, end in _decode(path):
    pixels = None
    # With fps 0 each frame is shown once, else as often as it takes.
    while not count or not fps or count / fps + TIME_TOLERANCE < end:
      if held is not None:
        yield held
      # Converted only where it is shown: this costs more than decoding.
      pixels = _pixels(frame) if pixels is None else pixels
      held = Frame(pixels, end)
      count += 1
      if not fps:
        break
  yield held._replace(until=end)


def _decode(path) -> Iterator[tuple[Any, float]]:
  """(libav's frame, the second of its end), at least one."""
  import av

  count = 0
  try:
    # libav takes what stands before a colon for a protocol unless the name
    # is absolute. Tags in an old encoding must not make a file unreadable;
    # PyAV has no such argument from 19 on.
    old = int(av.__version__.partition('.')[0]) < 19
    tags = {'metadata_errors': 'replace'} if old else {}
    with av.open(os.path.abspath(path), **tags) as container:
      cover = av.stream.Disposition.attached_pic
      # Not libav's "best" stream, which is merely the largest.
      stream = next(
          (s for s in container.streams.video if not s.disposition & cover),
          None,
      )
      if stream is None:
        raise VideoError(path, 'it holds no video stream')
      if stream.codec_context is None:
        raise VideoError(path, 'libav has no decoder for its codec')
      stream.codec_context.thread_count = 1
      step = 1 / float(stream.average_rate or DEFAULT_RATE)
      clock = _Clock(step)
      held = None  # shown until the next one comes
      for frame in container.decode(stream):
        start = clock.start(frame)
        if held is not None:
          yield held, start
        held = frame
        count += 1
      if held is not None:
        yield held, clock.end()
  except av.FFmpegError as error:
    after = f' after {count} frames' if count else ''
    raise VideoError(path, f'{error.strerror}{after}') from error
  if not count:
    raise VideoError(path, 'it holds no frames')


class _Clock:
  """Times of presentation that always grow, in seconds from the first."""

  def __init__(self, step: float):
    self._step = step  # how long the newest frame is shown, as far as known
    self._origin = self._now = None

  def start(self, frame) -> float:
    time = frame.time
    if self._now is None:
      self._now, self._origin = 0.0, time
    else:
      ahead = None
      if time is not None and self._origin is not None:
        ahead = time - self._origin - self._now
      if ahead is not None and 0 < ahead <= LONGEST_PAUSE:
        self._step = ahead
      elif time is not None:
        # The times that follow go on from here.
        self._origin = time - self._now - self._step
      self._now += self._step
    length = float((frame.duration or 0) * (frame.time_base or 0))
    if 0 < length <= LONGEST_PAUSE:
      self._step = length
    return self._now

  def end(self) -> float:
    return self._now + self._step


def _pixels(frame) -> np.ndarray:
  """libav's frame as uint8 RGB, upright."""
  if any(component.is_alpha for component in frame.format.components):
    pixels = _over_black(frame.to_ndarray(format='rgba'))
  else:
    pixels = frame.to_ndarray(format='rgb24')
  matrix = frame.side_data.get('DISPLAYMATRIX')
  return pixels if matrix is None else upright(
      pixels, np.frombuffer(matrix, np.int32).reshape(3, 3)
  )


def _over_black(rgba: np.ndarray) -> np.ndarray:
  """uint8 [h, w, 4] -> [h, w, 3], each colour weighted by its opacity."""
  colour, opacity = rgba[..., :3].astype(np.uint16), rgba[..., 3:]
  return ((colour * opacity + 127) // 255).astype(np.uint8)


def _read_image(path) -> np.ndarray:
  """uint8 RGB [h, w, 3], upright; 16-bit grey keeps its high bytes."""
  import PIL.Image
  import PIL.ImageOps

  try:
    file = open(path, 'rb')
  except OSError as error:
    raise VideoError(path, error.strerror) from error
  with file:
    try:
      image = PIL.ImageOps.exif_transpose(PIL.Image.open(file))
      if image.mode.startswith('I'):
        grey = np.asarray(image) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
      if image.has_transparency_data:
        return _over_black(np.asarray(image.convert('RGBA')))
      return np.asarray(image.convert('RGB'))
    # Pillow's readers fail each in their own way.
    except Exception as error:
      reason = str(error).replace(repr(file), 'it')
      raise VideoError(path, f'Pillow: {reason}') from None


def upright(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Turns a stored frame the way it is to be shown.

  Args:
    frame: [height, width, 3] as stored.
    matrix: int32 [3, 3], libav's display matrix [[a, b, u], [c, d, v],
      [x, y, w]]: stored (p, q) is shown at (a p + c q, b p + d q), p to the
      right and q down. Turns by a multiple of 90 degrees and mirror images
      are honoured, any other angle goes to the nearest of these.

  Returns:
    The frame [height, width, 3], or [width, height, 3] after a quarter turn.
  """
  (a, b), (c, d) = matrix[:2, :2].tolist()
  if abs(a) + abs(d) < abs(b) + abs(c):
    frame, right, down = frame.swapaxes(0, 1), c, b
  else:
    right, down = a, d
  frame = frame[:, ::-1] if right < 0 else frame
  return np.ascontiguousarray(frame[::-1] if down < 0 else frame)


def resize_and_crop(
    frames: np.ndarray, *, height: int, width: int) -> np.ndarray:
  """Crops to the target's aspect ratio about the centre, then resizes.

  The filter is the area mean: a new pixel is the mean of the source region
  it covers, a pixel on the region's edge counting with its covered share.
  Pillow's BOX agrees at whole factors only: elsewhere it takes pixels whole
  and so shifts parts of the picture. Enlarging repeats pixels.

  Args:
    frames: uint8 [n, h, w, 3] of any size.
    height: rows wanted.
    width: columns wanted.

  Returns:
    uint8 [n, height, width, 3].
  """
  _, h, w, _ = frames.shape
  # The crop keeps fractions of pixels: 1 x 1 can become any size.
  crop_h, crop_w = min(h, w * height / width), min(w, h * width / height)
  margin = int((w - crop_w) / 2)  # not resized for nothing
  resized = _area_mean(frames[:, :, margin:w - margin], 1, crop_h, height)
  return np.rint(_area_mean(resized, 2, crop_w, width)).astype(np.uint8)


def _area_mean(
    x: np.ndarray, axis: int, crop: float, new_size: int) -> np.ndarray:
  """Resizes the `crop` pixels in the middle of `axis` to `new_size` means.

  Sums picked pixels rather than multiplying by a matrix: the matrix is sparse,
  and the threads of a matrix product are slow where cores are shared.
  """
  size = x.shape[axis]
  edges = (size - crop) / 2 + np.linspace(0, crop, new_size + 1)
  first = edges[:-1].astype(int)
  mean = 0
  for i in range(int(np.ceil(crop / new_size)) + 1):
    pixel = first + i
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    share = np.maximum(covered, 0).astype(np.float32) * (new_size / crop)
    mean += np.expand_dims(share, tuple(range(1, x.ndim - axis))) * np.take(
        x, np.minimum(pixel, size - 1), axis)
  return mean
