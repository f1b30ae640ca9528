"""A cache of decoded frames at the training size.

Frames are found by the content of the video file and the settings. The cache
holds the raw frames and, beside them, a JSON file that describes them or says
why there are none. The JSON file is written last, by a rename, so that an entry
is always whole. Therefore a preparation that was killed goes on where it
stopped, a file that was moved is not decoded again, and processes that work at
the same time share their entries.
"""
from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import random
import signal
from typing import NamedTuple

import numpy as np

from video_diffusion.data import hashes as hashes_lib
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data import video
from video_diffusion.filesystem import files as files_lib

VERSION = 2  # raise it when the same file gives other frames
FILTER = 'area mean, cropped about the centre'
FILES_PER_WORKER = 500  # then it is replaced: decoders leak memory
_PART_AGE = 3600  # seconds after which an unfinished file is nobody's

Reader = Callable[..., Iterator[video.Frame]]


class _UnusableError(Exception):
  """A file cannot be used; `may_pass` where it perhaps can another time."""

  def __init__(self, reason: str, *, may_pass: bool):
    super().__init__(reason)
    self.reason, self.may_pass = reason, may_pass


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

  def remove(self) -> None:
    """Deletes the cached frames of the file."""
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
  unless the cause may pass: a file that the system would not read, one that is
  beyond a limit, or a worker that was killed. A file whose decoder crashes is
  found by decoding those that were in work one at a time, and costs no other.

  Args:
    files: paths of the files; the same one may come twice.
    directory: folder of the cache, made if need be. A frame takes height *
      width * 3 bytes.
    height: rows of the stored frames.
    width: columns of the stored frames.
    fps: see `video.read_timed`.
    workers: processes; 0 is one for each usable core.
    read: (path, fps=fps) -> frames; importable, since processes call it.

  Returns:
    The entry of each file, in order.

  Raises:
    StorageError: the directory cannot be written.
  """
  import tqdm

  directory = pathlib.Path(directory)
  work = functools.partial(
      _decode_one, directory=os.fspath(directory), height=height, width=width,
      fps=float(fps), read=read,
  )
  with storage.writing_to(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for folder in directory.glob('??'):
      files_lib.remove_parts(folder, age=_PART_AGE)
    hashes = hashes_lib.Hashes(directory / 'hashes.jsonl')
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

    jobs = []
    for i, file in enumerate(files):
      # Taken before the content is read: a later change is noticed then.
      try:
        found = hashes_lib.identity(file)
      except OSError:
        found = None
      digest = hashes.get(found)
      entry = digest and _find(
          _place(directory, digest, height, width, float(fps)), digest, height,
          width,
      )
      if entry:
        done(i, entry)
      else:
        jobs.append(((i, found), file, digest))
    # In an order of its own: processes that work at once share the files.
    random.Random(os.urandom(8)).shuffle(jobs)
    for ((i, found), file, known), result in processes.run(
        work, jobs, workers=workers, jobs_per_worker=FILES_PER_WORKER
    ):
      if isinstance(result, processes.Died):
        result = _of_dead(work, file, known, result.signal)
      digest, entry = result
      if found and digest and not known:
        hashes.add(found, digest)
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
    _, *before = hashes_lib.identity(file)
    digest = digest or hashes_lib.sha256(file)
  except OSError as error:
    return '', Entry(error.strerror or str(error))
  place = _place(directory, digest, height, width, fps)
  entry = _find(place, digest, height, width)
  if entry:
    return digest, entry
  described = dict(
      frames=0, seconds=0.0, height=0, width=0, reason=crash, notes=[]
  )
  try:
    with storage.writing_to(directory):
      os.makedirs(os.path.dirname(place), exist_ok=True)
      if not crash:
        with _writing(place) as raw:
          for frame, small in _frames(file, height, width, fps, read):
            if not described['frames']:
              described['height'], described['width'] = frame.pixels.shape[:2]
            described['frames'] += 1
            described['seconds'] = frame.until
            described['notes'] += [
                note for note in frame.notes if note not in described['notes']
            ]
            raw.write(small)
          _check_same(file, before)
  except _UnusableError as error:
    if error.may_pass:
      return '', Entry(error.reason)
    described |= dict(frames=0, reason=error.reason, notes=[])
  with storage.writing_to(directory), _writing(_described(place)) as out:
    out.write(json.dumps(described).encode())
  return digest, _entry(described, place, height, width, digest)


def _entry(described, place, height, width, digest) -> Entry:
  described = described | {'notes': tuple(described['notes'])}
  shape = (height, width, 3)
  return Entry(**described, path=place, shape=shape, digest=digest)


_shown = set()  # types of errors, in this process


def _frames(file, height, width, fps, read) -> Iterator:
  """(frame, the same small), one by one: full-size frames are large."""
  try:
    for frame in read(file, fps=fps):
      yield frame, video.resize_and_crop(
          frame.pixels[None], height=height, width=width
      )
  except video.VideoError as error:
    # The system's errors, and limits, which may be raised. Those of libav are
    # of Python's kinds too, and stay.
    may_pass = isinstance(error, limits_lib.LimitError) or (
        isinstance(error.__cause__, OSError)
    )
    raise _UnusableError(error.reason, may_pass=may_pass) from error
  # What a decoder may raise has no end, and is the file's fault. In case it is
  # this program's, the first error of each type is shown with its traceback.
  except Exception as error:
    if type(error) not in _shown:
      _shown.add(type(error))
      logging.exception('%s cannot be decoded.', file)
    reason = f'{type(error).__name__}: {error}'
    raise _UnusableError(reason, may_pass=True) from error


def _check_same(file, before) -> None:
  """Refuses a file whose size or time of writing is not what it was."""
  try:
    _, *after = hashes_lib.identity(file)
  except OSError as error:
    raise _UnusableError(error.strerror, may_pass=True) from error
  if after[:2] != before[:2]:
    raise _UnusableError('it changed while it was read', may_pass=True)


@contextlib.contextmanager
def _writing(place: str) -> Iterator:
  """An open file that takes its place when it is whole.

  It is not flushed: that would double the time of writing a small file, and
  `_find` notices one that a loss of power has cut.
  """
  with files_lib.writing(place, flush=False) as part:
    with open(part, 'wb') as file:
      yield file


def _place(directory, digest, height, width, fps) -> str:
  """Where the raw frames of a file are kept."""
  settings = json.dumps([digest, VERSION, FILTER, height, width, fps])
  key = hashlib.sha256(settings.encode()).hexdigest()[:32]
  return os.path.join(directory, key[:2], f'{key}.frames')


def _described(place: str) -> str:
  return os.path.splitext(place)[0] + '.json'


def _find(place: str, digest: str, height: int, width: int) -> Entry | None:
  """The entry that is kept at a place, if one is whole."""
  try:
    with open(_described(place), 'rb') as file:
      described = json.load(file)
    entry = _entry(described, place, height, width, digest)
    whole = entry.frames * height * width * 3
    return entry if entry.reason or os.path.getsize(place) == whole else None
  except (OSError, ValueError, TypeError, KeyError):
    return None
