"""Makes records of a folder of video or image files, perhaps with captions."""
import logging
import os
import pathlib
from typing import Any

from video_diffusion.data import video
from video_diffusion.data.builders import caption_files
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import folders
from video_diffusion.data.builders import video_files
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError

CAPTIONS = ('captions.jsonl', 'captions.csv')
KINDS = {  # name of the data set -> (what it is made of, suffixes)
    'video_folder': ('video', video.VIDEO_SUFFIXES),
    'image_folder': ('image', video.IMAGE_SUFFIXES),
}


def plan(
    path: str | os.PathLike,
    settings: file_plans.Settings,
    *,
    data_dir: str | os.PathLike,
    name: str = 'video_folder',
    classes: bool = False,
    fraction: float = 1.0,
    keep_cache: bool = True,
) -> file_plans.Plan | pathlib.Path:
  """Plans to turn a folder into records, unless that has been done.

  The tree may have any depth. Captions are taken from captions.jsonl or
  captions.csv in the folder, see `caption_files`. Files that cannot be used are
  skipped, counted and listed. Every 20th video is held out, see
  `video_files.pack`, which also says what report.json holds. The counts of
  `caption_files.match` go there too; without captions that is
    captions_without_file: 0.

  Records are found by the names, sizes and times of the files. A changed folder
  is prepared anew, decoding the new files alone.

  Args:
    path: the folder.
    settings: settings of the records.
    data_dir: folder of prepared data, made if need be.
    name: one of KINDS; an image is a video of one frame.
    classes: a file's class is the first folder below `path` that it is in.
      Classes are numbered in the order of their names.
    fraction: see `file_plans.of_fraction`.
    keep_cache: False deletes the decoded frames when they are in the records.

  Returns:
    The plan, or the directory of the records that were made before.

  Raises:
    UserError: a setting is out of range, the folder is missing or holds
      nothing that can be used, or the captions cannot be read or name none
      of its files.
  """
  settings.check()
  what, suffixes = KINDS[name]
  folder, found = folders.list_folder(
      path, suffixes, what=f'a folder of {what} files', data_dir=data_dir,
      companions=CAPTIONS,
  )
  paths = found.files
  # A link to nothing is among them: its reader says what is wrong.
  listed = [
      folder / file for file in CAPTIONS if os.path.lexists(folder / file)
  ]
  if len(listed) > 1:
    raise ArgumentError(
        Argument('path'),
        f', {folder}, holds both {" and ".join(CAPTIONS)}; keep one.',
    )
  key = folders.listing_key(
      settings, [*paths, *listed], bool(classes), found.skipped,
      fraction=fraction,
  )
  directory = folders.packed_before(key, name=name, data_dir=data_dir)
  if directory:
    return directory

  names = [file.relative_to(folder).as_posix() for file in paths]
  captions = caption_files.Matched({}, {'captions_without_file': 0})
  among = frozenset(paths)
  for file in sorted(folder.glob('[Cc][Aa][Pp][Tt][Ii][Oo][Nn]*')):
    read = file.name.lower() in [each.name for each in listed]
    if not read and file.suffix and file not in among:
      logging.warning(
          '%s is not read; captions are read from %s.',
          file, ' or '.join(CAPTIONS),
      )
  for file in listed:
    captions = caption_files.match(caption_files.read(file), names, path=file)
  class_names = ()
  if classes:
    for file in names:
      if '/' not in file:
        raise ArgumentError(
            Argument('classes'), f' is set, but {file} lies in no folder below '
            f'{folder}; move it into the folder of its class.',
        )
    class_names = tuple(sorted({file.partition('/')[0] for file in names}))
  labels = {label: i for i, label in enumerate(class_names)}
  files = [
      file_plans.File(
          path=file,
          name=file_name,
          label=labels.get(file_name.partition('/')[0], -1),
          caption=captions.by_name.get(file_name, ''),
      )
      for file, file_name in zip(paths, names, strict=True)
  ]
  return file_plans.Plan(
      files=file_plans.of_fraction(files, fraction),
      settings=settings,
      name=name,
      data_dir=data_dir,
      listing_key=key,
      keep_cache=keep_cache,
      listed=found,
      class_names=class_names,
      report=captions.report,
  )


def prepare(*args: Any, **options: Any) -> pathlib.Path:
  """Turns a folder into records, unless that has been done.

  Args:
    *args: see `plan`.
    **options: see `plan`.

  Returns:
    The directory of the records.

  Raises:
    UserError: see `plan` and `video_files.pack`.
  """
  return video_files.made(plan(*args, **options))
