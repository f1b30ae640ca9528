"""Limits of one video or image file, and the error for an unusable file."""
from collections.abc import Mapping
import os
from typing import Any, NamedTuple

from video_diffusion.errors import UserError

# A file below this many pixels, over all frames, is read however small it is:
# two minutes of a core at most.
FREE_PIXELS = 4 * 10**9


class VideoError(UserError):
  """A video file that cannot be used; the message names the file.

  Attributes:
    reason: the sentence about what is wrong, without the name of the file.
  """

  def __init__(self, path: str | os.PathLike, reason: str):
    super().__init__(path, reason)  # both, so that it survives pickling
    self.reason = reason

  def __str__(self) -> str:
    path, reason = self.args
    return f'cannot use the video {os.fspath(path)}: {reason}'


class LimitError(VideoError):
  """A file beyond one of the limits; it may be used under other ones."""


class Limits(NamedTuple):
  """Largest values of one file; a file that claims more is not decoded.

  The sentences name the config's fields, which are given in brackets. Digests
  that name prepared records hold these sentences: they must not change.

  Attributes:
    pixels: rows times columns of a frame as shown [data.max_pixels]. The
      default admits 8K video and photographs of 60 megapixels.
    frames: number of frames that are decoded, or shown at the frame rate that
      is asked for [data.max_frames].
    seconds: duration in seconds [data.max_seconds].
    pixels_per_byte: pixels of all frames together, divided by the size of the
      file [data.max_pixels_per_byte]; it counts beyond FREE_PIXELS. Ordinary
      video has some hundreds, a screen on which nothing moves up to 50,000.
  """

  pixels: int = 2**26
  frames: int = 500_000
  seconds: float = 14_400.0
  pixels_per_byte: int = 100_000

  def check(
      self,
      path: str | os.PathLike,
      *,
      height: int = 0,
      width: int = 0,
      frames: int = 0,
      seconds: float = 0.0,
      pixels: int = 0,
      size: int = 0,
  ) -> None:
    """Raises LimitError if a file exceeds a limit.

    Args:
      path: path of the file.
      height: rows of a frame.
      width: columns of a frame.
      frames: number of frames; 0 if it is not known.
      seconds: duration; 0 if it is not known.
      pixels: pixels of all frames together; 0 if they are not known.
      size: size of the file in bytes.
    """
    if height * width > self.pixels:
      raise LimitError(
          path,
          f'its frames have {width} x {height} pixels, more than '
          f'data.max_pixels, {self.pixels}',
      )
    if frames > self.frames:
      raise LimitError(
          path,
          f'it has {frames} frames or more, above data.max_frames, '
          f'{self.frames}',
      )
    if seconds > self.seconds:
      raise LimitError(
          path,
          f'it lasts {seconds:.0f} s or more, above data.max_seconds, '
          f'{self.seconds:g}',
      )
    if pixels > max(FREE_PIXELS, self.pixels_per_byte * size):
      raise LimitError(
          path,
          f'its {size} bytes become {pixels} pixels or more, above '
          f'data.max_pixels_per_byte, {self.pixels_per_byte}',
      )


DEFAULT = Limits()


def from_fields(data: Mapping[str, Any]) -> Limits:
  """Returns the limits that the fields of config.data set."""
  return Limits(*(data[f'max_{name}'] for name in Limits._fields))
