"""Decoded small frames, kept by the content of the file that they came from.

A folder of the cache holds, for each pair of file content and settings, the raw
frames and a json file beside them that says what they are or why there are
none. The json file comes last, by a rename: what is there is whole. Hence a
preparation that was killed goes on where it was, a file that was moved is not
decoded again, and processes that work at once share what they find.
"""
from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import random
import signal
import tempfile
import time
from typing import NamedTuple

import numpy as np

from video_diffusion.data import processes
from video_diffusion.data import video
from video_diffusion.errors import UserError

VERSION = 2  # raise it when the same file gives other frames
FILTER = 'area mean, cropped about the centre'
FILES_PER_WORKER = 500  # then it is replaced: decoders leak memory
_PART_AGE = 3600  # seconds after which an unfinished file is nobody's

Reader = Callable[..., Iterator[video.Frame]]


class CacheError(UserError):
  """The cache cannot be written."""


class Entry(NamedTuple):
  """What became of a file.

  Attributes:
    reason: why it cannot be used, '' for a file that can.
    frames: their number.
    seconds: duration of the video.
    height: rows of the source's first frame.
    width: its columns.
    path: of the raw frames, '' where nothing was kept.
    shape: of a stored frame, (height, width, 3).
  """

  reason: str
  frames: int = 0
  seconds: float = 0.0
  height: int = 0
  width: int = 0
  path: str = ''
  shape: tuple[int, int, int] = (0, 0, 3)

  def load(self) -> np.ndarray:
    """uint8 [frames, height, width, 3], mapped from disk."""
    return np.memmap(
        self.path, np.uint8, 'r', shape=(self.frames, *self.shape)
    )

  def remove(self) -> None:
    """Deletes what is kept of it."""
    if self.path:
      # First what says that the other is there.
      for path in (_described(self.path), self.path):
        pathlib.Path(path).unlink(missing_ok=True)


def decode(
    files: Sequence[pathlib.Path],
    *,
    directory: str | os.PathLike,
    height: int,
    width: int,
    fps: float = 0,
    workers: int = 0,
    read: Reader = video.read_timed,
) -> list[Entry]:
  """Decodes the files that are not in the cache, on all usable cores.

  A file that cannot be used gets an entry with the reason. It is kept too,
  unless the cause may pass: a file that the system would not read, or a worker
  that was killed. A file whose decoder crashes is found by decoding those that
  were in work one at a time, and costs no other.

  Args:
    files: of any number, the same one perhaps twice.
    directory: of the cache, made where absent. Takes height * width * 3 bytes
      a frame.
    height: rows of the stored frames.
    width: columns of the stored frames.
    fps: see `video.read_timed`.
    workers: processes; 0 is one for each usable core.
    read: (path, fps=fps) -> frames; importable, since processes call it.

  Returns:
    The entry of each file, in order.

  Raises:
    CacheError: the directory cannot be written.
  """
  import tqdm

  directory = pathlib.Path(directory)
  work = functools.partial(
      _decode_one, directory=os.fspath(directory), height=height, width=width,
      fps=float(fps), read=read,
  )
  try:
    directory.mkdir(parents=True, exist_ok=True)
    _remove_old_parts(directory)
    hashes = _Hashes(directory / 'hashes.jsonl')
  except OSError as error:
    raise _unwritable(directory, error) from error
  entries: list[Entry | None] = [None] * len(files)
  skipped = 0
  with tqdm.tqdm(total=len(files), desc='decoding', unit='file') as progress:

    def done(i, entry):
      nonlocal skipped
      entries[i] = entry
      if entry.reason:
        skipped += 1
        progress.set_postfix(skipped=skipped, refresh=False)
      progress.update()

    jobs: list[tuple[int, pathlib.Path, str | None]] = []
    for i, file in enumerate(files):
      digest = hashes.get(file)
      entry = digest and _find(
          _place(directory, digest, height, width, float(fps)), height, width
      )
      if entry:
        done(i, entry)
      else:
        jobs.append((i, file, digest))
    # In an order of its own: processes that work at once share the files.
    random.Random(os.urandom(8)).shuffle(jobs)
    for (i, file, known), result in processes.run(
        work, jobs, workers=workers, jobs_per_worker=FILES_PER_WORKER
    ):
      if isinstance(result, processes.Died):
        result = _of_dead(work, file, known, result.signal)
      digest, entry = result
      if digest and not known:
        hashes.add(file, digest)
      done(i, entry)
  return entries


def _of_dead(work, file, digest, killer: signal.Signals) -> tuple[str, Entry]:
  """What `work` would have returned for the file that its process died of."""
  if killer in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    reason = f'the decoder was ended by {killer.name}, perhaps for its memory'
    return '', Entry(reason)
  return work(file, digest, crash=f'the decoder crashed ({killer.name})')


def _decode_one(
    file, digest, *, directory, height, width, fps, read, crash=''
) -> tuple[str, Entry]:
  """(SHA-256 of the file, its entry), '' where that is not to be remembered."""
  try:
    digest = digest or _sha256(file)
  except OSError as error:
    return '', Entry(error.strerror or str(error))
  place = _place(directory, digest, height, width, fps)
  entry = _find(place, height, width)
  if entry:
    return digest, entry
  try:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with _part(place) as (part, raw):
      described = dict(frames=0, seconds=0.0, height=0, width=0, reason=crash)
      try:
        # Frame by frame: full-size frames are large and may change in size.
        for frame in () if crash else read(file, fps=fps):
          if not described['frames']:
            described['height'], described['width'] = frame.pixels.shape[:2]
          described['frames'] += 1
          described['seconds'] = frame.until
          small = video.resize_and_crop(
              frame.pixels[None], height=height, width=width
          )
          _write(raw, small, directory)
      except video.VideoError as error:
        if isinstance(error.__cause__, OSError):
          return '', Entry(error.reason)
        described |= dict(frames=0, reason=error.reason)
      except CacheError:
        raise
      # What a decoder may raise has no end, and is the file's fault.
      except Exception as error:
        return '', Entry(f'{type(error).__name__}: {error}')
      raw.close()
      if not described['reason']:
        os.replace(part, place)
    with _part(place) as (part, out):
      out.write(json.dumps(described).encode())
      out.close()
      os.replace(part, _described(place))
  except OSError as error:
    raise _unwritable(directory, error) from error
  shape = (height, width, 3)
  return digest, Entry(**described, path=place, shape=shape)


def _place(directory, digest, height, width, fps) -> str:
  """Where the raw frames of a file are kept."""
  settings = json.dumps([digest, VERSION, FILTER, height, width, fps])
  key = hashlib.sha256(settings.encode()).hexdigest()[:32]
  return os.path.join(directory, key[:2], f'{key}.frames')


def _described(place: str) -> str:
  return os.path.splitext(place)[0] + '.json'


def _find(place: str, height: int, width: int) -> Entry | None:
  """The entry that is kept at a place, if one is whole."""
  try:
    with open(_described(place), 'rb') as file:
      entry = Entry(**json.load(file), path=place, shape=(height, width, 3))
    # A machine that lost power may have kept the name alone.
    whole = entry.frames * height * width * 3
    return entry if entry.reason or os.path.getsize(place) == whole else None
  except (OSError, ValueError, TypeError):
    return None


@contextlib.contextmanager
def _part(place: str) -> Iterator:
  """(name, open file) of an unfinished file, deleted unless it was renamed."""
  handle, part = tempfile.mkstemp(suffix='.part', dir=os.path.dirname(place))
  try:
    with os.fdopen(handle, 'wb') as file:
      yield part, file
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(part)


def _remove_old_parts(directory: pathlib.Path) -> None:
  """Deletes what killed preparations left unfinished."""
  for part in directory.glob('??/*.part'):
    with contextlib.suppress(FileNotFoundError):
      if time.time() - part.stat().st_mtime > _PART_AGE:
        part.unlink()


def _write(file, frames, directory):
  try:
    file.write(frames)
  except OSError as error:
    raise _unwritable(directory, error) from error


def _unwritable(directory, error) -> CacheError:
  return CacheError(
      f'data.dir cannot be written ({directory}: {error.strerror}); set it to '
      'a folder with space.'
  )


def _sha256(file) -> str:
  with open(file, 'rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()


class _Hashes:
  """SHA-256 of files by (absolute path, size, time), on disk, only added to."""

  def __init__(self, path: pathlib.Path):
    self._path, self._known = path, {}
    lines = path.read_bytes().splitlines() if path.exists() else ()
    for line in lines:
      # A process that was killed may have left half a line.
      with contextlib.suppress(ValueError):
        *identity, digest = json.loads(line)
        self._known[tuple(identity)] = digest

  def get(self, file: pathlib.Path) -> str | None:
    with contextlib.suppress(OSError):
      return self._known.get(self._identity(file))

  def add(self, file: pathlib.Path, digest: str) -> None:
    with contextlib.suppress(OSError):
      line = json.dumps([*self._identity(file), digest])
      # Opened to append, unbuffered: lines of several processes do not mix.
      with open(self._path, 'ab', buffering=0) as out:
        out.write(f'\n{line}\n'.encode())

  @staticmethod
  def _identity(file):
    stat = os.stat(file)
    return os.path.abspath(file), stat.st_size, stat.st_mtime_ns
