"""Decodes and packs a data set ahead of training, and says what it holds."""
from absl import logging
import ml_collections

from video_diffusion import experiment
from video_diffusion import validation
from video_diffusion import writers
from video_diffusion.data import datasets


def prepare(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Prepares both splits of the config's data set and prints a table of them.

  Training does the same when it starts; this needs no accelerator.

  Args:
    config: the whole config, of which the data fields count.
    workdir: of the run; nothing is written there.

  Raises:
    ValueError: a bad config, or data that is missing or unusable.
  """
  del workdir  # all modes have it
  validation.check(config, 'prepare')
  name = config.data.name
  if name in datasets.DATA_SETS and datasets.DATA_SETS[name].drawn:
    logging.info('%s is drawn on the fly: there is nothing to prepare.', name)
    return
  sources = {
      split: experiment.make_source(config, split)
      for split in ('train', 'test')
  }
  print(summary_table(sources))


def summary_table(sources: dict[str, datasets.pipeline.Source]) -> str:
  """A table of {split: source}, a row for each number."""
  summaries = {split: source.summary for split, source in sources.items()}
  rows = []
  for field in next(iter(summaries.values())):
    values = [_text(field, summary[field]) for summary in summaries.values()]
    rows.append([field, *values])
  return writers.table(['', *summaries], rows)


def _text(field, value):
  if value is None:
    return '-'
  return writers.duration(value) if field == 'seconds' else f'{value}'
