"""The config of a run as it is saved in the run's folder, config.json.

A run may come from another person. Its config is checked like any input, and
what it names (files, folders, prompts) is not used: the command line alone
names what is opened.
"""
from collections.abc import Collection
import functools
import json
from typing import Any

from absl import logging
from etils import epath
import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.config import data_options
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import fields
from video_diffusion.config import renamed
from video_diffusion.config.validate import field as get_field
from video_diffusion.config.validate import require
from video_diffusion.errors import UserError

# Where data lie, and how they are read, may change between machines: fields of
# any data set, and some others; a fingerprint says what lay there.
MOVABLE = (
    'dir', 'path', 'fraction', 'keep_cache', 'loader', 'model.remat',
    'text.dir', 'text.path', 'text.tokenizer', 'train.init_from',
    'distill.teacher',
)
# What names files, folders or prompts. A run may come from another person, and
# the program then reads and writes nothing that only the saved config names.
PLACES = (
    'dir', 'path', 'text.dir', 'text.path', 'text.tokenizer',
    'train.init_from', 'distill.teacher', 'sample.video',
    'sample.refine_workdir', 'sample.prompts', 'eval.i3d', 'eval.c3d',
    'eval.c3d_mean', 'eval.inception',
)
# Groups that say nothing of the model: what another version had there may go.
_OPTIONS = (
    'mesh', 'prepare', 'optim', 'train', 'log', 'checkpoint', 'eval', 'sample'
)
FORMAT = 1  # of the folder of a model; older ones do not name theirs
_FINGERPRINTS = ('data_fingerprint', 'text_fingerprint')


def load(
    overrides: dict[str, Any],
    workdir: epath.Path,
    groups: tuple[str, ...],
    *,
    optional: Collection[str] = (),
) -> ml_collections.ConfigDict:
  """The config of the run in workdir, with some fields of this call.

  The run may be another person's: its PLACES are left out, so that this call
  alone names files, folders and prompts.

  Args:
    overrides: 'group.field' -> value, as given on the command line.
    workdir: of the run.
    groups: whose fields this call may set, beside those that are `movable`.
    optional: overrides that are passed over where the run has no such field.

  Raises:
    UserError: there is no run in workdir, its config is not sound, or a field
      may not be set.
  """
  renamed.require_new_names(overrides, '--config.')
  config = _saved(workdir)
  for name, value in places(config).items():
    _set(config, name, type(value)())
  for name, value in overrides.items():
    require(
        name.split('.')[0] in groups or movable(name),
        f'--config.{name} cannot be set here: all but {", ".join(groups)} is '
        f'taken from the run in {workdir}.',
    )
    if has(config, name):
      _set(config, name, value)
    else:
      require(
          name in optional,
          f'--config.{name} cannot be set here: the run in {workdir} has no '
          'such field.',
      )
  return config


def require_places(
    overrides: dict[str, Any],
    workdir: epath.Path,
    *names: str,
    advice: str = '',
) -> None:
  """Requires that this call gives the PLACES which the run's config names.

  Args:
    overrides: as of `load`.
    workdir: of the run.
    *names: groups, as 'data', or fields that this call needs.
    advice: what else would do, the end of the sentence.

  Raises:
    UserError: says which flags to pass.
  """
  missing = {
      name: value
      for name, value in places(_saved(workdir)).items()
      if name not in overrides and {name, name.split('.')[0]} & {*names}
  }
  flags = ' and '.join(f'--config.{name}' for name in missing)
  named = ' and '.join(map(json_files.short, missing.values()))
  require(
      not missing,
      f'{flags} must be given: {workdir / "config.json"} names {named}, but '
      'as a run may come from others, only what the command line names is '
      f'opened{advice}.',
  )


def tell_places(overrides: dict[str, Any], workdir: epath.Path) -> None:
  """Logs which sample fields of the run's config are not used."""
  for name, value in places(_saved(workdir)).items():
    if name.startswith('sample.') and name not in overrides:
      logging.info(
          '%s names %s %s, which is not used: only the command line names '
          'files and prompts.', workdir / 'config.json', name,
          json_files.short(value),
      )


def places(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """'group.field' -> value of the PLACES that a config names."""
  return {
      name: value
      for name, value in flatten(config.to_dict()).items()
      if _among(name, PLACES) and value
  }


def movable(name: str) -> bool:
  """True for those of MOVABLE, as 'data.dir', 'data.mixture.NAME.dir'."""
  return _among(name, MOVABLE)


def _among(name, names):
  """Whether a field is among some, which name those of a data set alone."""
  group, _, field = name.rpartition('.')
  return name in names or (group.split('.')[0] == 'data' and field in names)


def text_fingerprint(workdir: epath.Path) -> str:
  """The fingerprint of the text of the run in workdir, '' where none is."""
  return (read(workdir) or {}).get('text_fingerprint', '')


def read(workdir: epath.Path) -> dict[str, Any] | None:
  """The checked content of workdir/config.json, None where there is none.

  Raises:
    UserError: the file cannot be read, or is no config of a run.
  """
  path = workdir / 'config.json'
  try:
    if not path.exists():
      return None
    saved = json_files.read(path)
  except OSError as error:
    raise UserError(
        f'{path} cannot be read ({error.strerror or error}); restore it, or '
        'pass another --workdir.'
    ) from error
  version = saved.pop('format', 0)
  require(
      isinstance(version, int) and version <= FORMAT,
      f'{path} is of format {json_files.short(version)}, and this version of '
      f'video_diffusion reads formats up to {FORMAT}; install a newer one.',
  )
  prints = {n: saved[n] for n in _FINGERPRINTS if n in saved}
  try:
    tree = renamed.with_new_names(
        {name: value for name, value in saved.items() if name not in prints}
    )
    tree = _known_options(tree, path)
    fields.check_tree(tree)
    for name, value in prints.items():
      require(
          isinstance(value, str),
          f'{name} is {json_files.short(value)}; it must be text.',
      )
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  data_options.complete_json(tree, earlier=True)
  return tree | prints


def _known_options(tree, path):
  """The tree without those fields of _OPTIONS that this version lacks."""
  known, tree = fields.types(), dict(tree)
  for group in _OPTIONS:
    if isinstance(found := tree.get(group), dict):
      tree[group] = {k: v for k, v in found.items() if k in known[group]}
      for name in sorted(found.keys() - known[group].keys()):
        _tell_unknown(path, f'{group}.{name}')
  return tree


@functools.cache  # the config of a run is read several times by one call
def _tell_unknown(path, name):
  logging.warning(
      '%s has a field %s, which this version does not have; it is not used.',
      path, json_files.short(name),
  )


def _saved(workdir):
  """The whole config of the run in workdir, its PLACES too."""
  saved = read(workdir)
  require(
      saved is not None,
      f'{workdir} holds no run (no config.json); train first, or pass its '
      '--workdir.',
  )
  for name in (*_FINGERPRINTS, 'mesh'):  # mesh: of the machines that trained it
    saved.pop(name, None)
  # Fields that came after that run have their defaults.
  config = defaults_lib.get_config()
  with config.unlocked(), config.ignore_type():
    config.update(_tuples(saved))
  return config


def without_places(
    config: ml_collections.ConfigDict, run_dir: epath.Path
) -> dict[str, Any]:
  """The content of config.json for a folder that others will read.

  What names files, folders or prompts is left out, for it may be private.

  Args:
    config: config of the run.
    run_dir: folder of the run, whose fingerprints are kept.
  """
  config = config.copy_and_resolve_references()
  for name, value in places(config).items():
    _set(config, name, type(value)())
  saved = read(run_dir) or {}
  prints = {name: saved.get(name, '') for name in _FINGERPRINTS}
  return {'format': FORMAT} | to_json(config) | prints


def has(config: ml_collections.ConfigDict, name: str) -> bool:
  """Whether a config has the field 'group.field'."""
  for part in name.split('.'):
    if not isinstance(config, ml_collections.ConfigDict) or part not in config:
      return False
    config = config[part]
  return True


def _set(config, name, value):
  group, _, field = name.rpartition('.')
  holder = get_field(config, group) if group else config
  with config.unlocked(), config.ignore_type():
    holder[field] = value


def _tuples(tree):
  """JSON lists back to the tuples that they were."""
  if isinstance(tree, dict):
    return {name: _tuples(value) for name, value in tree.items()}
  return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as plain JSON values."""
  return json.loads(config.to_json_best_effort())


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} -> {'a.b': 1}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat
