"""Whether each field of a config has a value of its type and in its bounds."""
from collections.abc import Mapping
import functools
import math
import re
from typing import Any

import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.config import bounds
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import renamed
from video_diffusion.errors import UserError

MIXTURES = ('data.mixture', 'data.image_mixture')
MAX_MIXED = 1000  # data sets in each of them
_WORDS = {
    bool: 'True or False', int: 'a whole number', float: 'a number',
    str: 'text', tuple: 'a tuple',
}


def check(config: ml_collections.ConfigDict) -> None:
  """Checks that all fields are there, of their types and in their bounds.

  Raises:
    UserError: names the first field that is not as it must be, or unknown.
  """
  tree = config.to_dict()
  check_tree(tree)
  for name in _flat(defaults_lib.get_config().to_dict()):
    group, _, field = name.rpartition('.')
    if field not in (tree.get(group, {}) if group else tree):
      raise UserError(f'the config has no field {name}; give it a value.')


def check_tree(tree: Mapping[str, Any]) -> None:
  """The same of a config that may lack fields, with lists for tuples.

  Args:
    tree: group -> field -> value.

  Raises:
    UserError: as of `check`.
  """
  _check_group(tree, types(), '')


@functools.cache
def types() -> dict[str, Any]:
  """Group -> field -> bool, int, float, str or tuple; all that are known.

  The groups of MIXTURES are empty: their data sets have the fields of 'data'.
  """

  def of(tree):
    return {
        name: of(value) if isinstance(value, dict) else type(value)
        for name, value in tree.items()
    }

  known = of(defaults_lib.get_config().to_dict())
  known['data'] |= {
      name: option.kind for name, option in bounds.DATA_SET.items()
  }
  return known


def _check_group(tree, known, prefix):
  for name, value in tree.items():
    path = f'{prefix}{name}'
    renamed.require_new_names([path])
    if name not in known:
      raise UserError(
          f'the config has a field {json_files.short(path)}, which this '
          'version does not know.'
      )
    if not isinstance(known[name], dict):
      check_value(path, value, known[name])
    elif not isinstance(value, Mapping):
      raise _wrong(path, value, 'a group of fields')
    elif path in MIXTURES:
      _check_mixed(path, value, known=types()['data'])
    else:
      _check_group(value, known[name], f'{path}.')


def _check_mixed(group, found, known):
  if len(found) > MAX_MIXED:
    raise UserError(
        f'{group} has {len(found):,} data sets; it may have {MAX_MIXED:,}.'
    )
  for name, fields in found.items():
    if not re.fullmatch(r'\w{1,100}', name):
      raise _wrong(f'a name in {group}', name, 'of letters, digits and _')
    if not isinstance(fields, Mapping) or 'name' not in fields:
      raise UserError(
          f'{group}.{name} has no field name; set {group}.{name}.name to a '
          'data set, beside its own fields.'
      )
    _check_group(fields, known, f'{group}.{name}.')


def check_value(name: str, value: Any, kind: type) -> None:
  """Raises UserError unless a value is of its field's type, in its bounds.

  Args:
    name: of the field, for its bounds and the error; 'data.mixture.NAME.FIELD'
      has those of 'data.FIELD'.
    value: to be checked.
    kind: from `types`.
  """
  plain = _plain(name)
  if kind is tuple:
    _check_several(name, value, bounds.TUPLES[plain])
  elif kind is bool or kind is str:
    good = isinstance(value, kind)
  elif kind is int:
    good = type(value) is int
  else:
    good = type(value) in (int, float)
  if kind is not tuple and not good:
    raise _wrong(name, value, _WORDS[kind])
  if kind is str:
    _check_text(name, value, bounds.MAX_TEXT)
    pattern, meaning = bounds.PATTERNS.get(plain, ('(?s:.*)', ''))
    if not re.fullmatch(pattern, value):
      raise _wrong(name, value, meaning)
  if kind in (int, float):
    if not -math.inf < value < math.inf:
      raise _wrong(name, value, 'finite')
    low, high = bounds.RANGES.get(plain, (-bounds.MANY, bounds.MANY))
    if value < low:
      raise _wrong(name, value, f'at least {low}')
    if value > high:
      raise _wrong(name, value, f'at most {high}')


def _wrong(name, value, what):
  value = tuple(value) if isinstance(value, list) else value
  return UserError(f'{name} is {json_files.short(value)}; it must be {what}.')


def _check_several(name, value, rule):
  if not isinstance(value, (tuple, list)) or len(value) < rule.shortest:
    raise _wrong(name, value, _several(rule))
  if len(value) > rule.longest:
    raise UserError(
        f'{name} has {len(value):,} values; it may have {rule.longest:,}.'
    )
  for item in value:
    if isinstance(rule.item, bounds.Several):
      if not isinstance(item, (tuple, list)):
        raise _wrong(name, value, _several(rule))
      _check_several(name, item, rule.item)
    elif type(item) is not rule.item:
      raise _wrong(name, value, _several(rule))
    elif rule.item is str:
      _check_text(name, item, rule.high)
    elif not rule.low <= item <= rule.high:
      raise _wrong(name, value, _several(rule))


def _several(rule):
  """A rule in words."""
  if isinstance(rule.item, bounds.Several):
    return f'a tuple of tuples, each {_several(rule.item)}'
  if rule.item is str:
    return 'a tuple of texts'
  least = f', at least {rule.shortest}' if rule.shortest else ''
  return f'a tuple of whole numbers from {rule.low} to {rule.high}{least}'


def _check_text(name, text, longest):
  if len(text) > longest:
    raise UserError(
        f'{name} has {len(text):,} characters; it may have {longest:,}.'
    )
  # What a shell passes on in another encoding comes as lone surrogates.
  if '\0' in text or any('\ud800' <= c <= '\udfff' for c in text):
    raise _wrong(name, text, 'text in UTF-8, without zero bytes')


def _plain(name):
  """'data.mixture.NAME.path' -> 'data.path', others as they are."""
  parts = name.split('.')
  if '.'.join(parts[:2]) in MIXTURES and len(parts) == 4:
    return f'data.{parts[3]}'
  return name


def _flat(tree, prefix=''):
  """'group.field' of all values of a tree."""
  for name, value in tree.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}'
