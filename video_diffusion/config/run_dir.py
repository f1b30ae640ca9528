"""The folder of a run: whose it is, and what may be written there."""
import json
import os
import pathlib

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.config import data_options
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import saved_config
from video_diffusion.config.validate import require
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

# A run may be continued only with these as they were.
FIXED = (
    'seed',
    'batch_size',
    'data',
    'text',
    'model',
    'diffusion',
    'extension',
    'optim',
    'distill.num_steps',
    'distill.max_guidance_weight',
    'distill.reconstruction_weight',
    'distill.teacher_prediction',
    'data_fingerprint',
    'text_fingerprint',
)


def claim(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    fingerprint: str,
    text_fingerprint: str = '',
) -> None:
  """Writes workdir/config.json, or refuses a directory of another run.

  A run that ended before anything came of it, as one whose batch did not fit
  the device, leaves the directory to a run with other fields.

  Args:
    config: of the run.
    workdir: made where missing.
    fingerprint: of the data, '' where the config alone says it; data.path may
      change between machines, what lies there may not.
    text_fingerprint: likewise of tokenizer and text encoder, '' without text.

  Raises:
    UserError: the directory cannot be used, or holds a run whose data, model,
      diffusion, optimizer, seed or batch fields differ; names the fields.
  """
  mine = saved_config.to_json(config) | {'data_fingerprint': fingerprint}
  data_options.complete_json(mine)
  if text_fingerprint:
    mine['text_fingerprint'] = text_fingerprint
  saved = saved_config.read(workdir)
  if saved is not None and has_results(workdir):
    _require_same_data(workdir, saved.get('data_fingerprint', ''), fingerprint)
    _require_same(saved | {'data_fingerprint': fingerprint}, mine, workdir)
  if saved == mine or jax.process_index():
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    content = {'format': saved_config.FORMAT} | mine
    files.write(workdir / 'config.json', json.dumps(content, indent=1))
  except OSError as error:
    raise UserError(
        f'--workdir {workdir} cannot be written ({error.strerror}); pass a '
        'folder that can.'
    ) from error


def require_same(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> None:
  """Refuses a directory of another run, as `claim`, by the fields alone.

  Nothing is read of the data, and nothing is written.

  Raises:
    UserError: workdir holds a run whose fields differ; names them.
  """
  saved = saved_config.read(workdir)
  if saved is None or not has_results(workdir):
    return
  mine = saved_config.to_json(config)
  data_options.complete_json(mine)
  for name in ('data_fingerprint', 'text_fingerprint'):
    if name in saved:
      mine[name] = saved[name]
  _require_same(saved, mine, workdir)


def _require_same(saved, mine, workdir) -> None:
  """Raises UserError where fields of two configs that are FIXED differ."""
  # Fields that came after that run have their defaults.
  defaults = saved_config.to_json(defaults_lib.get_config())
  theirs = saved_config.flatten(defaults) | saved_config.flatten(saved)
  wanted = saved_config.flatten(mine)
  different = [
      f'{name} ({json_files.short(theirs.get(name))} there, '
      f'{json_files.short(wanted.get(name))} now)'
      for name in sorted(theirs.keys() | wanted.keys())
      if {name, name.split('.')[0]} & {*FIXED}
      and not saved_config.movable(name)
      and theirs.get(name) != wanted.get(name)
  ]
  require(
      not different,
      f'{workdir} holds a run with another {", ".join(different)}; pass '
      'another --workdir, or the fields of that run.',
  )


def _require_same_data(workdir, before: str, now: str) -> None:
  """Raises UserError where data fingerprints say that the data are others."""
  if before == now:
    return
  require(
      mixture_lib.may_be_same(before, now),
      f'{workdir} was trained on other data: since then data.fraction, or '
      'files, captions or labels have changed in data.path or in a data set '
      'mixed with it. Give the data of that run, or pass another --workdir.',
  )
  logging.warning(
      'The fingerprint of the data in %s is of the old form, which counts '
      'files and does not know their content. The data are taken to be the '
      'same; their content is remembered from now on.', workdir,
  )


def require_apart(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> None:
  """Raises UserError where the workdir is itself a folder of the data.

  A run's samples would be among its data at its next start. A workdir below
  such a folder is known by its config.json, and is left out.
  """
  data = saved_config.to_json(config)['data']
  for name, path in saved_config.flatten({'data': data}).items():
    if name.endswith('.path') and path and files.is_local(workdir):
      folder = files.expand(path, name)
      require(
          os.path.realpath(folder) != os.path.realpath(workdir),
          f'--workdir {workdir} is {name}: samples of the run would become its '
          'data; pass another --workdir.',
      )


def has_results(workdir: epath.Path) -> bool:
  """Whether a run has left checkpoints, weights or logged steps there."""
  return any(
      (workdir / name).exists() for name in ('metrics.jsonl', 'weights')
  ) or any((workdir / 'checkpoints').glob('*'))


def require_own(folder: epath.Path, workdir: epath.Path) -> None:
  """Requires that what is written to a folder of a run stays in the run.

  Raises:
    UserError: the folder, or something in it, is a link out of workdir.
  """
  if not files.is_local(folder):
    return
  folder, root = pathlib.Path(folder), pathlib.Path(workdir).resolve()
  for path in (folder, *folder.rglob('*')):
    real = path.resolve()
    require(
        real.is_relative_to(root),
        f'{path} is a link to {real}, out of the run; remove it, so that '
        'nothing is written there.',
    )
