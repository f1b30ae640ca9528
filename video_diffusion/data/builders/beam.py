"""Decodes files as an Apache Beam pipeline, on one machine or many.

The pipeline reads lines, each a batch of names, and decodes the files of each
into the cache, which all workers share. Names alone go through it: frames are
never moved. A decoder runs in a child of Beam's worker, so that one that
crashes or hangs costs its file; a worker that dies with its machine is for the
engine to start again, and what it had finished is in the cache. A worker that
cannot write the cache raises nothing, for the engine would try it again and end
in a traceback: the reason comes back as a metric.

By default Beam's workers are threads of this process, and their children use
all cores. Beam could start processes of its own here, but waits for ever for
one that is killed.
"""
from collections.abc import Callable
import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import shlex
from typing import Any

from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data.builders import file_plans
from video_diffusion.data.cache_entries import Entry
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files as files_lib

# Not the name DirectRunner, which first tries to fetch another program.
LOCAL_RUNNER = 'apache_beam.runners.portability.fn_api_runner.FnApiRunner'
MOST_FILES = 100  # of a batch: seconds of work, and little to do again
FEWEST_BATCHES = 32  # so that a few workers end at about the same time
# Of Beam's metrics.
_NAMESPACE, _REFUSED = 'video_diffusion', 'refused'


def decode(plan: file_plans.Plan, options: str) -> None:
  """Decodes the files of a plan that are not in the cache.

  Args:
    plan: what is to be made. Its data_dir must be one that all workers share.
    options: options of Beam, as on a command line; '' uses all cores of this
      machine.

  Raises:
    UserError: Beam is not installed.
    ArgumentError: `beam_options` are not understood, or name a runner whose
      workers share no folder.
    StorageError: data_dir cannot be written, here or by a worker.
  """
  try:
    import apache_beam as beam
  except ImportError as error:
    raise UserError(
        f"Apache Beam is not installed ({error}); install it with pip install "
        "'video_diffusion[beam]', in an environment of its own."
    ) from error

  parsed = _parse(options)
  # Workers may have been started in other folders.
  plan = plan._replace(data_dir=os.path.abspath(plan.data_dir))
  places = plan.undecoded()
  if not places:
    return
  batches = pathlib.Path(plan.data_dir, plan.name, f'{plan.listing_key}.todo')
  with storage.writing_to(plan.data_dir):
    batches.parent.mkdir(parents=True, exist_ok=True)
    _write_batches(batches, plan, places)
  work = functools.partial(decode_batch, decoder=plan.decoder)
  try:
    with beam.Pipeline(options=parsed) as pipeline:
      _ = (
          pipeline
          | 'Read' >> beam.io.ReadFromText(os.fspath(batches))
          | 'Spread' >> beam.Reshuffle()
          | 'Decode' >> beam.Map(work)
      )
    # For the options may say not to wait, and the batches are deleted.
    pipeline.result.wait_until_finish()
    _raise_refused(pipeline.result)
  finally:
    batches.unlink(missing_ok=True)


def decode_batch(line: str, *, decoder: Callable[..., list[Entry]]) -> None:
  """Decodes the files that a line names, in a child process.

  Args:
    line: JSON list of paths.
    decoder: from `file_plans.Plan`.
  """
  from apache_beam.metrics import Metrics

  part = hashlib.sha256(line.encode()).hexdigest()[:16]
  files = [pathlib.Path(path) for path in json.loads(line)]
  try:
    entries = decoder(files, workers=1, part=part)
  except storage.StorageError as error:
    _, reason = error.parts
    Metrics.string_set(_NAMESPACE, _REFUSED).add(reason)
    return
  Metrics.counter(_NAMESPACE, 'files').inc(len(entries))
  Metrics.counter(_NAMESPACE, 'skipped').inc(
      sum(bool(entry.reason) for entry in entries)
  )


def _raise_refused(result: Any) -> None:
  """Raises the StorageError that a worker had, if one had.

  Where an engine does not report sets of strings, the packing meets it.
  """
  from apache_beam.metrics import MetricsFilter

  wanted = MetricsFilter().with_namespace(_NAMESPACE).with_name(_REFUSED)
  found = result.metrics().query(wanted).get('string_sets', ())
  reasons = sorted({reason for each in found for reason in each.result or ()})
  if reasons:
    raise storage.StorageError(Argument('dir'), reasons[0])


def _write_batches(path, plan, places) -> None:
  """Writes a line for each batch."""
  size = max(1, min(MOST_FILES, len(places) // FEWEST_BATCHES))
  with files_lib.writing(path) as part, open(part, 'w') as out:
    for start in range(0, len(places), size):
      batch = places[start : start + size]
      paths = [os.path.abspath(plan.files[i].path) for i in batch]
      out.write(json.dumps(paths) + '\n')


def _parse(options: str) -> Any:
  """Beam's options of a text.

  Raises:
    ArgumentError: a quote is not closed, Beam refuses an option, or the runner
      is Dataflow's.
  """
  from apache_beam.options import pipeline_options

  try:
    words = shlex.split(options)
  except ValueError as error:
    raise ArgumentError(
        Argument('beam_options'), f' is {options!r}; {error}.'
    ) from error
  parsed = pipeline_options.PipelineOptions(words or [
      f'--runner={LOCAL_RUNNER}',
      '--direct_running_mode=multi_threading',
      f'--direct_num_workers={processes.usable_cores()}',
  ])
  try:
    with contextlib.redirect_stderr(io.StringIO()) as said:
      parsed.get_all_options()
  except SystemExit as error:  # of argparse, which tells how it is used
    reason = said.getvalue().strip().rpartition('error: ')[2]
    raise ArgumentError(
        Argument('beam_options'), f' is {options!r}; {reason}.'
    ) from error
  runner = parsed.view_as(pipeline_options.StandardOptions).runner or ''
  if 'dataflow' in runner.lower():
    raise ArgumentError(
        Argument('beam_options'), f' has the runner {runner}, whose workers '
        'share no folder with this machine; use one whose workers see the '
        'videos and ', Argument('dir'), ', such as FlinkRunner or SparkRunner.',
    )
  return parsed
