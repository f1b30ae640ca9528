"""How a data set declares its options: their types, defaults and bounds.

The options of a data set are the fields of a frozen dataclass:

  @dataclasses.dataclass(frozen=True)
  class Options:
    path: str = ''
    clip_frames: int = number(32, low=1, high=10**5)

They are arguments of `datasets.make_source` and, in a config, fields of
config.data. No other place lists them: configs take the defaults from here, and
checks of a config take the types and bounds.
"""
import dataclasses
import functools
import typing
from typing import Any, NamedTuple

from video_diffusion.data import windows

MANY = 10**12  # above anything that is counted


class Option(NamedTuple):
  """An option of a data set.

  Attributes:
    kind: bool, int, float, str or tuple.
    default: its value where none is given.
    low: smallest value of a number.
    high: largest value of a number.
    longest: most values of a tuple of texts.
    pattern: regular expression that a text must match; '' allows any text.
    meaning: what a text that matches the pattern is, for messages.
    earlier: value of the runs that began before there was this option; None is
      the default.
  """

  kind: type
  default: Any
  low: float = -MANY
  high: float = MANY
  longest: int = 0
  pattern: str = ''
  meaning: str = ''
  earlier: Any = None


def number(default: float, *, low: float, high: float) -> Any:
  """A field of options: an int or float from `low` to `high`."""
  return dataclasses.field(
      default=default, metadata={'low': low, 'high': high}
  )


def texts(*, longest: int) -> Any:
  """A field of options: a tuple of at most `longest` texts, () by default."""
  return dataclasses.field(default=(), metadata={'longest': longest})


def text(default: str, *, pattern: str, meaning: str) -> Any:
  """A field of options: a text that matches a pattern."""
  return dataclasses.field(
      default=default, metadata={'pattern': pattern, 'meaning': meaning}
  )


def clip_frames(default: int) -> Any:
  """The option clip_frames: frames that are stored, and read, together."""
  return number(default, low=1, high=10**5)


def epoch(default: str) -> Any:
  """The option epoch: what an epoch runs over; see `windows.Examples`."""
  return dataclasses.field(
      default=default,
      metadata={
          'pattern': '|'.join(windows.EPOCHS),
          'meaning': f'one of {windows.EPOCHS}',
          'earlier': 'clips',
      },
  )


def fraction() -> Any:
  """The option fraction: the part of the files that is taken."""
  return number(1.0, low=0, high=1)


def num_clips(default: int) -> Any:
  """An option that is a number of clips."""
  return number(default, low=1, high=MANY)


def tfds_name(default: str, pattern: str) -> Any:
  """An option that is a name of TFDS.

  TFDS takes names apart: others than those of the pattern could lead it to code
  or files elsewhere.
  """
  return text(
      default,
      pattern=pattern,
      meaning='the name of one of those that TFDS itself has',
  )


@functools.cache
def declared(options: type) -> dict[str, Option]:
  """The options that a dataclass declares, by name."""
  return {
      field.name: Option(
          typing.get_origin(field.type) or field.type,
          field.default,
          **field.metadata,
      )
      for field in dataclasses.fields(options)
  }
