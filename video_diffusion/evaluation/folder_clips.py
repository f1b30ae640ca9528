"""The videos of a folder as a set of clips to score."""
import hashlib
from typing import Any

from absl import logging
from etils import epath
import numpy as np

from video_diffusion.data import limits as limits_lib
from video_diffusion.data import listing
from video_diffusion.data import video as video_lib
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

MIN_FRAMES = 9  # fewer leave nothing for the average pool of the I3D
MIN_VIDEOS = 2
_NAMED = 3  # of the files that are passed over, in a sentence
_ARRAYS = '.npz'


class FolderClips:
  """The first frames of every video in a folder, in the order of its names.

  Files are videos, or .npz files with an array 'video', uint8
  [n, frames, height, width, 3], such as `--mode=sample` writes. A folder with
  such arrays is read by them alone: the files beside them show the same videos,
  enlarged and compressed.

  Attributes:
    identity: see `clip_sets.ClipSet`.
    size: (height, width) of the videos.
    skipped: a list of {file, reason}: files that are not counted.
  """

  def __init__(
      self,
      folder: epath.PathLike,
      name: str,
      *,
      frames: int,
      limits: limits_lib.Limits = limits_lib.DEFAULT,
  ):
    """Looks through the folder; every video is decoded once.

    Args:
      folder: a local folder.
      name: what errors call it: '--samples'.
      frames: number of frames of a clip; the first ones of each video count.
      limits: limits of a file; see `data.limits`.

    Raises:
      UserError: the folder holds fewer than two videos with so many frames, or
        videos of several sizes.
    """
    self._name, self._frames, self._limits = name, frames, limits
    self._folder = epath.Path(files.expand(folder, name))
    if frames < MIN_FRAMES:
      raise UserError(
          f'clips of {frames} frames cannot be scored: the I3D network needs '
          f'at least {MIN_FRAMES}.'
      )
    if not self._folder.is_dir():
      raise UserError(
          f'{name} is {str(folder)!r}, which is no folder; it must be a folder '
          'of videos.'
      )
    self.skipped, self._entries, sizes = [], [], {}
    self._cached = None
    for path, index, length, size, sha in self._look():
      if length < frames:
        self._skip(path, f'it has {length} frames')
        continue
      self._entries.append((path, index, sha))
      sizes.setdefault(size, path.name)
    self._check(sizes)
    self.size = next(iter(sizes))
    content = hashlib.sha256()
    for path, index, sha in self._entries:
      content.update(f'{path.name} {index} {sha}\n'.encode())
    self.identity = {
        'count': len(self), 'frames': frames, 'sha256': content.hexdigest(),
    }

  def __len__(self):
    return len(self._entries)

  def read(self, start: int, stop: int) -> np.ndarray:
    """Returns uint8 [stop - start, frames, height, width, 3]."""
    return np.stack([
        self._read(path, index)[: self._frames]
        for path, index, _ in self._entries[start:stop]
    ])

  def _look(self):
    """Yields (path, index within it, frames, (height, width), SHA-256)."""
    arrays = sorted(self._folder.glob(f'*{_ARRAYS}'))
    if arrays:
      for path in arrays:
        yield from self._look_at_arrays(path)
      return
    found = listing.find(
        self._folder, video_lib.VIDEO_SUFFIXES, leave_out=()
    )
    self.skipped += found.skipped
    for path in map(epath.Path, found.files):
      try:
        length, size, sha = self._measure(path)
      except (video_lib.VideoError, OSError) as error:
        self._skip(path, str(error))
        continue
      yield path, 0, length, size, sha

  def _measure(self, path):
    """(frames, size, SHA-256 of the first frames) of a video file."""
    sha, length, size = hashlib.sha256(), 0, None
    for frame in video_lib.read_timed(path, limits=self._limits):
      if size not in (None, frame.pixels.shape[:2]):
        raise video_lib.VideoError(path, 'its frames have several sizes')
      size, length = frame.pixels.shape[:2], length + 1
      sha.update(np.ascontiguousarray(frame.pixels))
      if length == self._frames:
        break
    return length, size, sha.hexdigest()

  def _look_at_arrays(self, path):
    try:
      with path.open('rb') as file, np.load(file, allow_pickle=False) as held:
        videos = held['video']
    except (KeyError, ValueError, OSError, EOFError) as error:
      self._skip(path, f"it has no array 'video' ({error})")
      return
    if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
      self._skip(
          path, f"its array 'video' is {videos.dtype} {list(videos.shape)}, "
          'not uint8 [n, frames, height, width, 3]',
      )
      return
    for i, video in enumerate(videos):
      sha = hashlib.sha256(np.ascontiguousarray(video[: self._frames]))
      yield path, i, len(video), video.shape[1:3], sha.hexdigest()

  def _read(self, path, index):
    if path.suffix == _ARRAYS:
      if self._cached is None or self._cached[0] != path:
        with path.open('rb') as file, np.load(file) as held:
          self._cached = path, held['video']
      return self._cached[1][index]
    frames = []
    for frame in video_lib.read_timed(path, limits=self._limits):
      frames.append(frame.pixels)
      if len(frames) == self._frames:
        break
    return np.stack(frames)

  def _skip(self, path, reason):
    name = str(path.relative_to(self._folder))
    self.skipped.append({'file': files.printable(name), 'reason': reason})

  def _check(self, sizes):
    if self.skipped:
      logging.warning(
          '%s: %d files are not counted, for example %s.', self._name,
          len(self.skipped), self._examples(),
      )
    if len(self._entries) < MIN_VIDEOS:
      reason = (
          f'; not counted are {self._examples()}' if self.skipped else ''
      )
      raise UserError(
          f'{self._name} {self._folder} holds {len(self._entries)} videos of '
          f'at least {self._frames} frames; a score needs at least '
          f'{MIN_VIDEOS}{reason}.'
      )
    if len(sizes) > 1:
      (a, first), (b, second) = list(sizes.items())[:2]
      raise UserError(
          f'{self._name} {self._folder} holds videos of several sizes: '
          f'{first} is {a[1]}x{a[0]} and {second} is {b[1]}x{b[0]}; bring them '
          'to one size.'
      )

  def _examples(self):
    shown = [f'{s["file"]} ({s["reason"]})' for s in self.skipped[:_NAMED]]
    more = len(self.skipped) - len(shown)
    return ', '.join(shown) + (f' and {more} more' if more else '')


def require_same_size(samples: FolderClips, reference: FolderClips) -> None:
  """Requires that two folders hold videos of one size.

  Raises:
    UserError: they do not: after resizing to 224x224 for the network, a
      difference in sharpness would count as one in content.
  """
  if samples.size != reference.size:
    (h, w), (height, width) = samples.size, reference.size
    raise UserError(
        f'the videos of --samples are {w}x{h}, those of --reference '
        f'{width}x{height}; bring them to one size, or the difference in '
        'sharpness would count.'
    )


def describe(clips: FolderClips) -> dict[str, Any]:
  """What the protocol block says of a folder."""
  height, width = clips.size
  return {
      'videos': len(clips), 'skipped files': len(clips.skipped),
      'size': f'{width}x{height}', 'SHA-256': clips.identity['sha256'],
  }
