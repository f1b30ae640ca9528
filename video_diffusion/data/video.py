"""Reads video and image files as arrays; crops and resizes them.

PyAV and Pillow are imported when the first file is read, so that this module
can be imported where they are absent.
"""
from collections.abc import Iterator
import os
import pathlib
from typing import NamedTuple

import numpy as np

from video_diffusion.data import colour
from video_diffusion.data import containers
from video_diffusion.data import images
from video_diffusion.data import limits as limits_lib

VIDEO_SUFFIXES = (
    '.mp4', '.m4v', '.mov', '.qt', '.3gp', '.3g2', '.mkv', '.webm', '.avi',
    '.divx', '.gif', '.wmv', '.asf', '.flv', '.f4v', '.mpg', '.mpeg', '.mpe',
    '.m1v', '.m2v', '.vob', '.ts', '.mts', '.m2ts', '.m2t', '.ogv', '.ogg',
    '.mxf', '.dv', '.rm', '.rmvb', '.ivf', '.y4m', '.nut',
)
IMAGE_SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.jfif', '.webp', '.bmp', '.tif', '.tiff', '.avif',
)
VideoError = limits_lib.VideoError


class Frame(NamedTuple):
  """A frame of a video.

  Attributes:
    pixels: uint8 RGB [height, width, 3].
    until: seconds from the start of the first frame to the end of this one;
      that of the last frame is the length of the video. 0 for an image.
    notes: sentences about what was done or passed over, for the report.
  """

  pixels: np.ndarray
  until: float
  notes: tuple[str, ...] = ()


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
  """Returns all frames of the first video stream, in the order of display.

  Yields:
    uint8 RGB [height, width, 3]; see `read_timed`, whose errors it has.
  """
  for frame in read_timed(path):
    yield frame.pixels


def read_timed(
    path: str | os.PathLike,
    *,
    fps: float = 0,
    limits: limits_lib.Limits = limits_lib.DEFAULT,
) -> Iterator[Frame]:
  """Decodes a video, or an image as a video of one frame.

  The stream is the first that is not an attached picture (a cover). Frames are
  turned upright as the file's display matrix or EXIF orientation asks, and have
  square pixels: one side is enlarged where the file tags others. Interlaced
  frames are deinterlaced. Colours are those that the tags of the file mean, see
  `colour`. Transparent parts are laid over black. Of an animated image that is
  no GIF the first frame counts.

  With `fps`, frame k is the one on show k / fps seconds after the first frame
  began, so each is repeated or left out as its time of presentation asks, at
  variable rates too. A time stamp that is absent, does not grow, or lies more
  than LONGEST_PAUSE ahead, is replaced by the end of the frame before, and
  later ones are shifted to follow it. A frame ends where the next one begins;
  the last one after its duration, or as long as the one before where the file
  gives none.

  Args:
    path: a file whose content libav (see `containers.DEMUXERS`), or for
      IMAGE_SUFFIXES Pillow (see `images.FORMATS`), can read.
    fps: frames per second; 0 takes all frames of the stream.
    limits: limits of the file, checked before decoding if its header tells.

  Yields:
    The frames. Their size follows the stream, which may change it on the way.

  Raises:
    VideoError: the file cannot be opened, is no real container, holds no video
      stream or no frame, is beyond a limit, or breaks in mid-stream. Frames
      before the break have been yielded by then: whoever wants whole videos
      only must drop them.
  """
  if _is_image(path):
    yield Frame(images.read(path, limits), 0.0)
    return
  count, held = 0, None
  for decoded in containers.decode(path, limits):
    shown = None
    # With fps 0 each frame is shown once, else as often as it takes.
    while (
        not count or not fps
        or count / fps + containers.TIME_TOLERANCE < decoded.end
    ):
      if held is not None:
        yield held
      # Converted only where it is shown: this costs more than decoding.
      shown = _convert(path, decoded) if shown is None else shown
      held = shown
      count += 1
      limits.check(path, frames=count)
      if not fps:
        break
  yield held._replace(until=decoded.end)


def description(path: str | os.PathLike) -> str:
  """Returns the description in the metadata of a video file, or ''.

  Raises:
    VideoError: see `read_timed`.
  """
  return '' if _is_image(path) else containers.description(path)


def _is_image(path):
  return pathlib.Path(path).suffix.lower() in IMAGE_SUFFIXES


def _convert(path, decoded: containers.Decoded) -> Frame:
  """A decoded frame as uint8 RGB, upright, of square pixels."""
  frame = decoded.frame
  height, width = containers.square_size(frame, decoded.aspect)
  try:
    if any(component.is_alpha for component in frame.format.components):
      pixels = images.over_black(
          colour.to_rgba(frame, height=height, width=width)
      )
    else:
      pixels = colour.to_rgb(frame, height=height, width=width)
    note = colour.describe(frame).note
  except colour.ColourError as error:
    raise VideoError(path, str(error)) from error
  matrix = frame.side_data.get('DISPLAYMATRIX')
  if matrix is not None:
    pixels = upright(pixels, np.frombuffer(matrix, np.int32).reshape(3, 3))
  notes = decoded.notes + ((note,) if note else ())
  return Frame(pixels, decoded.end, notes)


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
    frames: uint8 [n, h, w, 3] of any size, its pixels square.
    height: rows of the result.
    width: columns of the result.

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
