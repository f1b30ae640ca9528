"""Config fields that have another name than in an earlier version.

The command line and config files must use the new name. The config.json of an
old run is read as if it had the new name.
"""
from collections.abc import Iterable
from typing import Any

from video_diffusion.checkpoints import json_files
from video_diffusion.errors import UserError

# Old name -> new name, both 'group.field'.
FIELDS = {
    'sample.num_clips': 'sample.num_videos',
    'sample.init_video': 'sample.video',
}


def require_new_names(names: Iterable[str], prefix: str = '') -> None:
  """Raises UserError for the first field that has its old name.

  Args:
    names: 'group.field' of the fields that a person has set.
    prefix: what stands before a field where the person writes it, for example
      '--config.'.
  """
  for name in names:
    if name in FIELDS:
      raise UserError(
          f'{prefix}{name} has been renamed; use {prefix}{FIELDS[name]} '
          'instead.'
      )


def flag_names(argv: Iterable[str]) -> Iterable[str]:
  """Yields 'group.field' of each flag --config.group.field in argv."""
  for argument in argv:
    if argument == '--':
      return
    name, _, _ = argument.partition('=')
    plain = name.removeprefix('-').removeprefix('-')
    if plain != name and plain.startswith('config.'):
      yield plain.removeprefix('config.')


def with_new_names(tree: dict[str, Any]) -> dict[str, Any]:
  """Returns the config of a run with the new names of its fields.

  Args:
    tree: group -> field -> value, as read from a config.json. It is not
      changed.

  Raises:
    UserError: a field is there by its old and by its new name.
  """
  tree = dict(tree)
  for old, new in FIELDS.items():
    value = _find(tree, old)
    if value is None:
      continue
    if _find(tree, new) is not None:
      raise UserError(
          f'{old} has been renamed to {new}, and both are set (to '
          f'{json_files.short(value[0])} and '
          f'{json_files.short(_find(tree, new)[0])}); remove {old}.'
      )
    old_group, _, old_field = old.partition('.')
    tree[old_group] = dict(tree[old_group])
    del tree[old_group][old_field]
    new_group, _, new_field = new.partition('.')
    tree[new_group] = {**tree.get(new_group, {}), new_field: value[0]}
  return tree


def _find(tree, name):
  """Returns (value,) of 'group.field', or None where it is not in the tree."""
  group, _, field = name.partition('.')
  fields = tree.get(group)
  if isinstance(fields, dict) and field in fields:
    return (fields[field],)
  return None
