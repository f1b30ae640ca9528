"""The options that a config leaves out of its data sets."""
from collections.abc import Iterator
from typing import Any

import ml_collections

from video_diffusion.data import datasets


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Gives the data sets of a config the options that it leaves out.

  The options have their defaults of `data.datasets`. A data set that is not
  known is left as it is: checks of the config name it.

  Args:
    config: the whole config, which is changed.

  Returns:
    The same config.
  """
  with config.unlocked():
    for fields, name, default in _missing(config):
      fields[name] = default
  return config


def complete_json(saved: dict[str, Any]) -> None:
  """Does the same for the content of a config.json, with lists for tuples."""
  for fields, name, default in _missing(saved):
    fields[name] = list(default) if isinstance(default, tuple) else default


def _missing(tree) -> Iterator[tuple[Any, str, Any]]:
  """(fields of a data set, an option that they lack, its default), for all."""
  data = tree.get('data', {})
  mixed = [data.get(group, {}) for group in ('mixture', 'image_mixture')]
  for fields in (data, *(own for group in mixed for own in group.values())):
    if fields.get('name') in datasets.NAMES:
      for name, option in datasets.options_of(fields['name']).items():
        if name not in fields:
          yield fields, name, option.default
