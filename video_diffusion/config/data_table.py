"""A table of the data sets of a config: how large they are, what is missing."""
from typing import Any

import ml_collections

from video_diffusion.config import inputs
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.training import writers

COLUMNS = (
    'epoch', 'videos', 'frames', 'seconds', 'size', 'skipped', 'missing'
)


def rows(config: ml_collections.ConfigDict, source) -> list[dict[str, Any]]:
  """One row per data set: where it stands, its share, what it says of itself.

  The share is of the examples, or, of 'data.image_mixture', of the images;
  'clips' is the number of examples in an epoch, and 'epoch' says what they are.
  """
  mixture = mixture_lib.as_mixture(source)
  sources = list(mixture.sources)
  if mixture.images is not mixture:
    sources += mixture.images.sources
  sets = inputs.data_sets(config)
  group = lambda prefix: prefix.startswith('data.image_mixture.')
  table = []
  for (prefix, fields), member in zip(sets.items(), sources, strict=True):
    total = sum(
        other['weight']
        for name, other in sets.items()
        if group(name) == group(prefix)
    )
    row = {
        'data set': prefix,
        'name': fields['name'],
        'share': fields['weight'] / total,
        'clips': member.num_examples,
        'videos': member.num_videos,
        **getattr(member, 'summary', {}),
    }
    row['epoch'] = f'{row["clips"]:,} {row.get("epoch", "clips")}'
    table.append(row)
  return table


def as_text(table: list[dict[str, Any]]) -> str:
  """The table that `rows` makes, with '-' for what a data set does not know."""

  def cell(value):
    if value is None:
      return '-'
    if isinstance(value, float):
      return f'{value:,.1f}'
    return f'{value:,}' if isinstance(value, int) else str(value)

  cells = [
      [f'{row["data set"]} ({row["name"]})', f'{row["share"]:.1%}']
      + [cell(row.get(column)) for column in COLUMNS]
      for row in table
  ]
  return writers.table(['data set', 'share', *COLUMNS], cells)
