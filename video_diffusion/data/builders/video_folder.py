"""Folders of video files, and of image files, with or without captions."""
import csv
import json
import os
import pathlib

from video_diffusion.data import packing
from video_diffusion.data import video
from video_diffusion.data.builders import video_files
from video_diffusion.errors import UserError

CAPTIONS = ('captions.jsonl', 'captions.csv')
KINDS = {  # name of the data set -> (what it is made of, suffixes)
    'video_folder': ('video', video.VIDEO_SUFFIXES),
    'image_folder': ('image', video.IMAGE_SUFFIXES),
}


def prepare(
    path: str | os.PathLike,
    settings: video_files.Settings,
    *,
    data_dir: str | os.PathLike,
    name: str = 'video_folder',
    classes: bool = False,
    keep_cache: bool = True,
) -> pathlib.Path:
  """Turns a folder into records, unless that has been done.

  The tree may have any depth. Captions are taken from captions.jsonl, of lines
  {"file": "a/b.mp4", "caption": "..."}, or captions.csv, with the columns file
  and caption, in the folder; files are named from there, of several captions
  of a file the last one counts. Files that cannot be used are skipped, counted
  and listed. Every 20th video is held out, see `video_files.pack`, which also
  says what report.json holds; besides these
    captions_without_file: captions whose file is not in the folder.

  The records' directory is named by a digest of the settings and of names,
  sizes and times of the files. So a second call returns at once, and a changed
  folder is prepared anew, decoding the new files alone.

  Args:
    path: the folder.
    settings: of the records.
    data_dir: for prepared data, made where absent.
    name: one of KINDS; an image is a video of one frame.
    classes: a file's class is the first folder below `path` that it is in.
      Classes are numbered in the order of their names.
    keep_cache: False deletes the decoded frames when they are in the records.

  Returns:
    The directory of the records.

  Raises:
    UserError: a setting is out of range, the folder is missing or holds
      nothing that can be used, or the captions cannot be read.
  """
  settings.check()
  what, suffixes = KINDS[name]
  folder, found = video_files.list_folder(
      path, suffixes, what=f'a folder of {what} files', data_dir=data_dir
  )
  paths = found.files
  listed = [folder / file for file in CAPTIONS if (folder / file).exists()]
  if len(listed) > 1:
    raise UserError(
        f'data.path, {folder}, holds both {" and ".join(CAPTIONS)}; keep one.'
    )
  key = video_files.key(settings, [*paths, *listed], bool(classes))
  directory = packing.directory(data_dir, name, key)
  if directory.exists():
    return directory

  captions = read_captions(listed[0]) if listed else {}
  names = [file.relative_to(folder).as_posix() for file in paths]
  class_names = ()
  if classes:
    for file in names:
      if '/' not in file:
        raise UserError(
            f'data.classes is set, but {file} lies in no folder below '
            f'{folder}; move it into the folder of its class.'
        )
    class_names = tuple(sorted({file.partition('/')[0] for file in names}))
  labels = {label: i for i, label in enumerate(class_names)}
  files = [
      video_files.File(
          path=file,
          name=file_name,
          label=labels.get(file_name.partition('/')[0], -1),
          caption=captions.get(file_name, ''),
      )
      for file, file_name in zip(paths, names, strict=True)
  ]
  return video_files.pack(
      files,
      settings,
      name=name,
      data_dir=data_dir,
      key=key,
      keep_cache=keep_cache,
      listed=found,
      class_names=class_names,
      report={'captions_without_file': len(captions.keys() - set(names))},
  )


def read_captions(path: pathlib.Path) -> dict[str, str]:
  """{file, with forward slashes: caption} of a caption file.

  Raises:
    UserError: names the file and the line that cannot be read.
  """
  captions = {}
  # Spreadsheets put a byte order mark first.
  with open(path, encoding='utf-8-sig', errors='replace', newline='') as lines:
    rows = _json_rows(lines) if path.suffix == '.jsonl' else _csv_rows(lines)
    for number, row in rows:
      file, caption = row.get('file'), row.get('caption')
      if not isinstance(file, str) or not isinstance(caption, str):
        wanted = (
            '{"file": "a/b.mp4", "caption": "..."}'
            if path.suffix == '.jsonl'
            else 'the columns file and caption'
        )
        raise UserError(f'{path}, line {number}: it must have {wanted}.')
      file = pathlib.PurePosixPath(file.strip().replace('\\', '/')).as_posix()
      captions[file] = caption.strip()
  return captions


def _json_rows(lines):
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    yield number, row if isinstance(row, dict) else {}


def _csv_rows(lines):
  reader = csv.DictReader(lines)
  while True:
    try:
      row = next(reader, None)
    except csv.Error:
      row = {}
    if row is None:
      # A file without the columns and without a row is wrong as well.
      if not {'file', 'caption'} <= set(reader.fieldnames or ()):
        yield 1, {}
      return
    yield reader.line_num, row
