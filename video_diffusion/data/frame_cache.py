"""A cache of decoded frames at the training size.

Frames are found by the content of the video file and the settings, and an entry
of `cache_entries` is always whole. Therefore a preparation that was killed goes
on where it stopped, a file that was moved is not decoded again, and processes
and machines that work at the same time share their entries.
"""
from collections.abc import Callable, Iterator, Sequence
import functools
import logging
import os
import pathlib
import random
import signal

from video_diffusion.data import cache_entries
from video_diffusion.data import hashes as hashes_lib
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data import video
from video_diffusion.data.cache_entries import Entry
from video_diffusion.filesystem import files as files_lib

FILES_PER_WORKER = 500  # then it is replaced: decoders leak memory
PATIENCE = 600.0  # seconds that a decoder may take for a frame
_PART_AGE = 3600  # seconds after which an unfinished file is nobody's

Reader = Callable[..., Iterator[video.Frame]]


class _UnusableError(Exception):
  """A file cannot be used; `may_pass` where it perhaps can another time."""

  def __init__(self, reason: str, *, may_pass: bool):
    super().__init__(reason)
    self.reason, self.may_pass = reason, may_pass


def decode(
    files: Sequence[pathlib.Path],
    *,
    directory: str | os.PathLike,
    height: int,
    width: int,
    fps: float = 0,
    workers: int = 0,
    read: Reader = video.read_timed,
    patience: float = PATIENCE,
    part: str = '',
) -> list[Entry]:
  """Decodes the files that are not in the cache, on all usable cores.

  A file that cannot be used gets an entry with the reason. It is kept too,
  unless the cause may pass: a file that the system would not read, one that is
  beyond a limit, or a worker that was killed. A file whose decoder crashes or
  hangs is found by decoding those that were in work one at a time, and costs no
  other.

  Args:
    files: paths of the files; the same one may come twice.
    directory: folder of the cache, made if need be. A frame takes height *
      width * 3 bytes.
    height: rows of the stored frames.
    width: columns of the stored frames.
    fps: see `video.read_timed`.
    workers: processes; 0 is one for each usable core.
    read: (path, fps=fps) -> frames; importable, since processes call it.
    patience: seconds without a new frame, twice, after which a decoder hangs.
    part: name of this part of the work, where several machines decode at the
      same time. Digests are then remembered in a file of the part, since
      network file systems mix lines that two machines append; what other parts
      remember is not read, and no progress is shown.

  Returns:
    The entry of each file, in order.

  Raises:
    StorageError: the directory cannot be written.
  """
  import tqdm

  directory = pathlib.Path(directory)
  work = functools.partial(
      _decode_one, directory=os.fspath(directory), height=height, width=width,
      fps=float(fps), read=read, patience=patience,
  )
  with storage.writing_to(directory):
    directory.mkdir(parents=True, exist_ok=True)
    # Not by each of many parts: the folders are long.
    for folder in directory.glob('??') if not part else ():
      files_lib.remove_parts(folder, age=_PART_AGE)
    hashes = _hashes(directory, part)
  entries: list[Entry | None] = [None] * len(files)
  skipped = 0
  with tqdm.tqdm(
      total=len(files), desc='decoding', unit='file', disable=bool(part)
  ) as progress:

    def done(i, entry):
      nonlocal skipped
      entries[i] = entry
      if entry.reason:
        skipped += 1
        progress.set_postfix(skipped=skipped, refresh=False)
      progress.update()

    jobs = []
    for i, (found, digest, entry) in enumerate(
        _look_up(files, hashes, directory, height, width, fps)
    ):
      if entry:
        done(i, entry)
      else:
        jobs.append(((i, found), files[i], digest))
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


def undecoded(
    files: Sequence[pathlib.Path],
    *,
    directory: str | os.PathLike,
    height: int,
    width: int,
    fps: float = 0,
) -> list[int]:
  """Returns the places in `files` of those that `decode` would read.

  Args:
    files: see `decode`.
    directory: see `decode`; it may be missing.
    height: see `decode`.
    width: see `decode`.
    fps: see `decode`.
  """
  directory = pathlib.Path(directory)
  found = _look_up(
      files, _hashes(directory, ''), directory, height, width, fps
  )
  return [i for i, (_, _, entry) in enumerate(found) if not entry]


def _hashes(directory: pathlib.Path, part: str) -> hashes_lib.Hashes:
  """The digests that a part of the work remembers; '' knows those of all."""
  if part:
    return hashes_lib.Hashes(directory / f'hashes.{part}.jsonl')
  return hashes_lib.Hashes(
      directory / 'hashes.jsonl', others=directory.glob('hashes.*.jsonl')
  )


def _look_up(files, hashes, directory, height, width, fps) -> Iterator:
  """(identity or None, digest or None, entry or None) of each file."""
  for file in files:
    # Taken before the content is read: a later change is noticed then.
    try:
      found = hashes_lib.identity(file)
    except OSError:
      found = None
    digest = hashes.get(found)
    place = digest and cache_entries.place_of(
        directory, digest, height=height, width=width, fps=float(fps)
    )
    yield found, digest, place and cache_entries.find(
        place, digest=digest, height=height, width=width
    )


def _of_dead(
    work, file, digest, killer: signal.Signals
) -> tuple[str, Entry]:
  """What `work` would have returned for the file that its process died of."""
  if killer in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    reason = f'the decoder was ended by {killer.name}, perhaps for its memory'
    return '', Entry(reason)
  if killer == signal.SIGALRM:
    seconds = work.keywords['patience']
    reason = f'the decoder gave no frame for {seconds:g} s'
  else:
    reason = f'the decoder crashed ({killer.name})'
  return work(file, digest, crash=reason)


def _decode_one(
    file, digest, *, directory, height, width, fps, read, patience, crash=''
) -> tuple[str, Entry]:
  """(SHA-256 of the file, its entry), '' where that is not to be remembered."""
  try:
    _, *before = hashes_lib.identity(file)
    digest = digest or hashes_lib.sha256(file)
  except OSError as error:
    return '', Entry(error.strerror or str(error))
  place = cache_entries.place_of(
      directory, digest, height=height, width=width, fps=fps
  )
  known = dict(digest=digest, height=height, width=width)
  entry = cache_entries.find(place, **known)
  if entry:
    return digest, entry
  described = dict(
      frames=0, seconds=0.0, height=0, width=0, reason=crash, notes=[]
  )
  try:
    with storage.writing_to(directory):
      os.makedirs(os.path.dirname(place), exist_ok=True)
      if not crash:
        with cache_entries.writing(place) as raw:
          for frame, small in _in_time(
              _frames(file, height, width, fps, read), patience
          ):
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
  with storage.writing_to(directory):
    return digest, cache_entries.keep(described, place, **known)


def _in_time(frames: Iterator, patience: float) -> Iterator:
  """The same frames; one that takes too long ends this process by SIGALRM.

  The system ends it, since a decoder that hangs may never return to Python.
  """
  try:
    while True:
      signal.setitimer(signal.ITIMER_REAL, patience)
      frame = next(frames, None)
      signal.setitimer(signal.ITIMER_REAL, 0)
      if frame is None:
        return
      yield frame
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)


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
