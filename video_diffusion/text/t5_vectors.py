"""The vectors that a frozen T5 gives captions, computed once and kept.

They lie in caches below one folder, shared by all runs. A list beside the
caches says which encoder a path holds, so that training finds the vectors
without reading the T5.
"""
from collections.abc import Iterable
import dataclasses
import functools
import json
import os
import pathlib
import threading
from typing import NamedTuple

from absl import logging
import jax

from video_diffusion.checkpoints import json_files
from video_diffusion.checkpoints import t5_weights
from video_diffusion.data import storage
from video_diffusion.data import wanted
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.models import t5
from video_diffusion.parallel import memory
from video_diffusion.text import embedding_cache
from video_diffusion.text import settings as settings_lib
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokenizer_files
from video_diffusion.text import tokens

ENCODERS = 'text_encoders.json'


def check(settings: settings_lib.Settings) -> None:
  """Checks that a T5 can be used; reads none of its arrays.

  Raises:
    UserError: there is no tokenizer or no T5, or it has another width.
  """
  tokenizer = tokenizer_files.find(settings)
  config = t5_weights.t5_config(settings.path, num_pieces=tokenizer.num_pieces)
  require_width(settings, config.dim)


def prepare(
    settings: settings_lib.Settings, captions: Iterable[str]
) -> None:
  """Computes the vectors of captions that have none.

  Raises:
    UserError: there is no tokenizer or no T5, or it has another width.
  """
  fill(settings, tokenizer_files.find(settings), captions)


def fill(
    settings: settings_lib.Settings,
    tokenizer: tokenizer_lib.Tokenizer,
    captions: Iterable[str],
) -> tokens.Vectors:
  """Reads the T5 and computes the vectors of the captions that have none."""
  return _fill(settings, _read(settings, tokenizer), captions)


def on_workers(settings: settings_lib.Settings) -> settings_lib.Settings:
  """Returns the settings for processes that were started in other folders."""
  whole = lambda path: os.path.abspath(path) if files.is_local(path) else path
  return dataclasses.replace(
      settings,
      path=whole(files.expand(settings.path, Argument('path'), bucket=True)),
      tokenizer=settings.tokenizer and whole(files.expand(
          settings.tokenizer, Argument('tokenizer'), bucket=True
      )),
      dir=os.path.abspath(directory(settings)),
  )


def fill_on_worker(line: str, *, settings: settings_lib.Settings) -> None:
  """Computes the vectors of some captions, where there is an accelerator.

  For engines, which call this many times in a process: the T5 is read once, and
  threads wait for each other.

  Args:
    line: JSON list of captions.
    settings: how captions become tokens.
  """
  if jax.default_backend() == 'cpu':
    return
  with _on_worker:
    encoder = _read_once(settings)
    _fill(settings, encoder, json.loads(line))


class _Encoder(NamedTuple):
  """A T5 that was read; `known` is what is remembered of it."""

  cache: embedding_cache.EmbeddingCache
  encode: embedding_cache.Encode
  tokenizer: tokenizer_lib.Tokenizer
  known: dict[str, str]


_on_worker = threading.Lock()


@functools.lru_cache(maxsize=1)
def _read_once(settings) -> _Encoder:
  return _read(settings, tokenizer_files.find(settings))


def _read(settings, tokenizer) -> _Encoder:
  path = settings.path
  logging.info('Reading the T5 in %s.', path)
  t5_config, params = t5_weights.load_t5(
      path, num_pieces=tokenizer.num_pieces
  )
  require_width(settings, t5_config.dim)
  fingerprint = t5_weights.fingerprint(t5_config, params)
  dtype = embedding_cache.DTYPES[settings.dtype]
  return _Encoder(
      _open_cache(settings, fingerprint, tokenizer),
      t5.make_encode(t5_config, params, dtype),
      tokenizer,
      {'fingerprint': fingerprint, 'stamp': t5_weights.stamp(path)},
  )


def _fill(settings, encoder: _Encoder, captions) -> tokens.Vectors:
  path, cache = settings.path, encoder.cache
  with memory.explained(functools.partial(_too_large, path)):
    report = cache.fill(captions, encoder.encode)
  _remember_encoder(settings, path, encoder.known)
  logging.info(
      '%d captions have vectors in %s: %d are new, %d were too long and lost '
      'their end.',
      report.captions, cache.directory, report.computed, report.truncated,
  )
  return tokens.Vectors(encoder.tokenizer, cache)


def known_vectors(
    settings: settings_lib.Settings, tokenizer: tokenizer_lib.Tokenizer
) -> tokens.Vectors | None:
  """The vectors of the encoder that `path` held when it was last read.

  None where it was never read, or holds another encoder now.
  """
  path = settings.path
  known = _encoders(settings).get(path)
  if known is None:
    return None
  if t5_weights.stamp(path) not in ('', known['stamp']):
    logging.warning('The T5 in %s is not the one that it was.', path)
    return None
  return tokens.Vectors(
      tokenizer, _open_cache(settings, known['fingerprint'], tokenizer)
  )


def require_width(settings: settings_lib.Settings, width: int) -> None:
  """Raises ArgumentError unless vectors have the width that is configured."""
  if width != settings.dim:
    raise ArgumentError(
        'the T5 in ', Argument('path'), f' {settings.path} has vectors of '
        f'width {width}, but ', Argument('dim'), f' is {settings.dim}; give a '
        'T5 of that size.',
    )


def directory(settings: settings_lib.Settings) -> pathlib.Path:
  """The folder of all caches."""
  if settings.dir:
    return pathlib.Path(files.expand(settings.dir, Argument('dir')))
  return pathlib.Path(os.path.join(wanted.data_dir(''), 'text_embeddings'))


def _too_large(path, need: memory.Need) -> ArgumentError:
  return ArgumentError(
      f'{memory.misfit(f"the T5 in {path}", need)}; set ', Argument('dtype'),
      " to 'bfloat16', or run --mode=prepare where there is more memory.",
  )


def _open_cache(settings, fingerprint, tokenizer):
  """The cache of the vectors that this T5 computes in the configured dtype."""
  dtype = settings.dtype
  return embedding_cache.EmbeddingCache(
      directory(settings),
      encoder=fingerprint + (f':{dtype}' if dtype != 'float32' else ''),
      tokenizer=tokenizer,
  )


def _encoders(settings) -> dict[str, dict[str, str]]:
  """Path of a T5 -> its 'fingerprint' and 'stamp' when it was last read."""
  path = directory(settings) / ENCODERS
  try:
    found = json_files.read(path) if path.exists() else {}
    return {
        name: known
        for name, known in found.items()
        if isinstance(known, dict)
        and all(isinstance(known.get(k), str) for k in ('fingerprint', 'stamp'))
    }
  except UserError:
    logging.warning('%s cannot be read; it is written anew.', path)
    return {}


def _remember_encoder(settings, path, known):
  """Adds to `_encoders`; other processes may do so at the same time."""
  folder = directory(settings)
  with storage.writing_to(folder):
    with locks.Lock(folder, wait=True):
      encoders = _encoders(settings) | {path: known}
      files.write(folder / ENCODERS, json.dumps(encoders, indent=1))
