"""Reads the text, CSV and JSON files that people give, strictly.

A file that is damaged or saved wrongly is refused with the line to mend; what
it might have meant is never guessed. Python's csv module does not serve: it
reads quotes within unquoted fields as letters, lets an unclosed quote swallow
rows up to the next quote, and cannot say where that quote opens.
"""
import collections
from collections.abc import Iterator, Sequence
import json
import logging
import os
import pathlib
import re
from typing import Any

from video_diffusion.errors import UserError

_BYTE_ORDER_MARKS = {  # UTF-32's begins as UTF-16's does, and comes first
    b'\xff\xfe\0\0': 'UTF-32',
    b'\0\0\xfe\xff': 'UTF-32',
    b'\xff\xfe': 'UTF-16',
    b'\xfe\xff': 'UTF-16',
}
_DELIMITERS = {';': 'semicolons', '\t': 'tabs', '|': 'vertical bars'}
_LINE_END = re.compile(r'\r\n|\r|\n')
_LINE_END_BYTES = re.compile(rb'\r\n|\r|\n')
# A field in quotes, in which "" is a quote, or one without any. The quantifiers
# are possessive, so that a wrong field is refused in linear time.
_FIELD = re.compile(
    r'(?: *+"(?P<quoted>(?:[^"]|"")*+)" *+|(?P<plain>[^",\r\n]*+))'
    r'(?=[,\r\n]|\Z)'
)
_OPENED = re.compile(r' *+"(?:[^"]|"")*+')
_HOW_TO_QUOTE = 'put quotes around the whole field and write "" for a quote'


def read_text(path: str | os.PathLike) -> str:
  """Returns the text of a UTF-8 file, without a byte order mark.

  Raises:
    UserError: names the first line that is not UTF-8 or holds a zero byte; or
      the file cannot be read, or is a folder.
  """
  try:
    content = pathlib.Path(path).read_bytes()
  except IsADirectoryError as error:
    raise UserError(
        f'{os.fspath(path)} is a folder; it must be a text file.'
    ) from error
  except OSError as error:
    raise UserError(
        f'{os.fspath(path)} cannot be read ({error.strerror}).'
    ) from error
  for mark, encoding in _BYTE_ORDER_MARKS.items():
    if content.startswith(mark):
      raise _error(path, 1, f'it is {encoding}; save the file as UTF-8')
  line = lambda end: 1 + len(_LINE_END_BYTES.findall(content[:end]))
  try:
    text = content.decode('utf-8-sig')  # Windows' editors put a mark first
  except UnicodeDecodeError as error:
    raise _error(
        path,
        line(error.start),
        f'its byte 0x{content[error.start]:02X} is not UTF-8; save the file as '
        'UTF-8',
    ) from error
  if '\0' in text:
    raise _error(
        path,
        line(content.index(0)),
        'it holds a zero byte, as UTF-16 and damaged files do; save the file '
        'as UTF-8',
    )
  return text


def split_lines(text: str) -> list[str]:
  r"""Splits a text into lines, which end in \n, \r\n or \r and nothing else.

  str.splitlines would also split at form feeds and at U+2028, which captions
  may hold.
  """
  return _LINE_END.split(text)


def json_rows(
    path: str | os.PathLike, form: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  """The objects of a file that has one JSON object a line, blank lines aside.

  Args:
    path: path of the file.
    form: how a line should look, for the error.

  Yields:
    (line, counted from 1; its object).

  Raises:
    UserError: names the line that is no JSON object, or has a field twice.
  """

  def unique(pairs):
    fields = collections.Counter(field for field, _ in pairs)
    if len(fields) < len(pairs):
      twice, _ = fields.most_common(1)[0]
      raise ValueError(f'the field {twice!r} stands there twice')
    return dict(pairs)

  for number, line in enumerate(split_lines(read_text(path)), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line, object_pairs_hook=unique)
      reason = 'it is no JSON object'
    except json.JSONDecodeError as error:
      row, reason = None, f'it is cut or no JSON ({error.msg})'
    except (ValueError, RecursionError) as error:
      row, reason = None, f'it cannot be read ({error})'
    if not isinstance(row, dict):
      raise _error(path, number, f'it must have {form}, but {reason}')
    yield number, row


def csv_rows(
    path: str | os.PathLike, columns: Sequence[str], *, texts: str
) -> Iterator[tuple[int, dict[str, str]]]:
  r"""The rows of a CSV file whose first line names its columns.

  One dialect is read, that of RFC 4180: commas between fields; a field that
  holds a comma, a quote or a line end is in quotes, and "" is a quote within
  it; lines end in \n, \r\n or \r; every row has as many fields as the header.
  Beyond that, blanks around a field, empty lines and empty rows do not count.

  Where the file does not end with a line end, its last field may be cut, one in
  quotes too, since "a" is how "a""b" begins. A warning says so.

  Args:
    path: path of the file.
    columns: columns that the file must have, in any order, among others.
    texts: what the error calls the long fields, for instance 'captions'.

  Yields:
    (line on which the row begins, counted from 1; {column: field}).

  Raises:
    UserError: names the line that is wrong.
  """
  text = read_text(path)
  wanted = f'the columns {", ".join(columns[:-1])} and {columns[-1]}'
  rows = _split_rows(path, text)
  begins = text.lstrip(' \r\n')
  header = 1 + len(_LINE_END.findall(text[: len(text) - len(begins)]))
  names, first_line = [], begins.partition('\n')[0].partition('\r')[0]
  likely = _likely_delimiter(first_line, columns)
  if not likely:
    _, names = next(rows, (header, []))
    names = [name.strip() for name in names]
  if likely or not {*columns} <= {*names}:
    found = ', '.join(map(repr, names)) or repr(first_line)
    found = found if len(found) < 200 else found[:200] + '...'
    advice = f'; this line seems to have {likely}' if likely else ''
    raise _error(
        path,
        header,
        f'its columns are {found}; the first line must name {wanted}, '
        f'separated by commas{advice}',
    )
  for name in columns:
    if names.count(name) > 1:
      raise _error(path, header, f'it names the column {name} twice')
  for number, fields in rows:
    if not any(fields):
      continue  # a spreadsheet's empty row
    if len(fields) > len(names):
      raise _error(
          path,
          number,
          f'it has more fields than columns; put quotes around {texts} that '
          'hold commas',
      )
    if len(fields) < len(names):
      raise _error(
          path,
          number,
          f'it must have {wanted}, but has fewer fields than columns, '
          f'{len(fields)} of {len(names)}',
      )
    yield number, dict(zip(names, fields, strict=True))


def _likely_delimiter(line: str, columns: Sequence[str]) -> str:
  """What separates the fields of a header, if that is no comma, in words."""
  for delimiter, name in _DELIMITERS.items():
    parts = [part.strip(' "') for part in line.split(delimiter)]
    if {*columns} <= {*parts} or (len(parts) > 1 and ',' not in line):
      return name
  return ''


def _split_rows(path, text: str) -> Iterator[tuple[int, list[str]]]:
  """(line on which it begins, fields) of each row."""
  at, line = 0, 1
  while at < len(text):
    first, fields = line, []
    while True:
      match = _FIELD.match(text, at)
      if not match:
        raise _wrong_field(path, text, at, line)
      quoted = match['quoted']
      if quoted is None:
        fields.append(match['plain'].strip(' '))
      else:
        fields.append(quoted.replace('""', '"'))
        line += len(_LINE_END.findall(quoted))
      at = match.end()
      if not text.startswith(',', at):
        break
      at += 1
    end = _LINE_END.match(text, at)
    if fields != ['']:
      if not end:
        logging.warning(
            '%s, line %d: the file ends without a line end, as one that was '
            'cut does; check that its last field, %r, is whole.',
            path, line, fields[-1],
        )
      yield first, fields
    if not end:
      return
    at, line = end.end(), line + 1


def _wrong_field(path, text: str, at: int, line: int) -> UserError:
  """Why no field begins at a place of a line."""
  opened = _OPENED.match(text, at)
  if not opened:
    return _error(
        path,
        line,
        'a quote stands within a field that does not begin with one; '
        f'{_HOW_TO_QUOTE}',
    )
  if opened.end() == len(text):
    return _error(
        path, line, f'a quote opens here and is never closed; {_HOW_TO_QUOTE}'
    )
  closes = line + len(_LINE_END.findall(opened.group()))
  where = '' if closes == line else f' and closes on line {closes}'
  return _error(
      path,
      line,
      f'a quote opens here{where}, and text follows the closing quote; '
      f'{_HOW_TO_QUOTE}',
  )


def _error(path, line: int, sentence: str) -> UserError:
  return UserError(f'{os.fspath(path)}, line {line}: {sentence}.')
