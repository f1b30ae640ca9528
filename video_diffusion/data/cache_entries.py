"""What the cache of decoded frames keeps of a file, and where.

An entry is the raw frames and, beside them, a JSON file that describes them or
says why there are none. The JSON file is written last, by a rename, so that an
entry is always whole. Its name comes from the content of the video file and the
settings.
"""
from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.filesystem import files as files_lib

VERSION = 2  # raise it when the same file gives other frames
FILTER = 'area mean, cropped about the centre'


class Entry(NamedTuple):
  """The result of decoding a file.

  Attributes:
    reason: why it cannot be used, '' for a file that can.
    frames: number of frames.
    seconds: duration of the video.
    height: rows of the source's first frame.
    width: its columns.
    path: file of the raw frames; '' where nothing was kept.
    shape: shape of a stored frame, (height, width, 3).
    digest: SHA-256 of the file, '' where it could not be read.
    notes: sentences about what was done to the frames, or passed over.
  """

  reason: str
  frames: int = 0
  seconds: float = 0.0
  height: int = 0
  width: int = 0
  path: str = ''
  shape: tuple[int, int, int] = (0, 0, 3)
  digest: str = ''
  notes: tuple[str, ...] = ()

  def load(self) -> np.ndarray:
    """uint8 [frames, height, width, 3], mapped from disk."""
    return np.memmap(
        self.path, np.uint8, 'r', shape=(self.frames, *self.shape)
    )

  def files(self) -> tuple[str, ...]:
    """The paths of the frames and of what says that they are there, if any."""
    return (self.path, _described(self.path)) if self.path else ()

  def remove(self) -> None:
    """Deletes the cached frames of the file."""
    # First what says that the other is there.
    for path in reversed(self.files()):
      pathlib.Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(place: str) -> Iterator:
  """An open file that takes its place when it is whole.

  It is not flushed: that would double the time of writing a small file, and
  `find` notices one that a loss of power has cut.
  """
  with files_lib.writing(place, flush=False) as part:
    with open(part, 'wb') as file:
      yield file


def place_of(
    directory: str | os.PathLike,
    digest: str,
    *,
    height: int,
    width: int,
    fps: float,
) -> str:
  """Where the raw frames of a file are kept; see `frame_cache.decode`."""
  settings = json.dumps([digest, VERSION, FILTER, height, width, fps])
  key = hashlib.sha256(settings.encode()).hexdigest()[:32]
  return os.path.join(directory, key[:2], f'{key}.frames')


def keep(
    description: dict[str, Any], place: str, **known: Any
) -> Entry:
  """Makes what was written at a place an entry, and returns it.

  Args:
    description: the attributes of the entry that a JSON file can hold.
    place: from `place_of`.
    **known: the others: digest, height and width of the stored frames.
  """
  with writing(_described(place)) as out:
    out.write(json.dumps(description).encode())
  return _entry(description, place, **known)


def find(
    place: str, *, digest: str, height: int, width: int
) -> Entry | None:
  """The entry that is kept at a place, if one is whole."""
  try:
    with open(_described(place), 'rb') as file:
      description = json.load(file)
    entry = _entry(
        description, place, digest=digest, height=height, width=width
    )
    whole = entry.frames * height * width * 3
    return entry if entry.reason or os.path.getsize(place) == whole else None
  except (OSError, ValueError, TypeError, KeyError):
    return None


def _entry(description, place, *, digest, height, width) -> Entry:
  content = description | {'notes': tuple(description['notes'])}
  shape = (height, width, 3)
  return Entry(**content, path=place, shape=shape, digest=digest)


def _described(place: str) -> str:
  return os.path.splitext(place)[0] + '.json'
