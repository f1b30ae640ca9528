"""Decodes and packs data sets, and embeds their captions, before training."""
from absl import logging
import ml_collections

from video_diffusion.config import data_table
from video_diffusion.config import inputs
from video_diffusion.config import text_inputs
from video_diffusion.config import validate
from video_diffusion.training import writers


def prepare(config: ml_collections.ConfigDict, run_dir: str) -> None:
  """Prepares both splits of the config's data sets and prints a table of them.

  Training does the same when it starts; this needs no accelerator. The captions
  of a run with T5 are embedded here alone, which is faster on an accelerator.

  Args:
    config: the whole config, of which the data fields count.
    run_dir: folder of the run; nothing is written there.

  Raises:
    UserError: a bad config, or data that is missing or unusable.
  """
  del run_dir  # every mode is given it
  validate.check(config, 'prepare')
  synthetic, computed = inputs.synthetic(config), config.text.encoder == 't5'
  if computed:
    text_inputs.check_t5(config)  # not after hours of decoding
  if synthetic and not computed:
    logging.info(
        '%s is made as it is needed: nothing to prepare.', config.data.name
    )
    return
  rows, sources = [], []
  for split in ('train', 'test'):
    source = inputs.make_source(config, split)
    sources.append(source)
    for row in data_table.rows(config, source):
      rows.append(row | {'data set': f'{row["data set"]}, {split}'})
  writers.log_lines(data_table.as_text(rows))
  if computed:
    text_inputs.prepare_t5(config, sources)
