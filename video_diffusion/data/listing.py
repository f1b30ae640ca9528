"""Finds the data files of a folder, and says what was left out and why."""
import collections
from collections.abc import Sequence
import fnmatch
import functools
import logging
import os
import pathlib
from typing import NamedTuple

# What marks the folder of a run: its config, in which this field always
# stands, or the picture of a batch that --mode=inspect leaves beside its
# numbers.
_CONFIG, _FIELD = 'config.json', b'"data_fingerprint"'
_INSPECTED = {'inspect.json', 'batch.gif'}
_MOST_OF_CONFIG = 2**20  # bytes of config.json in which the field is looked for
NAMED = 10  # of what was passed over, in a message; the report names all


class Listing(NamedTuple):
  """The content of a folder and of the folders below it.

  Attributes:
    files: files with the suffixes, sorted by path; also files that cannot be
      opened, whose reader says why.
    skipped: a list of {file, reason}: folders that cannot be read, by their
      names below the folder.
    left_out: names below the folder of the folders of runs, and of others
      that hold no data.
    unread: suffix, in lower case, -> number of the files that have it and are
      not read.
  """

  files: list[pathlib.Path]
  skipped: list[dict[str, str]]
  left_out: list[str]
  unread: dict[str, int]

  def unread_kinds(self) -> str:
    """Lists the unread suffixes and their numbers, the most frequent first."""
    by_number = sorted(self.unread.items(), key=lambda kind: (-kind[1], kind))
    return ', '.join(f'{suffix or "no suffix"} {n}' for suffix, n in by_number)

  def log(self) -> None:
    """Logs which files are left out."""
    if self.left_out:
      more = len(self.left_out) - NAMED
      _warn_once(
          'These folders are left out of the data, since they hold results of '
          f'runs or prepared data: {", ".join(self.left_out[:NAMED])}'
          f'{f" and {more} more" if more > 0 else ""}.'
      )
    if self.unread:
      _warn_once(
          'Files of other kinds are not read; by suffix there are '
          f'{self.unread_kinds()}.'
      )


@functools.cache  # both splits of a data set list its folder
def _warn_once(sentence: str) -> None:
  logging.warning('%s', sentence)


def find(
    folder: str | os.PathLike,
    suffixes: tuple[str, ...],
    *,
    leave_out: Sequence[str | os.PathLike] = (),
    companions: tuple[str, ...] = (),
) -> Listing:
  """Lists the files in `folder` and below it.

  Those count whose suffix, in either case, is one of `suffixes`. Linked
  folders are followed, each real folder once. Names with a leading dot are left
  out: macOS writes such a file, which is no video, beside each copied one. So
  are folders of runs, whose samples would otherwise become training data.

  Args:
    folder: folder to begin at; it counts even if it is the folder of a run.
    suffixes: suffixes of the files, in lower case, with their dot.
    leave_out: further folders that hold no data, if they lie below `folder`.
    companions: patterns, in lower case, of the names below `folder` of other
      files that belong to the data, such as captions; they do not count as
      unread.
  """
  files, skipped, left_out = [], [], []
  unread = collections.Counter()
  others = {os.path.realpath(path) for path in leave_out}
  folders, seen = [pathlib.Path(folder)], set()

  def name(path):
    return path.relative_to(folder).as_posix()

  while folders:
    parent = folders.pop()
    real = os.path.realpath(parent)
    if real in seen:  # a link that leads back
      continue
    seen.add(real)
    try:
      with os.scandir(parent) as found:
        entries = list(found)
    except OSError as error:
      reason = f'the folder cannot be read: {error.strerror}'
      skipped.append({'file': f'{name(parent)}/', 'reason': reason})
      continue
    below = parent != pathlib.Path(folder)
    if below and (real in others or is_run(parent, [e.name for e in entries])):
      left_out.append(name(parent))
      continue
    for entry in entries:
      if entry.name.startswith('.'):
        continue
      path, kind = parent / entry.name, _kind(entry)
      if kind == 'folder':
        folders.append(path)
      elif kind != 'other' and path.suffix.lower() in suffixes:
        files.append(path)
      elif kind == 'unknown' and not path.suffix[1:].isalpha():
        # It may have been a folder, on a disk that is not mounted.
        skipped.append({'file': name(path), 'reason': 'a link to nothing'})
      elif kind == 'file' and not any(
          fnmatch.fnmatchcase(name(path).lower(), each) for each in companions
      ):
        unread[path.suffix.lower()] += 1
  return Listing(
      sorted(files),
      sorted(skipped, key=lambda each: each['file']),
      sorted(left_out),
      dict(unread),
  )


def is_run(folder: str | os.PathLike, names: Sequence[str]) -> bool:
  """Returns whether this program has written the folder with these files."""
  if _INSPECTED <= {*names}:
    return True
  if _CONFIG not in names:
    return False
  try:
    with open(os.path.join(folder, _CONFIG), 'rb') as file:
      return _FIELD in file.read(_MOST_OF_CONFIG)
  except OSError:
    return False


def _kind(entry: os.DirEntry) -> str:
  """'folder', 'file', 'other' (a pipe, say) or 'unknown' (a link to nothing).

  Who reads an unknown file finds out why, and has the reason.
  """
  try:
    if entry.is_dir():
      return 'folder'
    if entry.is_file():
      return 'file'
    os.stat(entry.path)
    return 'other'
  except OSError:
    return 'unknown'
