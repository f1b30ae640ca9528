"""Makes records of video and image files, for all data sets of files."""
import collections
import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import pathlib

from video_diffusion.data import cache_entries
from video_diffusion.data import limits as limits_lib
from video_diffusion.data import listing
from video_diffusion.data.builders import folders
from video_diffusion.data.builders import shard_files
from video_diffusion.data.builders import shards
from video_diffusion.data.builders.file_plans import Plan
from video_diffusion.data.builders.file_plans import Settings
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files as files_lib

TEST_EVERY = 20


def pack(
    plan: Plan, *, write_all: shards.Write = shards.write_here
) -> pathlib.Path:
  """Decodes files through the cache in `data_dir` and packs their clips.

  The records are named by a digest of the settings and of the files' contents,
  names, labels and captions. So a folder that was moved has those that it had.
  What the cache holds already, from whichever machine, is not decoded.

  Where the files name no split, every 20th video, beginning with the first,
  goes to 'test' and the others to 'train'; where fewer than 20 can be used,
  every 20th piece of them. A piece is as many clips as hold a window; a last
  one that is too short for that belongs to the piece before it. A piece that is
  alone goes to both.

  report.json has, besides what `packing` adds and what `plan.report` brings,
    files: the number of files, usable or not,
    usable: the number of files that clips were cut from,
    seconds: the duration of the usable files together,
    smallest_source, largest_source: [rows, columns], by area,
    looped: videos that were started over, see `short_clips`,
    skipped: a list of {file, reason}, folders that cannot be read among them,
    left_out: folders of runs and of prepared data, when it was packed,
    unread: {suffix: number} of the files of other kinds,
    notes: {what was done to a file or passed over: number of files}, see
      `video.Frame`.

  Args:
    plan: what is to be made.
    write_all: writes shards of the records; see `shards.pack`.

  Returns:
    The directory of the records.

  Raises:
    UserError: a split has no usable video, or a video is too short and
      `short_clips` is 'refuse'.
    StorageError: data_dir cannot be written.
  """
  files, settings, listed, name = (
      plan.files, plan.settings, plan.listed, plan.name
  )
  entries = plan.decode(range(len(files)))
  notes = collections.Counter()
  usable, skipped, looped = [], list(listed.skipped), 0
  for file, entry in zip(files, entries, strict=True):
    reason = entry.reason or _beyond(settings.limits, file, entry)
    if not reason and entry.frames < settings.min_frames:
      short = (
          f'it has {entry.frames} frames, fewer than the '
          f'{settings.min_frames} wanted'
      )
      if settings.short_clips == 'refuse':
        raise ArgumentError(
            f'{file.name}: {short}; set ', Argument('short_clips'),
            " to 'drop' or 'loop'.",
        )
      reason = short if settings.short_clips == 'drop' else ''
      looped += not reason
    if reason:
      skipped.append({'file': file.name, 'reason': reason})
    else:
      # Numbers go into the fingerprint, of which skipped files are no part.
      usable.append((len(usable), file, entry))
      notes.update(entry.notes)
  _log_skipped(skipped)
  for note, number in notes.items():
    logging.info('%s: %d of %d files.', note, number, len(files))
  splits = _splits(usable, plan)
  for split, stretches in splits.items():
    if not stretches:
      first = skipped[0] if skipped else {'file': 'none', 'reason': 'no file'}
      raise UserError(
          f'{name} has no usable video for the split {split!r}: of '
          f'{len(files)} files {len(skipped)} were skipped, the first of them, '
          f'{first["file"]}, because: {first["reason"]}.'
      )
  sizes = sorted(
      ((entry.height, entry.width) for _, _, entry in usable), key=math.prod
  )
  found = [
      [*file[1:], entry.digest or entry.reason]
      for file, entry in zip(files, entries, strict=True)
  ]
  # Not with what was left out: another run among the files changes nothing.
  settled = [
      cache_entries.VERSION, settings, plan.class_names, plan.report,
      listed.skipped, found,
  ]
  key = hashlib.sha256(json.dumps(settled).encode()).hexdigest()[:16]
  form = shard_files.Form(
      name=name,
      key=key,
      height=settings.height,
      width=settings.width,
      clip_frames=settings.clip_frames,
      min_frames=settings.min_frames,
      short_clips=settings.short_clips,
  )
  directory = shards.pack(
      splits,
      form,
      data_dir=plan.data_dir,
      at_most=sum(
          max(entry.frames, settings.min_frames) // settings.clip_frames + 1
          for _, _, entry in usable
      ),
      class_names=plan.class_names,
      report=dict(
          files=len(files),
          usable=len(usable),
          seconds=round(sum(entry.seconds for _, _, entry in usable), 3),
          smallest_source=sizes[0],
          largest_source=sizes[-1],
          looped=looped,
          **plan.report or {},
          skipped=skipped,
          left_out=listed.left_out,
          unread=listed.unread,
          notes=dict(notes),
      ),
      write_all=write_all,
  )
  # Where the disk does not take the note, the files are read again next time.
  with contextlib.suppress(OSError):
    files_lib.write(folders.note(plan.listing_key, name, plan.data_dir), key)
  logging.info(
      'Prepared %s: %d of %d files, %d skipped; see %s.',
      name, len(usable), len(files), len(skipped), directory / 'report.json',
  )
  if not plan.keep_cache:
    for entry in entries:
      entry.remove()
  return directory


def made(plan: Plan | pathlib.Path) -> pathlib.Path:
  """The directory of the records of a plan, packed now unless it is one."""
  return pack(plan) if isinstance(plan, Plan) else plan


def _beyond(limits, file, entry: cache_entries.Entry) -> str:
  """Why a file that was decoded under other limits cannot be used, or ''."""
  try:
    limits.check(
        file.path, height=entry.height, width=entry.width, frames=entry.frames,
        seconds=entry.seconds,
    )
  except limits_lib.LimitError as error:
    return error.reason
  return ''


def _splits(usable, plan: Plan) -> dict[str, list[shard_files.Stretch]]:
  """Deals (number, file, entry) to 'train' and 'test'."""
  splits = {
      split: [_stretch(each, plan) for each in usable if each[1].split == split]
      for split in ('train', 'test')
  }
  if any(splits.values()):
    return splits
  pieces = [_stretch(video, plan) for video in usable]
  few = len(usable) < TEST_EVERY
  if few:
    pieces = [p for video in pieces for p in _pieces(video, plan.settings)]
  test = pieces[::TEST_EVERY]
  train = [piece for i, piece in enumerate(pieces) if i % TEST_EVERY]
  return {'train': train or test if few else train, 'test': test}


def _stretch(video, plan: Plan) -> shard_files.Stretch:
  """All clips of a (number, file, entry)."""
  number, file, entry = video
  frames = max(entry.frames, plan.settings.min_frames)
  return shard_files.Stretch(
      path=os.path.relpath(entry.path, plan.data_dir),
      frames=entry.frames,
      video_id=number,
      name=file.name,
      label=file.label,
      caption=file.caption,
      source=entry.digest,
      first=0,
      stop=-(-frames // plan.settings.clip_frames),
  )


def _pieces(
    video: shard_files.Stretch, settings: Settings
) -> list[shard_files.Stretch]:
  """The clips of a video, in pieces that hold a window each."""
  size = -(-settings.min_frames // settings.clip_frames)
  starts = [*range(0, video.stop, size)]
  rest = video.frames - starts[-1] * settings.clip_frames
  if rest < settings.min_frames and len(starts) > 1:
    starts.pop()
  return [
      video._replace(first=first, stop=stop)
      for first, stop in itertools.pairwise([*starts, video.stop])
  ]


def _log_skipped(skipped: list[dict[str, str]]) -> None:
  for each in skipped[:listing.NAMED]:
    logging.warning(
        'skipped %s: %s', files_lib.printable(each['file']), each['reason']
    )
  if more := skipped[listing.NAMED:]:
    logging.warning('skipped %d more', len(more))
