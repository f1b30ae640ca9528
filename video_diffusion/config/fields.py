"""What a value each field of a config may have: its type and its bounds.

The upper bounds leave room above the paper's largest models. They are there so
that a slip, or a config that another person made, ends in a sentence and not
in hours or in all of the memory.
"""
from collections.abc import Mapping
import functools
import math
import re
from typing import Any, NamedTuple

import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import renamed
from video_diffusion.data import datasets
from video_diffusion.errors import UserError

MANY = 10**12  # of what is counted but costs nothing
MAX_TEXT = 4096  # characters of a field
MIXTURES = ('data.mixture', 'data.image_mixture')
MAX_MIXED = 1000  # data sets in each of them

# Field -> (smallest, largest) value that is allowed.
RANGES = {
    'seed': (0, 2**31 - 1),
    'batch_size': (1, 2**20),
    'mesh.fsdp': (0, 2**16),
    'mesh.model': (1, 2**16),
    'mesh.min_sharded': (1, MANY),
    'mesh.processes': (0, 2**16),
    'data.frames': (1, 4096),
    'data.images': (0, 4096),
    # Pillow refuses larger images, whatever is asked.
    'data.max_pixels': (1, 178_956_970),
    'data.max_frames': (1, MANY),
    'data.max_seconds': (0.001, MANY),
    'data.max_pixels_per_byte': (1, MANY),
    'data.height': (1, 8192),
    'data.width': (1, 8192),
    'data.weight': (0, MANY),
    'text.length': (2, 4096),
    'text.dim': (1, 2**16),
    'text.max_pieces': (4, 2**20),
    'model.base_channels': (4, 8192),
    'model.num_blocks': (1, 64),
    'model.head_dim': (1, 8192),
    'model.emb_dim': (1, 2**16),
    'model.emb_layers': (1, 64),
    'model.cond_dim': (0, 2**16),
    'model.position_stddev': (0, 1000),
    'model.dropout': (0, 1),
    'diffusion.cond_drop': (0, 1),
    'diffusion.logsnr_shift': (-10, 10),
    'diffusion.pure_noise': (0, 1),
    'optim.lr': (0, 3.4e38),  # float32's largest; updates may be skipped
    'optim.warmup_steps': (0, MANY),
    'optim.decay_steps': (0, MANY),
    'optim.beta1': (0, 1),
    'optim.beta2': (0, 1),
    'optim.eps': (0, 1),
    'optim.weight_decay': (0, 1000),
    'optim.clip_norm': (0, MANY),
    'optim.ema_decay': (0, 1),
    'train.steps': (1, 2**31 - 1),
    'train.max_minutes': (0, MANY),
    'train.accumulate': (1, 2**20),
    'train.max_skips': (1, MANY),
    'log.every': (1, MANY),
    'log.eval_every': (0, MANY),
    'log.sample_every': (0, MANY),
    'log.spike': (1, MANY),
    'log.profile_steps': (0, 10_000),
    'checkpoint.every': (1, MANY),
    'checkpoint.keep': (1, MANY),
    'checkpoint.keep_every': (0, MANY),
    'eval.num_clips': (1, 10**8),
    'eval.batch_size': (1, 2**20),
    'sample.num_videos': (1, 10**6),
    'sample.batch_size': (1, 2**20),
    'sample.frames': (0, 2**16),
    'sample.num_steps': (1, 10**5),
    'sample.corrector_delta': (0, 1),
    'sample.guidance_weight': (-1, 10**6),
    'sample.reconstruction_weight': (0, 10**6),
    'sample.super_resolution_weight': (0, 10**6),
    'sample.init_every': (0, 2**20),
    'sample.overlap': (0, 4096),
    'sample.factor': (2, 1024),
    'sample.upscale': (1, 64),
    'sample.stride': (1, 1024),
    'sample.gamma': (0, 1),
    'sample.eta': (0, 1),
    'sample.seed': (0, 2**31 - 1),
    'sample.fps': (0.1, 1000),
}


class Several(NamedTuple):
  """A tuple of like values.

  Attributes:
    item: int, str, or another Several.
    longest: most values that it may have.
    low: smallest number.
    high: largest number, or most characters of a text.
    shortest: fewest values.
  """

  item: Any
  longest: int
  low: int = 0
  high: int = MAX_TEXT
  shortest: int = 0


TUPLES = {
    'data.frameskips': Several(int, 64, 1, 1024, shortest=1),
    'eval.evaluators': Several(str, 100),
    'model.channel_mults': Several(int, 10, 1, 256, shortest=1),
    'model.attention_resolutions': Several(int, 16, 1, 8192),
    'model.remat': Several(int, 16, 1, 8192),
    'sample.labels': Several(Several(int, 64, -1, 2**31 - 1), 10**6),
    'sample.prompts': Several(str, 10**6, high=10_000),
}
# The fields that only some data sets have, in data or in a mixture.
DATA_SET = datasets.all_options()
RANGES |= {
    f'data.{k}': (v.low, v.high)
    for k, v in DATA_SET.items() if v.kind in (int, float)
}
TUPLES |= {
    f'data.{k}': Several(str, v.longest)
    for k, v in DATA_SET.items() if v.kind is tuple
}
# Field -> (regular expression that its text must match, what it is then).
PATTERNS = {
    f'data.{k}': (v.pattern, v.meaning)
    for k, v in DATA_SET.items() if v.pattern
}
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
  known['data'] |= {name: option.kind for name, option in DATA_SET.items()}
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
    _check_several(name, value, TUPLES[plain])
  elif kind is bool or kind is str:
    good = isinstance(value, kind)
  elif kind is int:
    good = type(value) is int
  else:
    good = type(value) in (int, float)
  if kind is not tuple and not good:
    raise _wrong(name, value, _WORDS[kind])
  if kind is str:
    _check_text(name, value, MAX_TEXT)
    pattern, meaning = PATTERNS.get(plain, ('(?s:.*)', ''))
    if not re.fullmatch(pattern, value):
      raise _wrong(name, value, meaning)
  if kind in (int, float):
    if not -math.inf < value < math.inf:
      raise _wrong(name, value, 'finite')
    low, high = RANGES.get(plain, (-MANY, MANY))
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
    if isinstance(rule.item, Several):
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
  if isinstance(rule.item, Several):
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
