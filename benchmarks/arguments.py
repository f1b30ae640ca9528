"""Types of flags, for argparse."""
import argparse
from collections.abc import Callable, Collection


def names(known: Collection[str]) -> Callable[[str], list[str]]:
  """The type of a flag that takes some of the known names, by commas."""

  def parse(text):
    given = text.split(',')
    for name in given:
      if name not in known:
        raise argparse.ArgumentTypeError(
            f'{name!r} is none of {", ".join(known)}'
        )
    return given

  return parse
