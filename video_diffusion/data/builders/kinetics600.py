"""Kinetics-600 (Carreira et al. 2018): the published CSVs and downloaded clips.

The CSVs name a class, a YouTube id and the ten seconds that were taken of it.
Downloaders lay the clips out in several ways; files are found by their names.
"""
from collections.abc import Iterator
import logging
import os
import pathlib
import re
from typing import Any, NamedTuple

from video_diffusion.data import text_files
from video_diffusion.data import video
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import folders
from video_diffusion.data.builders import video_files
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError

NAME = 'kinetics600'
COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end')
# A split of the CSVs -> what it is called in their names and in folders.
ALIASES = {
    'train': ('train',),
    'test': ('test',),
    'validate': ('val', 'validate', 'validation', 'valid'),
}
WANTED = (
    'the folder with train.csv and val.csv (in it or in annotations/) and the '
    'downloaded clips'
)
MISSING_NAMED = 1000  # ids in the report


class Row(NamedTuple):
  """A line of a CSV; the times are whole seconds of the YouTube video."""

  label: str
  youtube_id: str
  start: int
  end: int

  @property
  def clip_id(self) -> str:
    """The name that most downloaders give the file."""
    return f'{self.youtube_id}_{self.start:06d}_{self.end:06d}'


def plan(
    path: str | os.PathLike,
    settings: file_plans.Settings,
    *,
    data_dir: str | os.PathLike,
    fraction: float = 1.0,
    keep_cache: bool = True,
) -> file_plans.Plan | pathlib.Path:
  """Plans to turn the downloaded part of Kinetics-600 into records, once.

  CSVs are train.csv, val.csv or validate.csv, and test.csv, perhaps behind
  kinetics600_ or kinetics_600_, with the header
  label,youtube_id,time_start,time_end,split and perhaps more columns. A clip is
  a file anywhere below `path` named ID_START_END (six digits each, or plain
  numbers) or ID alone; one in a folder named after the split comes first.

  'train' is the training CSV. 'test' is the test CSV, else the validation CSV,
  whichever first has a clip on disk; without either every 20th training video
  is held out. Labels are the places of the class names in sorted order.

  report.json has, besides what `video_files.pack` says,
    splits: {split: the CSV that it comes from, '' for held-out videos},
    missing: number of clips of these CSVs that are not on disk,
    missing_ids: the first 1000 of them.

  Args:
    path: the folder with CSVs and clips.
    settings: settings of the records.
    data_dir: folder of prepared data, made if need be.
    fraction: see `file_plans.of_fraction`.
    keep_cache: False deletes the decoded frames when they are in the records.

  Returns:
    The plan, or the directory of the records that were made before. After more
    clips were downloaded, these alone are decoded.

  Raises:
    UserError: a setting is out of range, or CSVs or clips are missing or
      unusable.
  """
  settings.check()
  folder, found = folders.list_folder(
      path, video.VIDEO_SUFFIXES, what=WANTED, data_dir=data_dir,
      companions=('*.csv',),
  )
  paths = found.files
  tables = find_tables(folder)
  if 'train' not in tables:
    raise ArgumentError(
        Argument('path'), f', {folder}, holds no train.csv of Kinetics-600; '
        f'give {WANTED}.',
    )
  key = folders.listing_key(
      settings, [*paths, *tables.values()], found.skipped, fraction=fraction
  )
  directory = folders.packed_before(key, name=NAME, data_dir=data_dir)
  if directory:
    return directory

  by_stem: dict[str, list[pathlib.Path]] = {}
  for file in paths:
    by_stem.setdefault(file.stem, []).append(file)
  rows = {split: read_rows(table) for split, table in tables.items()}
  train = _on_disk(rows['train'], 'train', by_stem, folder)
  used, heldout = ['train'], []
  for split in ('test', 'validate'):
    if split in rows:
      heldout = _on_disk(rows[split], split, by_stem, folder)
      if any(file for _, file in heldout):
        used.append(split)
        break
      heldout = []
  if len(used) == 1:
    logging.info('Kinetics-600: every 20th video of train.csv is held out.')
  else:
    logging.info(
        "Kinetics-600: the split 'test' is %s.", tables[used[1]].name
    )
  class_names = tuple(
      sorted({row.label for row, _ in train + heldout if row.label})
  )
  labels = {name: i for i, name in enumerate(class_names)}
  # With a single CSV the files name no split.
  names = ('train', 'test') if heldout else ('',)
  files = [
      file_plans.File(
          path=file,
          name=file.relative_to(folder).as_posix(),
          split=split,
          label=labels.get(row.label, -1),
      )
      for split, found in zip(names, (train, heldout), strict=False)
      for row, file in found
      if file
  ]
  missing = [row.clip_id for row, file in train + heldout if not file]
  if missing and not files:
    raise ArgumentError(
        Argument('path'), f', {folder}, holds none of the {len(missing)} clips '
        f'that its CSVs name; name them such as {missing[0]}.mp4.',
    )
  if not files:
    raise UserError(f'{tables["train"]} names no clips.')
  logging.info(
      'Kinetics-600: %d clips are on disk and %d are not.',
      len(files), len(missing),
  )
  return file_plans.Plan(
      files=file_plans.of_fraction(files, fraction),
      settings=settings,
      name=NAME,
      data_dir=data_dir,
      listing_key=key,
      keep_cache=keep_cache,
      listed=found,
      class_names=class_names,
      report={
          'splits': {
              'train': tables['train'].name,
              'test': tables[used[1]].name if heldout else '',
          },
          'missing': len(missing),
          'missing_ids': missing[:MISSING_NAMED],
      },
  )


def prepare(*args: Any, **options: Any) -> pathlib.Path:
  """Turns the downloaded part of Kinetics-600 into records, once.

  Args:
    *args: see `plan`.
    **options: see `plan`.

  Returns:
    The directory of the records.

  Raises:
    UserError: see `plan` and `video_files.pack`.
  """
  return video_files.made(plan(*args, **options))


def find_tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """{'train', 'validate', 'test': CSV} of those in folder or annotations/."""
  found = {}
  for parent in (folder, folder / 'annotations'):
    for file in sorted(parent.glob('*.csv')):
      name = re.sub(r'^kinetics[-_]?600[-_]?', '', file.stem.lower())
      for split, aliases in ALIASES.items():
        if name in aliases:
          found.setdefault(split, file)
  return found


def read_rows(table: pathlib.Path) -> list[Row]:
  """The rows of a CSV, in the dialect of `text_files.csv_rows`.

  Raises:
    UserError: names the file, and the line, that lack a column or a number or
      are damaged.
  """
  rows = []
  for line, row in text_files.csv_rows(table, COLUMNS, texts='labels'):
    label, youtube_id, start, end = (row[name].strip() for name in COLUMNS)
    try:
      times = int(float(start)), int(float(end))
    except (ValueError, OverflowError):
      times = None
    if not youtube_id or not times:
      raise UserError(
          f'{table}, line {line}: it must have a label, a youtube_id, and two '
          'times in seconds.'
      )
    rows.append(Row(label.replace('_', ' '), youtube_id, *times))
  return rows


def _on_disk(
    rows: list[Row],
    split: str,
    by_stem: dict[str, list[pathlib.Path]],
    folder: pathlib.Path,
) -> list[tuple[Row, pathlib.Path | None]]:
  """Each row with its file, None where there is none."""
  return [(row, _file(row, split, by_stem, folder)) for row in rows]


def _file(row, split, by_stem, folder) -> pathlib.Path | None:
  others = {a for s in ALIASES if s != split for a in ALIASES[s]}
  for stem in _stems(row):
    candidates = by_stem.get(stem, ())

    def rank(file):
      folders = {part.lower() for part in file.relative_to(folder).parts[:-1]}
      if folders & {*ALIASES[split]}:
        return 0
      return 2 if folders & others else 1

    if candidates:
      return min(candidates, key=rank)  # the first by path among equals
  return None


def _stems(row: Row) -> Iterator[str]:
  yield row.clip_id
  yield f'{row.youtube_id}_{row.start}_{row.end}'
  yield f'{row.youtube_id}_{row.start}'
  yield row.youtube_id
