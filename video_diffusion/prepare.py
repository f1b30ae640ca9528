"""Decodes and packs data sets, and embeds their captions, before training."""
import functools

from absl import logging
import jax
import ml_collections

from video_diffusion.config import data_table
from video_diffusion.config import inputs
from video_diffusion.config import text_inputs
from video_diffusion.config import validate
from video_diffusion.data.builders import beam
from video_diffusion.data.builders import staging
from video_diffusion.errors import naming
from video_diffusion.training import writers


def prepare(config: ml_collections.ConfigDict, run_dir: str) -> None:
  """Prepares both splits of the config's data sets and prints a table of them.

  Training does the same when it starts; this needs no accelerator. The captions
  of a run with T5 are embedded here alone, which is faster on an accelerator:
  by the call that packs and, where they have accelerators, by calls of a share.

  Files may be decoded by Apache Beam, or by many calls that decode a share
  each. Both fill the cache in data.dir, which all machines share. It is packed
  in shards, by Beam or by any number of calls without a share. So the records
  are the same whoever decoded and packed; see `file_plans` and `shards`.

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
  if config.prepare.tasks:
    _decode_share(config)
    return
  if config.prepare.runner == 'beam':
    with _beam_options():
      bucket = staging.parse(config.prepare.bucket)
    inputs.for_each_plan(
        config, functools.partial(_prepare_by_beam, config, bucket)
    )
  rows, sources = [], []
  for split in ('train', 'test'):
    source = inputs.make_source(config, split)
    sources.append(source)
    for row in data_table.rows(config, source):
      rows.append(row | {'data set': f'{row["data set"]}, {split}'})
  writers.log_lines(data_table.as_text(rows))
  if computed:
    captions = [*dict.fromkeys(c for each in sources for c in each.captions())]
    if _has_distant_workers(config):
      text_inputs.prepare_t5_on_workers(
          config, captions, functools.partial(_for_each_by_beam, config)
      )
    text_inputs.prepare_t5(config, captions)


def _prepare_by_beam(config, bucket, plan):
  with _beam_options():
    beam.prepare(plan, config.prepare.beam_options, bucket)


def _has_distant_workers(config):
  """Whether workers of Beam have accelerators of their own, and see text.dir.

  Those of this machine would put a second T5 on the same accelerator.
  """
  prepared = config.prepare
  if prepared.runner != 'beam' or prepared.bucket:
    return False
  with _beam_options():
    return not beam.is_local(prepared.beam_options)


def _for_each_by_beam(config, lines, work, *, folder):
  with _beam_options():
    beam.for_each(
        lines, work, options=config.prepare.beam_options, folder=folder
    )


def _beam_options():
  """Names the options of Beam; others are fields that the caller names."""
  names = {f: f'prepare.{f}' for f in ('beam_options', 'bucket')}
  return naming(lambda name: names.get(name, name))


def _decode_share(config):
  """Decodes the files of this task and embeds their captions; packs nothing.

  Captions are embedded on an accelerator alone: many machines without one would
  take longer than the one that packs, which may have one.
  """
  task, tasks = config.prepare.task, config.prepare.tasks
  captions = []

  def decode(plan):
    places = plan.share(task, tasks)
    entries = plan.decode(places, part=f'{task}-of-{tasks}')
    logging.info(
        'Task %d of %d decoded %d of the %d files of %s; %d cannot be used.',
        task, tasks, len(places), len(plan.files), plan.name,
        sum(bool(entry.reason) for entry in entries),
    )
    captions.extend(
        plan.files[i].caption
        for i, entry in zip(places, entries, strict=True)
        if plan.files[i].caption and not entry.reason
    )

  if not inputs.for_each_plan(config, decode):
    logging.info('No files are to be decoded.')
  if not captions or config.text.encoder != 't5':
    return
  if jax.default_backend() == 'cpu':
    logging.info(
        'This machine has no accelerator: the call that packs embeds captions.'
    )
    return
  text_inputs.prepare_t5(config, captions)
