"""Damages caption files, so that tests can ask what a reader makes of them.

A letter that became another letter, or a row that is wholly gone, leaves a
sound file with other captions: no reader can see that. So these damages are of
the structure (quotes, delimiters, line ends), of the encoding, or cuts.
"""
from collections.abc import Callable, Sequence
import random
import re


def _outside_quotes(content: bytes) -> list[int]:
  """Places in a sound CSV file, its end too, that are in no quoted field."""
  places, inside = [], False
  for i, byte in enumerate(content):
    if not inside:
      places.append(i)
    inside ^= byte == ord('"')
  return [*places, len(content)]


def _field_quotes(content: bytes) -> tuple[list[int], list[int]]:
  """Places of the quotes that open, and that close, the fields of a CSV."""
  fields = list(re.finditer(rb'"(?:[^"]|"")*+"', content))
  return [m.start() for m in fields], [m.end() - 1 for m in fields]


def _without(content: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
  for start, stop in sorted(spans, reverse=True):
    content = content[:start] + content[stop:]
  return content


def _insert(content: bytes, at: int, piece: bytes) -> bytes:
  return content[:at] + piece + content[at:]


def _lose(content, rng, pattern, places=None):
  found = [
      match.span() for match in re.finditer(pattern, content)
      if places is None or match.start() in places
  ]
  return _without(content, [rng.choice(found)]) if found else content


def cut(content: bytes, rng: random.Random) -> bytes:
  """The file ends early, as after a full disk or a broken download."""
  return content[: rng.randrange(len(content))]


def bad_byte(content: bytes, rng: random.Random) -> bytes:
  """A byte becomes one that UTF-8 has nowhere."""
  at = rng.randrange(3, len(content))  # a byte order mark is no place of a row
  return content[:at] + bytes([rng.choice([0xC0, 0xFE, 0xFF])]) + content[
      at + 1 :
  ]


def zero_byte(content: bytes, rng: random.Random) -> bytes:
  """A byte becomes zero."""
  at = rng.randrange(3, len(content))
  return content[:at] + b'\0' + content[at + 1 :]


def utf16(content: bytes, rng: random.Random) -> bytes:
  """The file is saved anew as UTF-16, with a byte order mark or without."""
  return content.decode('utf-8-sig').encode(rng.choice(['utf-16', 'utf-16-le']))


def csv_lose_quote(content: bytes, rng: random.Random) -> bytes:
  """Any quote is lost."""
  return _lose(content, rng, b'"')


def csv_add_quote(content: bytes, rng: random.Random) -> bytes:
  """A quote appears anywhere."""
  return _insert(content, rng.randrange(3, len(content) + 1), b'"')


def csv_lose_comma(content: bytes, rng: random.Random) -> bytes:
  """A comma between fields is lost."""
  return _lose(content, rng, b',', {*_outside_quotes(content)})


def csv_add_comma(content: bytes, rng: random.Random) -> bytes:
  """A comma appears outside quotes."""
  places = [i for i in _outside_quotes(content) if i >= 3]
  return _insert(content, rng.choice(places), b',')


def csv_lose_line_end(content: bytes, rng: random.Random) -> bytes:
  """A line end between rows is lost."""
  return _lose(content, rng, rb'\r\n|\r|\n', {*_outside_quotes(content)})


def csv_add_line_end(content: bytes, rng: random.Random) -> bytes:
  """A line end appears outside quotes."""
  places = [i for i in _outside_quotes(content) if i >= 3]
  return _insert(content, rng.choice(places), rng.choice([b'\n', b'\r\n']))


def csv_swallow(content: bytes, rng: random.Random) -> bytes:
  """The quotes after one field and before the next such field are lost."""
  opening, closing = _field_quotes(content)
  pairs = list(zip(closing, opening[1:], strict=False))
  if not pairs:
    return content
  return _without(content, [(at, at + 1) for at in rng.choice(pairs)])


def _json_structure(content: bytes, characters: bytes) -> list[int]:
  """Places of characters that are no part of a JSON string's content."""
  places, inside, i = [], False, 0
  while i < len(content):
    if inside and content[i] == ord('\\'):
      i += 2
      continue
    quote = content[i] == ord('"')
    if content[i] in characters and (quote or not inside):
      places.append(i)
    inside ^= quote
    i += 1
  return places


def jsonl_lose_mark(content: bytes, rng: random.Random) -> bytes:
  """A quote, comma, colon or brace of the JSON is lost."""
  at = rng.choice(_json_structure(content, b'",:{}'))
  return _without(content, [(at, at + 1)])


def jsonl_add_quote(content: bytes, rng: random.Random) -> bytes:
  """A quote appears, but where a backslash would make it a letter."""
  places = [
      i for i in range(len(content) + 1) if content[i - 1 : i] != b'\\'
  ]
  return _insert(content, rng.choice(places), b'"')


def jsonl_lose_line_end(content: bytes, rng: random.Random) -> bytes:
  """A line end is lost."""
  return _lose(content, rng, rb'\r\n|\r|\n')


def jsonl_add_line_end(content: bytes, rng: random.Random) -> bytes:
  """A line end appears anywhere."""
  return _insert(content, rng.randrange(len(content) + 1), b'\n')


Damage = Callable[[bytes, random.Random], bytes]
CSV: tuple[Damage, ...] = (
    cut, bad_byte, zero_byte, utf16, csv_lose_quote, csv_add_quote,
    csv_lose_comma, csv_add_comma, csv_lose_line_end, csv_add_line_end,
    csv_swallow,
)
JSONL: tuple[Damage, ...] = (
    cut, bad_byte, zero_byte, utf16, jsonl_lose_mark, jsonl_add_quote,
    jsonl_lose_line_end, jsonl_add_line_end,
)


def any_bytes(content: bytes, rng: random.Random) -> bytes:
  """Some bytes become others, vanish or appear: for readers that must not fall.

  Content may change in ways that nobody can see; what counts is that the answer
  is a result or the sentence of a UserError.
  """
  content = bytearray(content)
  for _ in range(rng.randint(1, 8)):
    at = rng.randrange(len(content) + 1)
    action = rng.choice(['change', 'lose', 'add', 'cut'])
    piece = bytes([rng.randrange(256)])
    if action == 'add':
      content[at:at] = piece
    elif action == 'cut' and rng.random() < 0.2:
      del content[at:]
    else:
      content[at : at + 1] = piece if action == 'change' else b''
  return bytes(content)
