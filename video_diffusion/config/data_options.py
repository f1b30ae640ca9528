"""The options that a config leaves out of its data sets."""
from collections.abc import Iterator
from typing import Any

import ml_collections

from video_diffusion.data import datasets
from video_diffusion.data import options as options_lib


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
    for fields, name, option in _missing(config):
      fields[name] = option.default
  return config


def complete_json(saved: dict[str, Any], *, earlier: bool = False) -> None:
  """Does the same for a config as JSON values, with lists for tuples.

  Args:
    saved: the whole config, which is changed.
    earlier: it is the config of a run, which may have begun before there were
      the options that it lacks; see `options.Option.earlier`.
  """
  for fields, name, option in _missing(saved):
    value = option.default
    if earlier and option.earlier is not None:
      value = option.earlier
    fields[name] = list(value) if isinstance(value, tuple) else value


def _missing(tree) -> Iterator[tuple[Any, str, options_lib.Option]]:
  """(fields of a data set, name of an option that they lack, it), for all."""
  data = tree.get('data', {})
  mixed = [data.get(group, {}) for group in ('mixture', 'image_mixture')]
  for fields in (data, *(own for group in mixed for own in group.values())):
    if fields.get('name') in datasets.NAMES:
      for name, option in datasets.options_of(fields['name']).items():
        if name not in fields:
          yield fields, name, option
