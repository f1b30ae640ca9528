"""Finds config files, in the working directory or the package, and runs them.

A config file is a Python file with a function `get_config`, which returns an
ml_collections.ConfigDict and may take the name of a variant.
"""
import importlib.util
import inspect
import pathlib
import re

import ml_collections

from video_diffusion.config import data_options
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

DEFAULT = 'moving_shapes'
DISTILL = 'distill'  # the default of --mode=distill


def packaged() -> pathlib.Path:
  """The folder of the configs that come with the package.

  An installed package holds a copy of it. A clone, or a package installed from
  one with `pip install -e`, has it beside the package.
  """
  package = pathlib.Path(__file__).parents[1]
  installed = package / 'configs'
  return installed if installed.is_dir() else package.parent / 'configs'


def find(path: str) -> pathlib.Path:
  """The file that `path` names.

  A path without a folder and a suffix, NAME, means configs/NAME.py. A file of
  the working directory comes first. Where there is none, configs/NAME.py and
  NAME.py are files of `packaged`.

  Raises:
    UserError: there is no such file; names those that the package has.
  """
  named = f'configs/{path}.py' if re.fullmatch(r'[\w-]+', path) else path
  file = pathlib.Path(files.expand(named, '--config'))
  if file.is_file():
    return file
  ours = packaged() / file.name
  if str(file.parent) in ('configs', '.') and ours.is_file():
    return ours
  names = sorted(file.stem for file in packaged().glob('[!_]*.py'))
  raise UserError(
      f'--config names {path!r}, and there is no such file; the configs of '
      f'the package are {", ".join(names)}.'
  )


def get_config(name: str = DEFAULT) -> ml_collections.ConfigDict:
  """Returns the config of a config file.

  An error inside the file is raised as it is: its traceback names the line.

  Args:
    name: 'moving_shapes' or 'moving_shapes:text', a config of the package and
      perhaps one of its variants; or a path, 'mine/config.py:variant'.

  Raises:
    UserError: there is no such file or variant, or it returns no config.
  """
  path, _, variant = name.partition(':')
  file = find(path)
  spec = importlib.util.spec_from_file_location(file.stem, file)
  if spec is None:
    raise UserError(f'--config names {path!r}; it must be a Python file, *.py.')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  function = getattr(module, 'get_config', None)
  if not callable(function):
    raise UserError(f'{file} has no function get_config, as a config needs.')
  arguments = [variant] if variant else []
  try:
    inspect.signature(function).bind(*arguments)
  except TypeError as error:
    asked = f'the variant {variant!r}' if variant else 'no variant'
    raise UserError(
        f'get_config of {file} cannot be called with {asked} ({error}).'
    ) from error
  config = function(*arguments)
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
        f'get_config of {file} returns {type(config).__name__}; it must return '
        'the ml_collections.ConfigDict of defaults.get_config().'
    )
  return data_options.complete(config)


def of_run(workdir: str) -> ml_collections.ConfigDict:
  """The config that the run in a workdir was trained with.

  Raises:
    UserError: there is no run, or its config cannot be read.
  """
  # Imported here, as it imports JAX: a wrong flag is answered at once.
  from etils import epath

  from video_diffusion.config import saved_config

  folder = epath.Path(files.expand(workdir, '--workdir', bucket=True))
  return saved_config.load({}, folder, ())


def places_as_flags(
    config: ml_collections.ConfigDict, run: ml_collections.ConfigDict
) -> list[str]:
  """Flags for the paths and prompts of a config file, of those the run has."""
  from video_diffusion.config import saved_config

  return [
      f'--config.{name}={value}'
      for name, value in saved_config.places(config).items()
      if saved_config.has(run, name)
  ]


def default_workdir(name: str) -> str:
  """'configs/kinetics.py:smoke' -> 'runs/kinetics-smoke'."""
  path, _, variant = name.partition(':')
  name = pathlib.Path(path).stem
  return str(pathlib.Path('runs') / (f'{name}-{variant}' if variant else name))
