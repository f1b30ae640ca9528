"""The workdir of a run: whose it is, and the config that it holds."""
import json
import os
from typing import Any

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion import default_config
from video_diffusion import files
from video_diffusion.data import mixing
from video_diffusion.errors import UserError
from video_diffusion.validation import field as get_field
from video_diffusion.validation import require

# A run may be continued only with these as they were.
FIXED = (
    'seed',
    'batch_size',
    'data',
    'text',
    'model',
    'diffusion',
    'optim',
    'data_fingerprint',
    'text_fingerprint',
)
# Where data lie, and how they are read, may change between machines: fields of
# any data set, and some others; a fingerprint says what lay there.
MOVABLE = (
    'dir', 'path', 'keep_cache', 'loader', 'model.remat', 'text.dir',
    'text.path', 'text.tokenizer',
)


def movable(name: str) -> bool:
  """True for those of MOVABLE, as 'data.dir', 'data.mixture.NAME.dir'."""
  group, _, field = name.rpartition('.')
  return name in MOVABLE or (group.split('.')[0] == 'data' and field in MOVABLE)


def claim(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    fingerprint: str,
    text_fingerprint: str = '',
) -> None:
  """Writes workdir/config.json, or refuses a directory of another run.

  A run that ended before anything came of it, as one whose batch did not fit
  the device, leaves the directory to a run with other fields.

  Args:
    config: of the run.
    workdir: made where missing.
    fingerprint: of the data, '' where the config alone says it; data.path may
      change between machines, what lies there may not.
    text_fingerprint: likewise of tokenizer and text encoder, '' without text.

  Raises:
    UserError: the directory cannot be used, or holds a run whose data, model,
      diffusion, optimizer, seed or batch fields differ; names the fields.
  """
  mine = to_json(config) | {'data_fingerprint': fingerprint}
  if text_fingerprint:
    mine['text_fingerprint'] = text_fingerprint
  saved = _read(workdir)
  if saved is not None and has_results(workdir):
    # Fields that came after that run have their defaults.
    defaults = flatten(to_json(default_config.get_config()))
    theirs, wanted = defaults | flatten(saved), flatten(mine)
    _require_same_data(workdir, saved.get('data_fingerprint', ''), fingerprint)
    theirs['data_fingerprint'] = fingerprint
    different = [
        f'{name} ({theirs.get(name)!r} there, {wanted.get(name)!r} now)'
        for name in sorted(theirs.keys() | wanted.keys())
        if name.split('.')[0] in FIXED
        and not movable(name)
        and theirs.get(name) != wanted.get(name)
    ]
    require(
        not different,
        f'{workdir} holds a run with another {", ".join(different)}; pass '
        'another --workdir, or the fields of that run.',
    )
  if saved == mine or jax.process_index():
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    # By a new name: a process killed here must not leave half a file.
    part = workdir / 'config.json.part'
    part.write_text(json.dumps(mine, indent=1))
    part.replace(workdir / 'config.json')
  except OSError as error:
    raise UserError(
        f'--workdir {workdir} cannot be written ({error.strerror}); pass a '
        'folder that can.'
    ) from error


def _require_same_data(workdir, before: str, now: str) -> None:
  """Raises UserError where data fingerprints say that the data are others."""
  if before == now:
    return
  require(
      mixing.may_be_same(before, now),
      f'{workdir} was trained on other data: since then files, captions or '
      'labels have changed in data.path or in a data set mixed with it. Give '
      'the data of that run, or pass another --workdir.',
  )
  logging.warning(
      'The fingerprint of the data in %s is of the old form, which counts '
      'files and does not know their content. The data are taken to be the '
      'same; their content is remembered from now on.', workdir,
  )


def require_apart(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> None:
  """Raises UserError where the workdir is itself a folder of the data.

  A run's samples would be among its data at its next start. A workdir below
  such a folder is known by its config.json, and is left out.
  """
  for name, path in flatten({'data': to_json(config)['data']}).items():
    if name.endswith('.path') and path and files.is_local(workdir):
      folder = files.expand(path, name)
      require(
          os.path.realpath(folder) != os.path.realpath(workdir),
          f'--workdir {workdir} is {name}: samples of the run would become its '
          'data; pass another --workdir.',
      )


def has_results(workdir: epath.Path) -> bool:
  """Whether a run has left checkpoints, weights or logged steps there."""
  return any(
      (workdir / name).exists() for name in ('metrics.jsonl', 'weights')
  ) or any((workdir / 'checkpoints').glob('*'))


def text_fingerprint(workdir: epath.Path) -> str:
  """Of the text of the run in workdir, '' without such a run."""
  return (_read(workdir) or {}).get('text_fingerprint', '')


def _read(workdir):
  """The content of workdir/config.json, None without one."""
  path = workdir / 'config.json'
  try:
    return json.loads(path.read_text()) if path.exists() else None
  except (OSError, ValueError) as error:
    raise UserError(
        f'{path} cannot be read ({error}); restore it, or pass another '
        '--workdir.'
    ) from error


def saved_config(
    overrides: dict[str, Any], workdir: epath.Path, groups: tuple[str, ...]
) -> ml_collections.ConfigDict:
  """The config of the run in workdir, with some fields of this call.

  Args:
    overrides: 'group.field' -> value, as given on the command line.
    workdir: of the run.
    groups: whose fields this call may set, beside those that are `movable`.

  Raises:
    UserError: there is no run in workdir, or a field may not be set.
  """
  saved = _read(workdir)
  require(
      saved is not None,
      f'{workdir} holds no run (no config.json); train first, or pass its '
      '--workdir.',
  )
  saved.pop('data_fingerprint', None)
  saved.pop('text_fingerprint', None)
  saved.pop('mesh', None)  # of the machines that trained it
  # Fields that came after that run have their defaults.
  config = default_config.get_config()
  with config.unlocked(), config.ignore_type():
    config.update(_tuples(saved))
  for name, value in overrides.items():
    require(
        name.split('.')[0] in groups or movable(name),
        f'--config.{name} cannot be set here: all but {", ".join(groups)} is '
        f'taken from the run in {workdir}.',
    )
    group, _, field = name.rpartition('.')
    with config.unlocked(), config.ignore_type():
      (get_field(config, group) if group else config)[field] = value
  return config


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
