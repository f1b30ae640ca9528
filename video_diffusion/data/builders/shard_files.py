"""The files of the folder in which records are packed.

form.json says what all records are like, NAME.shard which clips of which videos
a shard holds, and NAME.written that it is finished. The finished shards are in
a folder of their own.
"""
from collections.abc import Iterator, Sequence
import contextlib
import functools
import json
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import record_writer
from video_diffusion.errors import UserError

FORM = 'form.json'
FORM_VERSION = 1  # raise it when the files beside the shards change
RECORDS = 'records'  # the folder of the finished shards
BEGUN_SECONDS = 600  # without a write, after which a shard is nobody's


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
    return _cuts(self, frames)

  def writer(self, place: pathlib.Path) -> record_writer.Writer:
    """Returns what writes such records into a folder."""
    return record_writer.Writer(
        place, name=self.name, key=self.key, height=self.height,
        width=self.width,
    )


@functools.lru_cache(maxsize=1)  # the stretches of a long video are many
def _cuts(form, frames):
  return packing.cut_clips(
      frames, clip_frames=form.clip_frames, min_frames=form.min_frames,
      short_clips=form.short_clips,
  )


def describe(
    place: pathlib.Path,
    splits: dict[str, Sequence[Stretch]],
    form: Form,
    at_most: int,
    class_names: Sequence[str],
    report: dict[str, Any],
) -> None:
  """Writes what each shard is to hold, and the report of all.

  Args:
    place: the folder, which is empty.
    splits, form, at_most, class_names, report: see `shards.pack`.

  Raises:
    UserError: a split has no clips.
  """
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
  (place / RECORDS).mkdir()
  (place / FORM).write_text(
      json.dumps({'version': FORM_VERSION, 'form': form._asdict()})
  )


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


def names(folder: pathlib.Path) -> list[str]:
  """Returns the names of all shards, in their order."""
  return sorted(path.stem for path in folder.glob('*.shard'))


def missing(folder: pathlib.Path) -> list[str]:
  """Returns the names of the shards that are not there."""
  return [name for name in names(folder) if not receipt(folder, name)]


def receipt(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """Returns what `shards.write` noted of a shard that is there, else {}."""
  with contextlib.suppress(FileNotFoundError, ValueError):
    found = json.loads((folder / f'{name}.written').read_bytes())
    # A copy that failed leaves a part of the file.
    if (folder / RECORDS / found['file']).stat().st_size == found['bytes']:
      return found
  return {}


def is_begun(folder: pathlib.Path, name: str) -> bool:
  """Returns whether a process seems to be writing a shard."""
  split, _, index = name.rpartition('-')
  for part in folder.glob(f'.*-{split}.part-*-{index}'):
    with contextlib.suppress(FileNotFoundError):
      if time.time() - part.stat().st_mtime < BEGUN_SECONDS:
        return True
  return False


def read_form(folder: pathlib.Path) -> Form:
  """Returns what the records of a folder are like."""
  return Form(**json.loads((folder / FORM).read_bytes())['form'])


def is_described(folder: pathlib.Path) -> bool:
  """Returns whether a folder describes its shards, in the present form."""
  with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
    return json.loads((folder / FORM).read_bytes())['version'] == FORM_VERSION
  return False
