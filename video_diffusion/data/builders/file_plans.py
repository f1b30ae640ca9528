"""What is made of a folder of files, before any of them is read.

Preparation has three steps: a folder is listed, which gives a `Plan`; its files
are decoded into the cache, in any order and on any machines that share the
folder of the cache; `video_files.pack` makes records of what the cache holds,
in shards that any machines may write. Nothing is handed on but the entries of
the cache and the shards, and packing itself decodes what is missing. So the
records do not depend on who decoded and packed what, and whatever was killed is
begun again with the same command.
"""
from collections.abc import Callable, Iterator, Sequence
import functools
import hashlib
import math
import os
import pathlib
from typing import Any, NamedTuple

from video_diffusion.data import frame_cache
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import listing
from video_diffusion.data import packing
from video_diffusion.data import video
from video_diffusion.data.cache_entries import Entry
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError


class File(NamedTuple):
  """A video or image file.

  Attributes:
    path: path of the file.
    name: name of the file in the records and in the report.
    split: 'train' or 'test'; '' in all files where the rule of `pack` decides.
    label: class, -1 for none.
    caption: '' for none.
  """

  path: pathlib.Path
  name: str
  split: str = ''
  label: int = -1
  caption: str = ''


class Settings(NamedTuple):
  """Settings of the records.

  Attributes:
    height: rows of the stored frames.
    width: columns of the stored frames.
    clip_frames: frames of a clip, which are stored together.
    min_frames: frames of the shortest window.
    fps: frames per second, by time of presentation; 0 takes all frames.
    short_clips: what becomes of videos with fewer than min_frames; see
      `packing.cut_clips`.
    limits: limits of a file.
  """

  height: int
  width: int
  clip_frames: int
  min_frames: int
  fps: float = 0
  short_clips: str = 'drop'
  limits: limits_lib.Limits = limits_lib.DEFAULT

  def check(self) -> None:
    """Raises ArgumentError for a setting that is out of range."""
    for name in ('height', 'width', 'clip_frames', 'min_frames'):
      if getattr(self, name) < 1:
        raise ArgumentError(
            Argument(name), f' is {getattr(self, name)}; it must be at least 1.'
        )
    if not 0 <= self.fps < math.inf:
      raise ArgumentError(
          Argument('fps'), f' is {self.fps}; it must be 0 or more.'
      )
    if self.short_clips not in packing.SHORT_CLIPS:
      raise ArgumentError(
          Argument('short_clips'), f' is {self.short_clips!r}; it must be one '
          f'of {packing.SHORT_CLIPS}.',
      )


class Plan(NamedTuple):
  """Records that are to be made.

  Attributes:
    files: files in the order of their clips.
    settings: settings of the records.
    name: name of the data set.
    data_dir: folder of the records and, in decoded/, of the cache. Needs
      about 12 KB for a frame of 64x64 in the cache and 4 KB in the records.
    listing_key: key by which `folders.packed_before` finds the records again.
    keep_cache: False deletes the cached frames of these files at the end.
    listed: the folder that the files are from.
    class_names: names of the classes, in the order of the labels.
    report: goes into report.json.
    read: (path, fps=, limits=) -> frames; importable, since processes call it.
    patience: see `frame_cache.decode`.
  """

  files: Sequence[File]
  settings: Settings
  name: str
  data_dir: str | os.PathLike
  listing_key: str
  keep_cache: bool
  listed: listing.Listing
  class_names: tuple[str, ...] = ()
  report: dict[str, Any] | None = None
  read: Callable[..., Iterator[video.Frame]] = video.read_timed
  patience: float = frame_cache.PATIENCE

  @property
  def decoder(self) -> Callable[..., list[Entry]]:
    """(paths, workers=, part=) -> entries: `frame_cache.decode` into data_dir.

    It can be pickled, and holds none of the files.
    """
    return functools.partial(
        frame_cache.decode,
        read=functools.partial(self.read, limits=self.settings.limits),
        patience=self.patience,
        **self._cache(),
    )

  def decode(self, places: Sequence[int], *, part: str = '') -> list[Entry]:
    """Decodes the files at these places of `files`; see `frame_cache`."""
    return self.decoder([self.files[i].path for i in places], part=part)

  def undecoded(self) -> list[int]:
    """Returns the places of the files that are to be decoded."""
    return frame_cache.undecoded(
        [file.path for file in self.files], **self._cache()
    )

  def _cache(self):
    return dict(
        directory=os.path.join(self.data_dir, 'decoded'),
        height=self.settings.height,
        width=self.settings.width,
        fps=self.settings.fps,
    )

  def share(self, index: int, shares: int) -> list[int]:
    """Returns the places of the files of one of several shares.

    A file belongs to a share by the digest of its name, so that each machine
    finds its own files without asking the others.

    Args:
      index: number of the share, in [0, shares).
      shares: number of shares.
    """
    return [
        i for i, file in enumerate(self.files)
        if share_of(file.name, shares) == index
    ]


def share_of(name: str, shares: int) -> int:
  """Returns the share, in [0, shares), of the file of a name."""
  return _place(name) * shares >> 64


def of_fraction(files: Sequence[File], fraction: float) -> Sequence[File]:
  """Returns the files whose names have a digest in the first part of the range.

  Those of a larger fraction are these and more, and those of k / n are the
  first k of n shares.

  Args:
    files: all files.
    fraction: size of the part, in (0, 1].

  Raises:
    ArgumentError: there is none, or none of a split that the files name.
  """
  if fraction == 1:
    return files
  found = [file for file in files if _place(file.name) < fraction * 2**64]
  if not found:
    raise ArgumentError(
        Argument('fraction'), f' is {fraction:g}, and none of the {len(files)} '
        'files belongs to that part; raise it.',
    )
  gone = {file.split for file in files} - {file.split for file in found}
  if gone:
    raise ArgumentError(
        Argument('fraction'), f' is {fraction:g}, and none of the files of '
        f'{min(gone)!r} belongs to that part; raise it.',
    )
  return found


def _place(name: str) -> int:
  """The digest of a name as an integer in [0, 2**64)."""
  return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8])
