"""Does the work of preparation as Apache Beam pipelines, on many machines.

A pipeline reads lines, each of which names some work: files to decode into the
cache, a shard to pack, captions to embed. Frames never go through the pipeline:
all workers share the folders that are read and written, or copy what they need
(see `staging`). What is done is found there again, whoever did it. Decoding and
packing run in a child of Beam's worker, so that a decoder that crashes or hangs
costs its file; a worker that dies with its machine is for the engine to start
again. A worker that cannot write raises nothing, for the engine would try it
again and end in a traceback: the reason comes back as a metric. The call that
started the pipeline deals with anything else that is left undone.

By default Beam's workers are threads of this process, and their children use
all cores. Beam could start processes of its own here, but waits for ever for
one that is killed.
"""
from collections.abc import Callable, Iterable, Iterator
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

from video_diffusion.data import hashes
from video_diffusion.data import processes
from video_diffusion.data import storage
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import shards
from video_diffusion.data.builders import staging
from video_diffusion.data.builders import video_files
from video_diffusion.data.cache_entries import Entry
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files as files_lib

# Not the name DirectRunner, which first tries to fetch another program.
LOCAL_RUNNER = 'apache_beam.runners.portability.fn_api_runner.FnApiRunner'
LOCAL_RUNNERS = ('FnApiRunner', 'DirectRunner', 'PrismRunner')  # ends of names
MOST_FILES = 100  # of a batch: seconds of work, and little to do again
FEWEST_BATCHES = 32  # so that a few workers end at about the same time
# Of Beam's metrics.
_NAMESPACE, _REFUSED = 'video_diffusion', 'refused'
_REFUSALS = (storage.StorageError, staging.BucketError)
_PART_AGE = 7 * 86400  # seconds after which a file of lines is nobody's


def for_each(
    lines: Iterable[str],
    work: Callable[[str], None],
    *,
    options: str,
    folder: str | os.PathLike,
    bucket: staging.Bucket | None = None,
) -> None:
  """Has workers of Beam do the work of each line.

  Args:
    lines: what there is to do.
    work: line -> None; can be pickled.
    options: options of Beam, as on a command line; '' uses all cores of this
      machine.
    folder: folder for a file of the lines, which all workers share; made if
      need be. The file is deleted at the end, or later if this call is killed.
    bucket: where workers find the folder if they share none; `work` must then
      do without.

  Raises:
    UserError: Beam is not installed.
    ArgumentError: `beam_options` are not understood, or name a runner whose
      workers share no folder, and there is no `bucket`.
    BucketError: the bucket is not where workers look for it, or one of them
      cannot read or write it.
    StorageError: the folder cannot be written, here or by a worker.
  """
  beam = _import_beam()
  parsed = _parse(options, bucket)
  # A new name, since several calls may have the same work.
  todo = pathlib.Path(
      os.path.abspath(folder), f'.lines.part-{uuid.uuid4().hex[:12]}.todo'
  )
  source = bucket.of(todo) if bucket else os.fspath(todo)
  try:
    with storage.writing_to(folder):
      todo.parent.mkdir(parents=True, exist_ok=True)
      files_lib.remove_parts(todo.parent, age=_PART_AGE)
      with open(todo, 'w') as out:
        out.writelines(f'{line}\n' for line in lines)
    if bucket:
      staging.require(source, bucket)
    with beam.Pipeline(options=parsed) as pipeline:
      _ = (
          pipeline
          | 'Read' >> beam.io.ReadFromText(source)
          | 'Spread' >> beam.Reshuffle()
          | 'Work' >> beam.Map(functools.partial(_attempt, work=work))
      )
    # For the options may say not to wait, and the lines are deleted.
    pipeline.result.wait_until_finish()
    _raise_refused(pipeline.result)
  finally:
    todo.unlink(missing_ok=True)


def prepare(
    plan: file_plans.Plan, options: str, bucket: staging.Bucket | None = None
) -> pathlib.Path:
  """Decodes and packs the files of a plan; see `for_each`.

  Args:
    plan: what is to be made. Its data_dir must be one that all workers share,
      or lie in the folder of `bucket`.
    options: see `for_each`.
    bucket: see `for_each`.

  Returns:
    The directory of the records.
  """
  decode(plan, options, bucket)
  return video_files.pack(
      _absolute(plan),
      write_all=functools.partial(write_shards, options=options, bucket=bucket),
  )


def decode(
    plan: file_plans.Plan, options: str, bucket: staging.Bucket | None = None
) -> None:
  """Decodes the files of a plan that are not in the cache; see `prepare`."""
  _import_beam()
  _parse(options, bucket)
  plan = _absolute(plan)
  cache = os.path.join(plan.data_dir, 'decoded')
  if places := plan.undecoded():
    for_each(
        _batches(plan, places, bucket),
        functools.partial(
            decode_batch, decoder=plan.decoder,
            cache=bucket.of(cache) if bucket else '',
        ),
        options=options,
        folder=os.path.join(plan.data_dir, plan.name),
        bucket=bucket,
    )


def write_shards(
    data_dir: str,
    folder: str,
    names: list[str],
    *,
    options: str,
    bucket: staging.Bucket | None = None,
) -> None:
  """Writes shards; see `shards.Write` and `for_each`."""
  work = functools.partial(write_shard, data_dir, folder)
  if bucket:
    work = functools.partial(
        staging.write_shard, data_dir=bucket.of(data_dir),
        folder=bucket.of(folder), write=write_shard,
    )
  for_each(
      names, work, options=options, bucket=bucket,
      # Not the folder itself, which another call takes away at the end.
      folder=pathlib.Path(folder).parents[1],
  )


def write_shard(data_dir: str, folder: str, name: str) -> None:
  """Writes a shard in a child process; see `shards.write`.

  Threads would wait for each other. What kills the child is tried once more by
  the call that started the pipeline.
  """
  work = functools.partial(shards.write, data_dir, folder)
  for _ in processes.run(work, [(name, name)], workers=1, jobs_per_worker=1):
    pass


def decode_batch(
    line: str, *, decoder: Callable[..., list[Entry]], cache: str = ''
) -> None:
  """Decodes the files that a line names, in a child process.

  Args:
    line: JSON list of paths; for a bucket, see `staging.decode_batch`.
    decoder: from `file_plans.Plan`.
    cache: where the cache is in a bucket; '' is of `decoder`.
  """
  from apache_beam.metrics import Metrics

  part = hashlib.sha256(line.encode()).hexdigest()[:16]
  if cache:
    entries = staging.decode_batch(
        line, decoder=decoder, cache=cache, part=part
    )
  else:
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
  except _REFUSALS as error:
    refused = json.dumps([type(error).__name__, *error.parts])
    Metrics.string_set(_NAMESPACE, _REFUSED).add(refused)
  except UserError as error:
    logging.warning('%s', error)


def _raise_refused(result: Any) -> None:
  """Raises the StorageError or BucketError that a worker had, if one had.

  Where an engine does not report sets of strings, the packing meets it.
  """
  from apache_beam.metrics import MetricsFilter

  wanted = MetricsFilter().with_namespace(_NAMESPACE).with_name(_REFUSED)
  found = result.metrics().query(wanted).get('string_sets', ())
  refused = sorted({text for each in found for text in each.result or ()})
  if refused:
    kind, argument, reason = json.loads(refused[0])
    kinds = {each.__name__: each for each in _REFUSALS}
    raise kinds[kind](Argument(argument), reason)


def _batches(plan, places, bucket) -> Iterator[str]:
  """A line for each batch of files; see `decode_batch`."""
  size = max(1, min(MOST_FILES, len(places) // FEWEST_BATCHES))
  for start in range(0, len(places), size):
    batch = [plan.files[i].path for i in places[start : start + size]]
    if bucket:
      found = []
      for path in batch:
        with contextlib.suppress(OSError):  # the packing says what is wrong
          found.append([bucket.of(path), *hashes.identity(path)])
    else:
      found = [os.path.abspath(path) for path in batch]
    yield json.dumps(found)


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


def is_local(options: str) -> bool:
  """Returns whether Beam's workers would be of this machine; see `_parse`."""
  from apache_beam.options import pipeline_options

  standard = _parse(options, None).view_as(pipeline_options.StandardOptions)
  return (standard.runner or 'DirectRunner').endswith(LOCAL_RUNNERS)


def _parse(options: str, bucket: staging.Bucket | None) -> Any:
  """Beam's options of a text.

  Raises:
    ArgumentError: a quote is not closed, Beam refuses an option, or the runner
      is Dataflow's and there is no bucket.
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
  if 'dataflow' in runner.lower() and not bucket:
    raise ArgumentError(
        Argument('beam_options'), f' has the runner {runner}, whose workers '
        'share no folder with this machine; mount the bucket of the videos and '
        'of ', Argument('dir'), ' here by gcsfuse and set ', Argument('bucket'),
        '=/FOLDER=gs://BUCKET, or use a runner whose workers see both, such as '
        'FlinkRunner or SparkRunner.',
    )
  return parsed
