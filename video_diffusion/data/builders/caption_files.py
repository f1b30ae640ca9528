"""Reads the caption file of a folder, and matches captions to files."""
from collections.abc import Iterator, Sequence
import itertools
import logging
import os
import pathlib
import re
from typing import Any, NamedTuple
import unicodedata

from video_diffusion.data import sides
from video_diffusion.data import text_files
from video_diffusion.data import video
from video_diffusion.errors import UserError

_FORM = '{"file": "a/b.mp4", "caption": "..."}'
_MEDIA = tuple(
    suffix.lower() for suffix in (*video.VIDEO_SUFFIXES, *video.IMAGE_SUFFIXES)
)


class Caption(NamedTuple):
  """A row of a caption file.

  Attributes:
    line: on which the row begins, counted from 1.
    file: name as written, without blanks around it.
    caption: without blanks and line ends around it; '' for none.
  """

  line: int
  file: str
  caption: str


class Matched(NamedTuple):
  """The captions of a folder's files.

  Attributes:
    by_name: {name of a file: its caption}, for the files that have one.
    report: counts for report.json, see `match`.
  """

  by_name: dict[str, str]
  report: dict[str, Any]


def read(path: pathlib.Path) -> list[Caption]:
  """Returns the rows of a caption file, in order.

  A captions.jsonl has lines {"file": "a/b.mp4", "caption": "..."}; other fields
  are ignored. A captions.csv has the columns file and caption, perhaps among
  others, in the dialect of `text_files.csv_rows`, and its captions in quotes
  may have several lines. Both are UTF-8.

  A file that is damaged is refused. Three damages leave a sound file, and no
  reader can see them: other letters within a caption; a file that was cut
  between two rows, whose missing captions `match` counts; and a CSV file that
  was cut within its last caption, of which a warning tells.

  Raises:
    UserError: names the file and the line that cannot be read.
  """
  if path.suffix == '.jsonl':
    rows = text_files.json_rows(path, _FORM)
  else:
    rows = text_files.csv_rows(path, ('file', 'caption'), texts='captions')
  captions = []
  for line, row in rows:
    where = f'{path}, line {line}:'
    for field in ('file', 'caption'):
      value = row.get(field)
      if not isinstance(value, str):
        found = (
            f'its {field} is {value!r}' if field in row else f'has no {field}'
        )
        raise UserError(f'{where} it must have {_FORM}, but {found}.')
      if not _is_text(value):
        raise UserError(
            f'{where} its {field}, {value!r}, holds a character that is no '
            'text; remove it.'
        )
    if path.suffix != '.jsonl':
      _check_not_swallowed(where, row.values())
    caption = Caption(line, row['file'].strip(), row['caption'].strip())
    if not caption.file or '\n' in caption.file or '\r' in caption.file:
      raise UserError(
          f'{where} its file is {caption.file!r}; it must be the name of one '
          'file.'
      )
    captions.append(caption)
  if not captions:
    raise UserError(
        f'{path}, line 1: it holds no caption; write some, or remove the file.'
    )
  return captions


def match(
    captions: Sequence[Caption],
    names: Sequence[str],
    *,
    path: pathlib.Path,
) -> Matched:
  """Gives each file of a folder its caption, and says what is left over.

  A caption's file counts from the folder of the caption file: 'a/b.mp4',
  './a/b.mp4', '..\\\\videos\\\\a\\\\b.mp4' and absolute paths below the folder
  are one file, whichever Unicode normal form (composed or not) they have. Other
  letters, another case too, and a missing suffix make another name: the warning
  then shows the nearest file. Of several captions of a file the last counts.

  Warnings, each with counts and an example, tell of captions that name no file,
  of files without a caption, and of captions that another one replaced. The
  report counts the same as
    captions_without_file: names in the caption file,
    files_without_caption: files, those with an empty caption too,
    captions_replaced: captions that differ from a later one of their file,
    captions_naming_sides: `sides.Found` of the captions of all files.

  Args:
    captions: rows of the caption file, at least one.
    names: names of the files below the folder, with forward slashes.
    path: path of the caption file.

  Raises:
    UserError: no caption names a file.
  """
  folder = _Folder(path.parent, names)
  by_name: dict[str, Caption] = {}
  lost: dict[str, Caption] = {}
  replaced = []
  for caption in captions:
    name = folder.find(caption.file)
    if name is None:
      lost.setdefault(caption.file, caption)
      continue
    before = by_name.get(name, caption)
    if before.caption != caption.caption:
      replaced.append((name, before, caption))
    by_name[name] = caption
  if lost:
    first = next(iter(lost.values()))
    nearest = folder.nearest(first.file)
    near = f'; the nearest file is {nearest!r}' if nearest else ''
    example = f'{first.file!r} on line {first.line}{near}'
    if not by_name:
      raise UserError(
          f'{path}: none of its {len(captions)} captions names a file of '
          f'{path.parent}, for instance {example}; write names '
          f'relative to that folder, such as {names[0]!r}.'
      )
    logging.warning(
        '%s: %d of the %d files that it names %s not found, for instance %s.',
        path, len(lost), len(lost) + len(by_name),
        'was' if len(lost) == 1 else 'were', example,
    )
  if replaced:
    name, before, after = replaced[0]
    logging.warning(
        '%s: a file has the last of its captions; %d %s replaced, for instance '
        'that of %r on line %d by that on line %d.',
        path, len(replaced), 'was' if len(replaced) == 1 else 'were', name,
        before.line, after.line,
    )
  texts = {name: row.caption for name, row in by_name.items() if row.caption}
  without = [name for name in names if name not in texts]
  if without:
    logging.warning(
        '%s: %d of the %d files of its folder %s no caption, for instance %r.',
        path, len(without), len(names),
        'has' if len(without) == 1 else 'have', without[0],
    )
  return Matched(
      texts,
      {
          'captions_without_file': len(lost),
          'files_without_caption': len(without),
          'captions_replaced': len(replaced),
          'captions_naming_sides': sides.find(texts.values()),
      },
  )


class _Folder:
  """Finds files of a folder by names that people and programs write."""

  def __init__(self, folder: pathlib.Path, names: Sequence[str]):
    self._names = frozenset(names)
    # Absolute names may go through links or around them.
    self._roots = tuple(dict.fromkeys(
        _composed(root)
        for root in (os.path.abspath(folder), os.path.realpath(folder))
    ))
    self._by_form: dict[str, list[str]] = {}
    for name in names:
      self._by_form.setdefault(_composed(name), []).append(name)

  def find(self, written: str) -> str | None:
    """The file that a name means; None where there is no such file."""
    if written in self._names:
      return written
    for name in self._from_here(written):
      found = self._by_form.get(name, ())
      if len(found) == 1:
        return found[0]
    return None

  def nearest(self, written: str) -> str | None:
    """A file whose name differs in its case, its suffix or its folder."""
    last = _composed(written).replace('\\', '/').rpartition('/')[2].casefold()
    stem = lambda name: name.rpartition('.')[0] or name
    files = {
        _composed(name).rpartition('/')[2].casefold(): name
        for name in sorted(self._names, reverse=True)
    }
    by_stem = {stem(file): name for file, name in files.items()}
    return files.get(last) or by_stem.get(last) or by_stem.get(stem(last))

  def _from_here(self, written: str) -> Iterator[str]:
    for root in self._roots:
      path = os.path.join(root, _composed(written).replace('\\', '/'))
      yield os.path.relpath(os.path.normpath(path), root).replace(os.sep, '/')


def _composed(text: str) -> str:
  return unicodedata.normalize('NFC', text)


def _is_text(value: str) -> bool:
  """False with a lone surrogate, which UTF-8 cannot hold, or a zero."""
  return '\0' not in value and not re.search(r'[\ud800-\udfff]', value)


def _check_not_swallowed(where: str, fields) -> None:
  """Raises UserError for a field of several lines that holds another row.

  Where the quote after one caption and the quote before a later one are lost,
  the file is sound CSV, and the rows between them are a part of the first
  caption.
  """
  for field in fields:
    lines = text_files.split_lines(field)
    if len(lines) == 1:
      continue
    for part in itertools.chain(*(line.split(',') for line in lines)):
      if part.strip(' "').lower().endswith(_MEDIA):
        raise UserError(
            f'{where} a quote opens here, and the text up to the next one '
            f'holds {part.strip(" ")!r} as another row would; close the quote, '
            'or write the caption on one line.'
        )
