"""Packs videos from the cache in shards, which any processes may write.

A folder beside the records says of each shard which clips of which videos it
holds. A process takes a shard that is not there and writes it; the shard
appears when it is whole, so that packing goes on where it was killed, and
several calls and machines that see the folder share the work. The shards lie in
a folder of their own, which is renamed when all of them are there, and is then
the records. A shard follows from its description alone, so that the records are
the same whoever wrote them.
"""
from collections.abc import Callable, Iterator, Sequence
import functools
import json
import os
import pathlib
import random
import shutil
from typing import Any
import uuid

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import processes
from video_diffusion.data import record_writer
from video_diffusion.data import records
from video_diffusion.data import storage
from video_diffusion.data.builders import shard_files
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks

SHARDS_OF_POOL = 4  # at least: a process takes as long to start as a shard
_PART_AGE = 3600  # seconds after which an unfinished file is nobody's

# (data_dir, folder of the descriptions, names of shards) -> None
Write = Callable[[str, str, list[str]], None]


def write_here(data_dir: str, folder: str, names: list[str]) -> None:
  """Writes the shards of these names on all usable cores.

  Those that another call has begun come last.

  Raises:
    UserError: see `write`; or a process was killed.
  """
  _write_each(write_unless_begun, data_dir, folder, names)
  place = pathlib.Path(folder)
  left = [name for name in names if not shard_files.receipt(place, name)]
  # Where the folder is gone, another call has completed the records.
  if left and place.exists():
    _write_each(write, data_dir, folder, left)


def _write_each(work, data_dir, folder, names):
  import tqdm

  work = functools.partial(work, data_dir, folder)
  workers = 1
  if len(names) >= SHARDS_OF_POOL:
    workers = min(processes.usable_cores(), len(names))
  done = (
      processes.run(
          work, [(name, name) for name in names], workers=workers,
          jobs_per_worker=len(names),
      ) if workers > 1 else (((name,), work(name)) for name in names)
  )
  for (name, *_), result in tqdm.tqdm(
      done, total=len(names), desc='packing', unit='shard'
  ):
    if isinstance(result, processes.Died):
      raise UserError(
          f'the process that packed the shard {name} was ended by '
          f'{result.signal.name}, perhaps for its memory; the same command '
          'goes on with what is missing.'
      )


def pack(
    splits: dict[str, Sequence[shard_files.Stretch]],
    form: shard_files.Form,
    *,
    data_dir: str | os.PathLike,
    at_most: int,
    class_names: Sequence[str],
    report: dict[str, Any],
    write_all: Write = write_here,
) -> pathlib.Path:
  """Writes the records of videos; they appear only when they are complete.

  Several calls may do so at once. Each takes the shards that are missing in an
  order of its own, those that another has begun at the end, and whichever finds
  none completes the records. A shard that two have begun is written twice:
  nobody waits for one that may be dead.

  Args:
    splits: split name -> what it holds, in order.
    form: what the records are like.
    data_dir, class_names, report: see `packing.pack`.
    at_most: a number that the clips of no split exceed.
    write_all: writes missing shards; see `write`.

  Returns:
    The directory, a prepared TFDS data set.

  Raises:
    UserError: a split has no clips, or decoded frames are gone.
    StorageError: data_dir cannot be written.
  """
  target = packing.directory(data_dir, form.name, form.key)
  if target.exists():  # the disk may be read-only
    return target
  folder = target.with_name(f'{target.name}.shards')
  lock = functools.partial(locks.Lock, target.parent, wait=True)
  try:
    with storage.writing_to(data_dir), lock():
      if not (target.exists() or shard_files.is_described(folder)):
        files.remove_parts(target.parent)
      # Not those of the calls that are packing.
      files.remove_parts(folder, age=_PART_AGE)
      if not (target.exists() or shard_files.is_described(folder)):
        with files.writing_folder(folder) as place:
          shard_files.describe(
              place, splits, form, at_most, class_names, report
          )
    # What an engine has left is written here.
    for write_some in (write_all, write_here):
      names = [] if target.exists() else shard_files.missing(folder)
      random.Random(os.urandom(8)).shuffle(names)
      if names:
        write_some(os.fspath(data_dir), os.fspath(folder), names)
    with storage.writing_to(data_dir), lock():
      if not target.exists():
        files.remove_parts(target.parent)
        # A worker that was taken for dead may have begun a shard once more.
        for name in shard_files.missing(folder):
          write(data_dir, folder, name)
        _complete(folder, target, form)
  except UserError:
    # Another call has completed them, and deleted what this one read.
    if not target.exists():
      raise
  return target


def write_unless_begun(data_dir: str, folder: str, name: str) -> str:
  """The same as `write`, but leaves a shard that another process is writing.
  """
  if shard_files.is_begun(pathlib.Path(folder), name):
    return name
  return write(data_dir, folder, name)


def write(data_dir: str, folder: str, name: str) -> str:
  """Writes a shard, unless it is there.

  Args:
    data_dir: folder of prepared data.
    folder: folder of the descriptions.
    name: name of the shard.

  Returns:
    The name.

  Raises:
    UserError: decoded frames are gone.
    StorageError: the folder cannot be written.
  """
  place = pathlib.Path(folder)
  with storage.writing_to(data_dir):
    if shard_files.receipt(place, name):
      return name
    form = shard_files.read_form(place)
    shard = json.loads((place / f'{name}.shard').read_bytes())
    stretches = map(shard_files.Stretch._make, shard['stretches'])
    clips = _load(data_dir, form, stretches)
    # Not within the records, which another call may complete meanwhile.
    path = place / shard_files.RECORDS / shard['file']
    with files.writing(path, parts=place) as part:
      clips, size = form.writer(place).write(part, clips)
      length = part.stat().st_size
    receipt = {
        'file': shard['file'], 'bytes': length, 'clips': clips, 'size': size
    }
    files.write(place / f'{name}.written', json.dumps(receipt))
  return name


def _load(data_dir, form, stretches) -> Iterator:
  """(what it holds, its frames) of each clip, mapped from the cache."""
  for stretch in stretches:
    path = os.path.join(data_dir, stretch.path)
    try:
      video = np.memmap(
          path, np.uint8, 'r',
          shape=(stretch.frames, form.height, form.width, 3),
      )
    except (FileNotFoundError, ValueError) as error:
      raise ArgumentError(
          f'the decoded frames {path} are no longer there; another process '
          'with ', Argument('keep_cache'), '=False may have deleted them. Give '
          'the same command again: what is missing is decoded once more.',
      ) from error
    cuts = form.cuts(stretch.frames)
    for i in range(stretch.first, stretch.stop):
      yield stretch.described, video[cuts[i]]


def _complete(folder, target, form):
  """Makes records of a folder whose shards are all there.

  It moves nothing before the end, so that it can be done again.
  """
  report = json.loads((folder / 'report.json').read_bytes())
  shards = {split: [] for split in report['clips']}
  for name in shard_files.names(folder):
    receipt = shard_files.receipt(folder, name)
    shards[name.rpartition('-')[0]].append(
        record_writer.Shard(receipt['clips'], receipt['size'])
    )
  place = folder / shard_files.RECORDS
  for name in ('report.json', records.FILE):
    shutil.copyfile(folder / name, place / name)
  form.writer(place).finish(shards)
  files.flush_folder(place)
  os.rename(place, target)
  # A process that is still writing there fails, instead of leaving files.
  old = folder.with_name(f'.{folder.stem}.part-{uuid.uuid4().hex[:12]}')
  folder.rename(old)
  shutil.rmtree(old, ignore_errors=True)
