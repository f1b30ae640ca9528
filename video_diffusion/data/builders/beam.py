"""Does the work of preparation as Apache Beam pipelines, on many machines.

A pipeline reads lines, each of which names some work: files to decode into the
cache, a shard to pack, captions to embed. All workers share the folders that
are read and written: names alone go through the pipeline, and frames are never
moved. What is done is found there again, whoever did it. Decoding and packing
run in a child of Beam's worker, so that a decoder that crashes or hangs costs
its file; a worker that dies with its machine is for the engine to start again.
A worker that cannot write raises nothing, for the engine would try it again and
end in a traceback: the reason comes back as a metric. What else is left undone
the call that started the pipeline meets again.

By default Beam's workers are threads of this process, and their children use
all cores. Beam could start processes of its own here, but waits for ever for
one that is killed.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import pathlib
import shlex
from typing import Any
import uuid

from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import shards
from video_diffusion.data.builders import video_files
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


def for_each(
    lines: Iterable[str],
    work: Callable[[str], None],
    *,
    options: str,
    todo: str | os.PathLike,
) -> None:
  """Has workers of Beam do the work of each line.

  Args:
    lines: what there is to do.
    work: line -> None; can be pickled.
    options: options of Beam, as on a command line; '' uses all cores of this
      machine.
    todo: file for the lines, in a folder that all workers share; deleted at the
      end.

  Raises:
    UserError: Beam is not installed.
    ArgumentError: `beam_options` are not understood, or name a runner whose
      workers share no folder.
    StorageError: the folder of `todo` cannot be written, here or by a worker.
  """
  beam = _import_beam()
  parsed = _parse(options)
  todo = pathlib.Path(os.path.abspath(todo))
  with storage.writing_to(todo.parent):
    todo.parent.mkdir(parents=True, exist_ok=True)
    with files_lib.writing(todo) as part, open(part, 'w') as out:
      out.writelines(f'{line}\n' for line in lines)
  try:
    with beam.Pipeline(options=parsed) as pipeline:
      _ = (
          pipeline
          | 'Read' >> beam.io.ReadFromText(os.fspath(todo))
          | 'Spread' >> beam.Reshuffle()
          | 'Work' >> beam.Map(functools.partial(_attempt, work=work))
      )
    # For the options may say not to wait, and the lines are deleted.
    pipeline.result.wait_until_finish()
    _raise_refused(pipeline.result)
  finally:
    todo.unlink(missing_ok=True)


def prepare(plan: file_plans.Plan, options: str) -> pathlib.Path:
  """Decodes and packs the files of a plan; see `for_each`.

  Args:
    plan: what is to be made. Its data_dir must be one that all workers share.
    options: see `for_each`.

  Returns:
    The directory of the records.
  """
  decode(plan, options)
  write_all = functools.partial(write_shards, options=options)
  return video_files.pack(_absolute(plan), write_all=write_all)


def decode(plan: file_plans.Plan, options: str) -> None:
  """Decodes the files of a plan that are not in the cache; see `prepare`."""
  _import_beam()
  _parse(options)
  plan = _absolute(plan)
  if places := plan.undecoded():
    for_each(
        _batches(plan, places),
        functools.partial(decode_batch, decoder=plan.decoder),
        options=options,
        todo=os.path.join(plan.data_dir, plan.name, f'{plan.listing_key}.todo'),
    )


def write_shards(
    data_dir: str, folder: str, names: list[str], *, options: str
) -> None:
  """Writes shards; see `shards.Write` and `for_each`."""
  for_each(
      names, functools.partial(write_shard, data_dir=data_dir, folder=folder),
      options=options, todo=f'{folder}.{uuid.uuid4().hex[:8]}.todo',
  )


def write_shard(name: str, *, data_dir: str, folder: str) -> None:
  """Writes a shard in a child process; see `shards.write`.

  Threads would wait for each other. What kills the child is tried once more by
  the call that started the pipeline.
  """
  work = functools.partial(shards.write, data_dir, folder)
  for _ in processes.run(work, [(name, name)], workers=1, jobs_per_worker=1):
    pass


def decode_batch(line: str, *, decoder: Callable[..., list[Entry]]) -> None:
  """Decodes the files that a line names, in a child process.

  Args:
    line: JSON list of paths.
    decoder: from `file_plans.Plan`.
  """
  from apache_beam.metrics import Metrics

  part = hashlib.sha256(line.encode()).hexdigest()[:16]
  files = [pathlib.Path(path) for path in json.loads(line)]
  entries = decoder(files, workers=1, part=part)
  Metrics.counter(_NAMESPACE, 'files').inc(len(entries))
  Metrics.counter(_NAMESPACE, 'skipped').inc(
      sum(bool(entry.reason) for entry in entries)
  )


def _attempt(line: str, *, work: Callable[[str], None]) -> None:
  """Does the work of a line; see the top of this file for its errors."""
  from apache_beam.metrics import Metrics

  try:
    work(line)
  except storage.StorageError as error:
    _, reason = error.parts
    Metrics.string_set(_NAMESPACE, _REFUSED).add(reason)
  except UserError as error:
    logging.warning('%s', error)


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


def _batches(plan: file_plans.Plan, places: Sequence[int]) -> Iterator[str]:
  """A line for each batch of files."""
  size = max(1, min(MOST_FILES, len(places) // FEWEST_BATCHES))
  for start in range(0, len(places), size):
    batch = places[start : start + size]
    yield json.dumps([os.path.abspath(plan.files[i].path) for i in batch])


def _absolute(plan: file_plans.Plan) -> file_plans.Plan:
  """The plan for workers, which may have been started in other folders."""
  return plan._replace(data_dir=os.path.abspath(plan.data_dir))


def _import_beam() -> Any:
  try:
    import apache_beam
  except ImportError as error:
    raise UserError(
        f"Apache Beam is not installed ({error}); install it with pip install "
        "'video_diffusion[beam]', in an environment of its own."
    ) from error
  return apache_beam


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
