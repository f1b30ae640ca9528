"""A run that begins from the EMA weights of another run: train.init_from.

The weights are read once, when the run starts at step 0. Arrays are matched by
their names. Those that the other run does not have start fresh, and so do
tables whose rows mean something else now: labels of another number of values,
and the words of another tokenizer.
"""
import re
from typing import Any

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion.checkpoints import json_files
from video_diffusion.checkpoints import shapes as shapes_lib
from video_diffusion.config import build
from video_diffusion.config import demo
from video_diffusion.config import saved_config
from video_diffusion.config.validate import require
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.parallel import sharding
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokenizer_files
from video_diffusion.training import state as state_lib

NAME = 'train.init_from'
MAX_NAMED = 8  # arrays that an error names
_LABEL_TABLE = re.compile(r'encoder\.table_\d+')
_TOKEN_TABLE = re.compile(r'encoder\.table\.\w+')
# Groups, or fields, that say what the weights mean; and those of the model that
# change neither its arrays nor what these mean.
_MEANING = ('model', 'diffusion.prediction', 'text.injection')
_HARMLESS = ('model.remat', 'model.dtype', 'model.dropout')
# Fields that are named where arrays do not fit.
_SIZES = ('model', 'extension', 'text')


def folder(config: ml_collections.ConfigDict) -> epath.Path | None:
  """The folder of the other run; None where train.init_from is ''.

  The model that comes with the package is placed where it is asked for.

  Raises:
    UserError: there is no such folder.
  """
  if not config.train.init_from:
    return None
  if config.train.init_from == demo.FOLDER:
    demo.place()
  path = epath.Path(files.expand(config.train.init_from, NAME, bucket=True))
  require(
      path.is_dir(),
      f'{NAME} {path} is no folder; give the folder of a run, or a copy of its '
      'config.json and weights/.',
  )
  return path


def shapes(other: epath.Path) -> dict[str, tuple[int, ...]]:
  """'path.of.an.array' -> shape of the EMA weights of the other run.

  Raises:
    UserError: the folder holds no weights.
  """
  found = shapes_lib.ema_shapes(other)
  require(
      bool(found),
      f'{NAME} {other} holds no weights; give the folder of a run with '
      'checkpoints, or a copy of its config.json and weights/.',
  )
  return found


def tokenizer_folder(
    config: ml_collections.ConfigDict, run_dir: epath.Path
) -> epath.Path | None:
  """The folder of the other run, where its tokenizer is to be taken over.

  The rows of its token table keep their meaning with its own tokenizer alone.
  None for a run that has a tokenizer, that is given one, or whose words do not
  come from a table; and where the other run has no token table.

  Raises:
    UserError: see `folder` and `shapes`.
  """
  text = config.text
  if text.encoder != 'table' or text.tokenizer:
    return None
  if (run_dir / tokenizer_files.NAME).exists():  # the run has begun before
    return None
  other = folder(config)
  if other is None or not any(map(_TOKEN_TABLE.fullmatch, shapes(other))):
    return None
  return other


def take(
    config: ml_collections.ConfigDict,
    params: Any,
    mesh: jax.sharding.Mesh,
    tokenizer: tokenizer_lib.Tokenizer | None = None,
) -> dict[str, jax.Array]:
  """The arrays with which the parameters and their EMA start.

  Args:
    config: of the run that starts.
    params: shapes and shardings of its parameters.
    mesh: all devices.
    tokenizer: of the run; None without text.

  Returns:
    'path.of.an.array' -> array, laid out as in params. Parameters that are not
    among them start fresh. It is empty where train.init_from is ''.

  Raises:
    UserError: see `folder` and `shapes`; or an array has another shape, the
      weights cannot be read, or they are not finite.
  """
  other = folder(config)
  if other is None:
    return {}
  theirs = shapes(other)
  wanted = {
      name: tuple(leaf.shape)
      for name, leaf in state_lib.flatten(params).items()
  }
  fresh = _other_tables(theirs, wanted, _same_tokenizer(other, tokenizer))
  shared = [n for n in wanted if n in theirs and n not in fresh]
  _require_shapes(config, other, theirs, wanted, shared)
  target = state_lib.unflatten({
      name: jax.ShapeDtypeStruct(shape, jax.numpy.float32)
      for name, shape in theirs.items()
  })
  target = sharding.abstract(target, mesh, config.mesh.min_sharded)
  ema, step = build.read_ema(config, other, target, mesh)
  ema = state_lib.flatten(ema)
  logging.info(
      'Starting from the EMA weights of step %d in %s (%s): %d of %d arrays.',
      step, other, NAME, len(shared), len(wanted),
  )
  for names, what in (
      (wanted.keys() - {*shared}, 'Arrays that start fresh'),
      (theirs.keys() - {*shared}, f'Arrays of {other} that are not used'),
  ):
    if names:
      logging.info('%s: %s.', what, ', '.join(sorted(names)))
  converted = config.distill.teacher_prediction != ''  # which is its task
  for name, (there, now) in _differences(config, other, _MEANING).items():
    if name == 'diffusion.prediction' and converted:
      continue
    logging.warning(
        '%s is %s in %s and %s now: the weights were trained with the former.',
        name, json_files.short(there), other, json_files.short(now),
    )
  return {name: ema[name] for name in shared}


def _same_tokenizer(other, tokenizer):
  """Whether a run has the tokenizer that the other run was trained with."""
  path = other / tokenizer_files.NAME
  return (
      tokenizer is not None
      and path.exists()
      and path.read_bytes() == tokenizer.content
  )


def _other_tables(theirs, wanted, same_tokenizer):
  """Names of the tables whose rows mean something else in the new run."""
  return {
      name
      for name in theirs.keys() & wanted.keys()
      if (
          _LABEL_TABLE.fullmatch(name)
          and theirs[name][1:] == wanted[name][1:]
          and theirs[name] != wanted[name]
      ) or (_TOKEN_TABLE.fullmatch(name) and not same_tokenizer)
  }


def _differences(config, other, among):
  """'group.field' -> (there, now) of fields that differ, among some.

  Empty where the other run has no config.json.
  """
  saved = saved_config.read(other)
  if saved is None:
    return {}
  there = saved_config.flatten(saved)
  now = saved_config.flatten(saved_config.to_json(config))
  return {
      name: (there[name], now[name])
      for name in sorted(there.keys() & now.keys())
      if {name, name.split('.')[0]} & {*among}
      and name not in (*_HARMLESS, *saved_config.PLACES)
      and there[name] != now[name]
  }


def _require_shapes(config, other, theirs, wanted, shared):
  """Requires that shared arrays have the shapes that the network wants."""
  require(
      bool(shared),
      f'{NAME} {other} holds none of the arrays of this network; give a run of '
      'such a network.',
  )
  misfits = [
      f'{name} is {theirs[name]} there, and this network wants {wanted[name]}'
      for name in shared if theirs[name] != wanted[name]
  ]
  if not misfits:
    return
  more = len(misfits) - MAX_NAMED
  named = '; '.join(misfits[:MAX_NAMED]) + (
      f'; and {more} more arrays' if more > 0 else ''
  )
  fields = ', '.join(
      f'{name} ({json_files.short(there)} there, {json_files.short(now)} now)'
      for name, (there, now) in _differences(config, other, _SIZES).items()
  )
  raise UserError(
      f'{NAME} {other} does not fit: {named}'
      + (f'; fields that differ: {fields}.' if fields else '.')
  )
