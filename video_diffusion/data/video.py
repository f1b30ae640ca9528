"""Video files as arrays: find, decode, crop and resize.

PyAV is imported when the first file is read, so that this module can be
imported where it is absent.
"""
from collections.abc import Iterator
import os
import pathlib

import numpy as np

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.gif')


class VideoError(ValueError):
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


def find_videos(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the video files in `folder` and below it, sorted by path.

  A video is a file whose suffix, in either case, is one of VIDEO_SUFFIXES.
  """
  return sorted(
      path for path in pathlib.Path(folder).rglob('*')
      if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
  """Decodes the first video stream of a file, frame by frame.

  Args:
    path: a file that libav can read.

  Yields:
    uint8 RGB [height, width, 3] in [0, 255], in the order of presentation,
    turned upright as the file's display matrix asks. Frames are those of the
    stream, at its own and perhaps variable rate. Their size follows the
    stream, which may change it on the way.

  Raises:
    VideoError: the file cannot be opened, holds no video stream or no frame,
      or breaks in mid-stream. The frames before the break have been yielded
      by then: whoever wants whole videos only must drop them.
  """
  import av

  count = 0
  try:
    # libav takes what stands before a colon for a protocol unless the name
    # is absolute. Tags in an old encoding must not make a file unreadable.
    with av.open(os.path.abspath(path), metadata_errors='replace') as container:
      # Stream 0, not libav's "best" stream, which is merely the largest.
      stream = next(iter(container.streams.video), None)
      if stream is None:
        raise VideoError(path, 'it holds no video stream')
      if stream.codec_context is None:
        raise VideoError(path, 'libav has no decoder for its codec')
      stream.codec_context.thread_count = 1
      for frame in container.decode(stream):
        matrix = frame.side_data.get('DISPLAYMATRIX')
        pixels = frame.to_ndarray(format='rgb24')
        yield pixels if matrix is None else upright(
            pixels, np.frombuffer(matrix, np.int32).reshape(3, 3))
        count += 1
  except av.FFmpegError as error:
    after = f' after {count} frames' if count else ''
    raise VideoError(path, f'{error.strerror}{after}') from error
  if not count:
    raise VideoError(path, 'it holds no frames')


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
