"""Finds texts that name a side, which a mirrored clip would contradict."""
from collections.abc import Iterable
import re
from typing import NamedTuple

AROUND = 60  # characters that an example shows on either side of the word
_ENGLISH = (
    r'(?:top|bottom|upper|lower)?(?:left|right)'
    r'(?:s|y|ish|wards?|most|hand(?:ed|er)?)?'
    r'|(?:counter|contra|anti)?clockwise'
)
# Of other languages the plainest words, each of which no English text has.
_OTHERS = (
    'rechts|gauche|droite|izquierda|derecha|sinistra|destra|esquerda|direita'
    '|слева|справа|налево|направо|влево|вправо'
)
# Between letters a word begins at a capital: folders are called TurnLeft.
_NO_LETTER_BEFORE = r'(?:(?<![^\W\d_])|(?<=[a-z])(?=[A-Z]))'
_NO_LETTER_AFTER = r'(?:(?![^\W\d_])|(?<=[a-z])(?=[A-Z]))'
_SIDE = re.compile(
    f'{_NO_LETTER_BEFORE}(?i:{_ENGLISH}|{_OTHERS}){_NO_LETTER_AFTER}'
    '|[左右]|왼쪽|오른쪽'
)


class Found(NamedTuple):
  """Texts that name a side: their number, and a part of the first one."""

  count: int
  example: str


def find(texts: Iterable[str]) -> Found:
  """Counts the texts that name a side.

  Words count whole and in any case: 'left', 'rightward', 'left-to-right',
  'turn_left', 'TurnLeft', 'anticlockwise'; so does 'right' in 'all right', for
  what it means there is not to be told from the word. Besides English some
  words of other languages are known.
  """
  count, example = 0, ''
  for text in texts:
    if word := _SIDE.search(text):
      count += 1
      example = example or text[
          max(0, word.start() - AROUND) : word.end() + AROUND
      ]
  return Found(count, example)
