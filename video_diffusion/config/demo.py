"""The small model that comes with the package."""
import pathlib
import shutil

from absl import logging

from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

PACKAGED = pathlib.Path(__file__).parents[1] / 'demo'
FOLDER = 'runs/demo'  # where the command line uses it


def place() -> str:
  """Copies the model to FOLDER, unless it is there, and returns FOLDER.

  There it is a run like any other: samples are written to it.

  Raises:
    UserError: the folder cannot be written.
  """
  folder = pathlib.Path(FOLDER)
  if (folder / 'config.json').exists():
    return FOLDER
  try:
    with files.writing_folder(folder) as part:
      shutil.copytree(PACKAGED, part, dirs_exist_ok=True)
  except OSError as error:
    raise UserError(
        f'{folder} cannot be written ({error.strerror}); change to a folder '
        'that can.'
    ) from error
  logging.info(
      'The model that comes with the package is copied to %s.', folder
  )
  return FOLDER
