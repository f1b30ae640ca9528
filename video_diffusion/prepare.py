"""Decodes and packs data sets ahead of training, and says what they hold."""
from absl import logging
import ml_collections

from video_diffusion import experiment
from video_diffusion import inspect
from video_diffusion import validation
from video_diffusion import writers


def prepare(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Prepares both splits of the config's data sets and prints a table of them.

  Training does the same when it starts; this needs no accelerator.

  Args:
    config: the whole config, of which the data fields count.
    workdir: of the run; nothing is written there.

  Raises:
    ValueError: a bad config, or data that is missing or unusable.
  """
  del workdir  # all modes have it
  validation.check(config, 'prepare')
  if experiment.drawn(config):
    logging.info('moving_shapes is drawn as it is needed: nothing to prepare.')
    return
  rows = []
  for split in ('train', 'test'):
    source = experiment.make_source(config, split)
    for row in inspect.data_rows(config, source):
      rows.append(row | {'data set': f'{row["data set"]}, {split}'})
  writers.log_lines(inspect.as_table(rows))
