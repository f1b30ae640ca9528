"""Lists the files of a folder, and finds the records made of them before."""
from collections.abc import Sequence
import contextlib
import hashlib
import json
import os
import pathlib
import re
from typing import Any

from video_diffusion.data import cache_entries
from video_diffusion.data import hashes
from video_diffusion.data import listing
from video_diffusion.data import packing
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.filesystem import files


def list_folder(
    path: str | os.PathLike,
    suffixes: tuple[str, ...],
    *,
    what: str,
    data_dir: str | os.PathLike,
    companions: tuple[str, ...] = (),
) -> tuple[pathlib.Path, listing.Listing]:
  """Returns the folder at a path and what lies there, at least one file.

  Args:
    path: path of the folder.
    suffixes: suffixes of the files that are wanted.
    what: what to give instead, for errors.
    data_dir: folder of prepared data, which are left out.
    companions: see `listing.find`.

  Raises:
    ArgumentError: there is no such folder or no such file in it, or it is the
      folder of a run, whose own samples would be among the files.
  """
  folder = pathlib.Path(files.expand(path, Argument('path')))
  try:
    if not folder.is_dir():
      found = 'a file' if folder.exists() else 'missing'
      raise _unusable(folder, f'is {found}; give {what}.')
    found = listing.find(
        folder, suffixes, leave_out=[data_dir], companions=companions
    )
    if listing.is_run(folder, os.listdir(folder)):
      raise _unusable(
          folder, 'is the folder of a run, whose own samples would become '
          f'data; give {what}, and keep runs apart from it.',
      )
  except OSError as error:
    raise _unusable(
        folder, f'cannot be read ({error.strerror}); give {what}.'
    ) from error
  if not found.files:
    others = [f'{each["file"]} ({each["reason"]})' for each in found.skipped]
    others += [f'{name} (left out)' for name in found.left_out]
    if found.unread:
      others.append(f'files of other kinds ({found.unread_kinds()})')
    raise _unusable(
        folder, f'holds no file that ends in {", ".join(suffixes)}'
        f'{"; it holds " * bool(others)}{", ".join(others[:listing.NAMED])}; '
        f'give {what}.',
    )
  found.log()
  return folder, found


def _unusable(folder, rest) -> ArgumentError:
  return ArgumentError(Argument('path'), f', {folder}, {rest}')


def listing_key(
    settings: Sequence[Any],
    paths: Sequence[pathlib.Path],
    *others: Any,
    fraction: float = 1.0,
) -> str:
  """Returns a digest of the settings and of what is known without reading.

  Args:
    settings: settings of the records.
    paths: files, each counting with its `hashes.identity` and whether it may be
      read.
    *others: further JSON values.
    fraction: see `file_plans.of_fraction`.
  """
  digest = hashlib.sha256()
  if fraction != 1:  # else the key is that of before there were fractions
    others = (*others, fraction)
  digest.update(json.dumps([cache_entries.VERSION, settings, others]).encode())
  for path in paths:
    listed = [os.path.abspath(path)]
    # What is gone by now is for the decoder to say, with its reason.
    with contextlib.suppress(OSError):
      listed += [*hashes.identity(path), os.access(path, os.R_OK)]
    digest.update(json.dumps(listed).encode())
  return digest.hexdigest()[:16]


def packed_before(
    listing_key: str, *, name: str, data_dir: str | os.PathLike
) -> pathlib.Path | None:
  """Returns the records of a folder that has not changed, if there are any."""
  try:
    content = note(listing_key, name, data_dir).read_text()
  except (OSError, ValueError):
    return None
  if not re.fullmatch('[0-9a-f]{16}', content):
    return None
  directory = packing.directory(data_dir, name, content)
  return directory if directory.exists() else None


def note(listing_key, name, data_dir) -> pathlib.Path:
  """Returns the file that says which records were made of a listing."""
  return pathlib.Path(data_dir, name, f'{listing_key}.listing')
