"""Work of Beam's workers that share no folder, as those of Dataflow.

The machine that starts the pipeline sees a bucket as a folder, by gcsfuse. A
worker copies what it needs of the bucket to a temporary folder, works there as
any other, and copies what it made into the bucket, where it has the names that
it would have in the folder. What says that something is whole is copied last.
Copies go through Beam's own file systems.
"""
from collections.abc import Callable
import json
import os
import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

from video_diffusion.data.builders import shard_files
from video_diffusion.data.cache_entries import Entry
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError


class BucketError(ArgumentError):
  """A worker cannot read or write the bucket."""


class Bucket(NamedTuple):
  """A folder of this machine, and where workers find what lies in it.

  Attributes:
    folder: absolute path, without a slash at its end.
    place: gs://NAME, or what else Beam reads, without a slash at its end.
  """

  folder: str
  place: str

  def of(self, path: str | os.PathLike) -> str:
    """Returns where workers find a path of this machine.

    Raises:
      ArgumentError: it is not in the folder.
    """
    path = os.path.abspath(path)
    if not path.startswith(f'{self.folder}/'):
      raise ArgumentError(
          Argument('bucket'), f' says where workers find {self.folder}, and '
          f'{path} is not in it.',
      )
    return self.place + path[len(self.folder):]


def parse(text: str) -> Bucket | None:
  """Returns the bucket that FOLDER=gs://NAME says; None for ''.

  Raises:
    ArgumentError: it has another form.
  """
  if not text:
    return None
  found = re.fullmatch(r'(/[^=]*[^=/])=(\w+://.+|/.+)', text.rstrip('/'))
  if not found:
    raise ArgumentError(
        Argument('bucket'), f' is {text!r}; it must be /FOLDER=gs://BUCKET, '
        'where the bucket is mounted at the folder.',
    )
  return Bucket(*found.groups())


def decode_batch(
    line: str, *, decoder: Callable[..., list[Entry]], cache: str, part: str
) -> list[Entry]:
  """Decodes files into the cache of a bucket.

  Args:
    line: JSON list of [where a file is, *its `hashes.identity`]; this machine
      cannot know what identifies a file where the pipeline was started.
    decoder: from `file_plans.Plan`.
    cache: where the cache is.
    part: name of the part; see `frame_cache.decode`.

  Returns:
    The entries. A file that cannot be copied has none, and is left to the call
    that packs.

  Raises:
    BucketError: no file can be copied, or what was decoded cannot.
  """
  refused = None
  with tempfile.TemporaryDirectory() as folder:
    files, identities = [], []
    for place, *identity in json.loads(line):
      # A folder for each, since names may be the same.
      file = pathlib.Path(folder, str(len(files)), place.rpartition('/')[2])
      try:
        _copy(place, os.fspath(file))
      except BucketError as error:  # it is gone, or may not be read
        refused = error
        continue
      files.append(file)
      identities.append(identity)
    if refused and not files:
      raise refused
    local = os.path.join(folder, 'decoded')
    entries = decoder(files, directory=local, workers=1, part=part)
    hashes = os.path.join(folder, 'hashes')
    with open(hashes, 'w') as out:
      for identity, entry in zip(identities, entries, strict=True):
        if entry.digest:
          out.write(json.dumps([*identity, entry.digest]) + '\n')
    for entry in entries:
      for file in entry.files():
        if os.path.exists(file):
          _copy(file, f'{cache}/{os.path.relpath(file, local)}')
    _copy(hashes, f'{cache}/hashes.{part}.jsonl')
  return entries


def write_shard(
    name: str,
    *,
    data_dir: str,
    folder: str,
    write: Callable[[str, str, str], None],
) -> None:
  """Writes a shard of records into a bucket.

  Args:
    name: name of the shard.
    data_dir: where the folder of prepared data is.
    folder: where the descriptions are.
    write: (data_dir, folder, name) -> None, of local folders.

  Raises:
    BucketError: the decoded frames or the shard cannot be copied.
  """
  if _exists(f'{folder}/{name}.written'):
    return  # another call or machine was quicker
  with tempfile.TemporaryDirectory() as local:
    own = os.path.join(local, 'shards')
    for file in (shard_files.FORM, f'{name}.shard'):
      _copy(f'{folder}/{file}', os.path.join(own, file))
    described = json.loads(pathlib.Path(own, f'{name}.shard').read_bytes())
    for stretch in map(shard_files.Stretch._make, described['stretches']):
      frames = os.path.join(local, stretch.path)
      if not os.path.exists(frames):
        _copy(f'{data_dir}/{stretch.path}', frames)
    os.mkdir(os.path.join(own, shard_files.RECORDS))
    write(local, own, name)
    shard = f'{shard_files.RECORDS}/{described["file"]}'
    for file in (shard, f'{name}.written'):
      _copy(os.path.join(own, file), f'{folder}/{file}')


def require(path: str, bucket: Bucket) -> None:
  """Checks that a file of the bucket is found where workers look for it.

  Raises:
    BucketError: it is not.
  """
  reason = 'it is not there'
  try:
    if _exists(path):
      return
  except Exception as error:  # of the libraries of many file systems
    reason = str(error)
  raise BucketError(
      Argument('bucket'), f' says that workers find {bucket.folder} as '
      f'{bucket.place}, but {path} cannot be read ({reason}).',
  )


def _exists(path: str) -> bool:
  from apache_beam.io import filesystems

  return filesystems.FileSystems.exists(path)


def _copy(source: str, target: str) -> None:
  """Copies a file, each of them local or in a bucket.

  Raises:
    BucketError: the source cannot be read or the target not be written.
  """
  from apache_beam.io import filesystem
  from apache_beam.io import filesystems

  # By its suffix, Beam would unpack a file that ends in .gz.
  as_it_is = dict(compression_type=filesystem.CompressionTypes.UNCOMPRESSED)
  try:
    with filesystems.FileSystems.open(source, **as_it_is) as opened:
      with filesystems.FileSystems.create(target, **as_it_is) as out:
        shutil.copyfileobj(opened, out, 1 << 20)
  except Exception as error:  # of the libraries of many file systems
    raise BucketError(
        Argument('bucket'), f' has workers copy files, and one of them cannot '
        f'copy {source} to {target} ({error}); let them read and write both '
        'and give the same command again.',
    ) from error
