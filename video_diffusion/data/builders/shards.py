"""Packs videos from the cache in shards, which any processes may write.

A folder beside the records says of each shard which clips of which videos it
holds. A process takes a shard that is not there and writes it; the shard
appears when it is whole, so that packing goes on where it was killed, and
several calls and machines that see the folder share the work. When all shards
are there, they become the records. A shard follows from its description alone,
so that the records are the same whoever wrote them.
"""
from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
from typing import Any, NamedTuple
import uuid

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import processes
from video_diffusion.data import record_writer
from video_diffusion.data import records
from video_diffusion.data import storage
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks

FORM = 'form.json'
SHARDS_PER_WORKER = 4  # at least: a process takes as long to start as a shard


class Stretch(NamedTuple):
  """Clips of a video that follow one another.

  Attributes:
    path: file of the video's raw frames, from data_dir on.
    frames: number of these.
    video_id, name, label, caption, source: see `packing.Clip`.
    first: number of the first clip, from 0.
    stop: number of the clip after the last.
  """

  path: str
  frames: int
  video_id: int
  name: str
  label: int
  caption: str
  source: str
  first: int
  stop: int

  @property
  def described(self) -> record_writer.Described:
    return record_writer.Described(
        self.video_id, self.name, self.label, self.caption
    )


class Form(NamedTuple):
  """What the records of a data set are like.

  Attributes:
    name: name of the data set.
    key: see `packing.pack`.
    height: rows of all frames.
    width: columns of all frames.
    clip_frames, min_frames, short_clips: see `packing.cut_clips`.
  """

  name: str
  key: str
  height: int
  width: int
  clip_frames: int
  min_frames: int
  short_clips: str

  def cuts(self, frames: int) -> list[np.ndarray]:
    """Returns which frames of a video each of its clips holds."""
    return packing.cut_clips(
        frames, clip_frames=self.clip_frames, min_frames=self.min_frames,
        short_clips=self.short_clips,
    )

  def writer(self, place: pathlib.Path) -> record_writer.Writer:
    """Returns what writes such records into a folder."""
    return record_writer.Writer(
        place, name=self.name, key=self.key, height=self.height,
        width=self.width,
    )


# (data_dir, folder of the descriptions, names of shards) -> None
Write = Callable[[str, str, list[str]], None]


def write_here(data_dir: str, folder: str, names: list[str]) -> None:
  """Writes the shards of these names on all usable cores.

  Raises:
    UserError: see `write`; or a process was killed.
  """
  import tqdm

  work = functools.partial(write, data_dir, folder)
  workers = min(processes.usable_cores(), len(names) // SHARDS_PER_WORKER)
  done = (
      processes.run(
          work, [(name, name) for name in names], workers=workers,
          jobs_per_worker=len(names),
      ) if workers > 1 else (((name,), work(name)) for name in names)
  )
  for (name, *_), result in tqdm.tqdm(
      done, total=len(names), desc='packing', unit='shard',
      disable=workers < 2,
  ):
    if isinstance(result, processes.Died):
      raise UserError(
          f'the process that packed the shard {name} was ended by '
          f'{result.signal.name}, perhaps for its memory; the same command '
          'goes on with what is missing.'
      )


def pack(
    splits: dict[str, Sequence[Stretch]],
    form: Form,
    *,
    data_dir: str | os.PathLike,
    at_most: int,
    class_names: Sequence[str],
    report: dict[str, Any],
    write_all: Write = write_here,
) -> pathlib.Path:
  """Writes the records of videos; they appear only when they are complete.

  Several calls may do so at once. Each takes the shards that are missing in an
  order of its own, and whichever finds none completes the records. A shard that
  two have begun is written twice: nobody waits for one that may be dead.

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
    with storage.writing_to(data_dir):
      with lock():
        if not (target.exists() or folder.exists()):
          files.remove_parts(target.parent)
          with files.writing_folder(folder) as place:
            _describe(place, splits, form, at_most, class_names, report)
      # What an engine has left is written here.
      for write_some in (write_all, write_here):
        names = [] if target.exists() else _missing(folder)
        random.Random(os.urandom(8)).shuffle(names)
        if names:
          write_some(os.fspath(data_dir), os.fspath(folder), names)
      with lock():
        if not target.exists():
          files.remove_parts(target.parent)
          # What a call that was killed when it completed them had moved.
          for name in _missing(folder):
            write(data_dir, folder, name)
          _complete(folder, target, form)
  except UserError:
    # Another call has completed them, and deleted what this one read.
    if not target.exists():
      raise
  return target


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
    if _receipt(place, name):
      return name
    form = Form(**json.loads((place / FORM).read_bytes()))
    shard = json.loads((place / f'{name}.shard').read_bytes())
    clips = _load(data_dir, form, map(Stretch._make, shard['stretches']))
    with files.writing(place / shard['file']) as part:
      clips, size = form.writer(place).write(part, clips)
    receipt = {'file': shard['file'], 'clips': clips, 'size': size}
    files.write(place / f'{name}.written', json.dumps(receipt))
  return name


def _describe(place, splits, form, at_most, class_names, report):
  """Writes what each shard is to hold, and the report of all."""
  summary = record_writer.Summary(class_names, form.min_frames)
  writer = form.writer(place)
  for split, stretches in splits.items():
    shards = _cut(stretches, record_writer.clips_per_shard(at_most))
    index = -1
    for index, shard in enumerate(shards):
      for stretch in shard:
        cuts = form.cuts(stretch.frames)
        for i in range(stretch.first, stretch.stop):
          summary.add(
              split, stretch.described, source=stretch.source,
              start=i * form.clip_frames, frames=len(cuts[i]),
          )
      content = {'file': writer.path(split, index).name, 'stretches': shard}
      path = place / f'{split}-{index:05d}.shard'
      path.write_text(json.dumps(content))
    if index < 0:
      raise UserError(f'{form.name} has no clip for the split {split!r}.')
  summary.write(place, report)
  (place / FORM).write_text(json.dumps(form._asdict()))


def _cut(stretches, per_shard) -> Iterator[list[Stretch]]:
  """The stretches of each shard, of `per_shard` clips but for the last."""
  shard, free = [], per_shard
  for stretch in stretches:
    while stretch.first < stretch.stop:
      stop = min(stretch.stop, stretch.first + free)
      shard.append(stretch._replace(stop=stop))
      free -= stop - stretch.first
      stretch = stretch._replace(first=stop)
      if not free:
        yield shard
        shard, free = [], per_shard
  if shard:
    yield shard


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
  """Makes records of a folder whose shards are all there."""
  names = _names(folder)
  receipts = {name: _receipt(folder, name) for name in names}
  report = json.loads((folder / 'report.json').read_bytes())
  shards = {split: [] for split in report['clips']}
  with files.writing_folder(target) as place:
    for name in names:
      file, clips, size = receipts[name].values()
      shards[name.rpartition('-')[0]].append(record_writer.Shard(clips, size))
      os.replace(folder / file, place / file)
    for name in ('report.json', records.FILE):
      shutil.copyfile(folder / name, place / name)
    form.writer(place).finish(shards)
  # Who still writes there finds no folder, and makes no new file in it.
  old = folder.with_name(f'.{folder.stem}.part-{uuid.uuid4().hex[:12]}')
  folder.rename(old)
  shutil.rmtree(old, ignore_errors=True)


def _names(folder) -> list[str]:
  """The names of all shards, in their order."""
  return sorted(path.stem for path in folder.glob('*.shard'))


def _missing(folder) -> list[str]:
  """The names of the shards that are not there."""
  return [name for name in _names(folder) if not _receipt(folder, name)]


def _receipt(folder, name) -> dict[str, Any]:
  """The file, clips and size of a shard that is there, else {}."""
  with contextlib.suppress(FileNotFoundError, ValueError):
    receipt = json.loads((folder / f'{name}.written').read_bytes())
    # The completion, which may be killed, moves shards away.
    if (folder / receipt['file']).exists():
      return receipt
  return {}
