"""From config.text to what makes tokens of captions; prompts and their checks.

A run keeps its tokenizer as WORKDIR/tokenizer.model: with config.json and
weights/ all that another machine needs to sample. T5's vectors lie in caches
below text.dir, shared by all runs; a list beside them says which encoder a path
holds, so that training need not read a T5 to find its vectors.
"""
from collections.abc import Iterable, Sequence
import functools
import json
import os
import pathlib

from absl import logging
from etils import epath
import ml_collections
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.checkpoints import t5_weights
from video_diffusion.config import run_dir
from video_diffusion.config.validate import require
from video_diffusion.data import datasets
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import storage
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.filesystem import locks
from video_diffusion.models import t5
from video_diffusion.parallel import memory
from video_diffusion.text import embedding_cache
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokens

TOKENIZER = 'tokenizer.model'
ENCODERS = 'text_encoders.json'
CHECKED = 16  # clips of a data set
# How T5's own are called, of which one lies with a checkpoint.
_NAMES = ('spiece.model', 'sentencepiece.model')

Text = tokens.Ids | tokens.Vectors


def places(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> tuple[str, ...]:
  """The fields of text that name what a trained run needs beside its folder."""
  if config.text.encoder != 't5':
    return ()
  own = (workdir / TOKENIZER).exists()
  return ('text.path', 'text.dir') + (() if own else ('text.tokenizer',))


def open_text(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    source: mixture_lib.Source | mixture_lib.Mixture,
) -> Text | None:
  """What makes tokens of a source's captions; None for a run without text.

  Raises:
    UserError: there is no tokenizer or no encoder, or --mode=prepare has not
      computed the vectors.
  """
  if not config.text.encoder:
    return None
  mixture = mixture_lib.as_mixture(source)
  tokenizer = _tokenizer(config, workdir, mixture)
  if config.text.encoder == 'table':
    return _same_as_before(tokens.Ids(tokenizer), workdir)
  text = _known_vectors(config, tokenizer)
  require(
      text is not None,
      f'{_cache_dir(config)} holds no vectors by text.path '
      f'{config.text.path}; run --mode=prepare with this config.',
  )
  # Those of a few clips stand for all, of which there may be millions: were a
  # data set not prepared, or half of it, they would not all be there.
  rng, captions = np.random.default_rng(0), []
  for part in dict.fromkeys((*mixture.sources, *mixture.images.sources)):
    for i in range(0, part.num_examples, -(-part.num_examples // CHECKED)):
      captions.append(part.example(i, rng, 1)['caption'])
  width = text(captions)['tokens'].shape[-1]
  _require_width(config, width)
  return _same_as_before(text, workdir)


def encode(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    captions: Sequence[str],
) -> dict[str, np.ndarray]:
  """Tokens of captions to sample from; T5 is read where it did not see them.

  Args:
    config: of the run, with sample.prompts if they are what is encoded.
    workdir: of the run, which is trained.
    captions: of the clips.

  Returns:
    {'tokens': [n, length] or [n, length, D], 'mask': bool [n, length]}.

  Raises:
    UserError: a prompt is empty, too long or, to a table, partly unknown; no
      tokenizer or no encoder, or not those of the run.
  """
  tokenizer = _tokenizer(config, workdir, None)
  check_prompts(config, tokenizer)
  if config.text.encoder == 'table':
    return _same_as_before(tokens.Ids(tokenizer), workdir)(captions)
  text = _known_vectors(config, tokenizer)
  if text is None or text.cache.missing(captions):
    text = fill(config, tokenizer, captions)
  vectors = _same_as_before(text, workdir)(captions)
  _require_width(config, vectors['tokens'].shape[-1])
  return vectors


def check_prompts(
    config: ml_collections.ConfigDict, tokenizer: tokenizer_lib.Tokenizer
) -> None:
  """Raises UserError for one of sample.prompts that cannot be used."""
  for prompt in config.sample.prompts:
    require(
        isinstance(prompt, str) and prompt.strip(),
        f'a prompt is {prompt!r}; it must describe a clip in words.',
    )
    require(
        not tokenizer([prompt]).truncated[0],
        f'the prompt {prompt!r} has more than {tokenizer.length - 1} tokens, '
        'as many as the run was trained with; shorten it.',
    )
    table = config.text.encoder == 'table'
    unknown = tokenizer.unknown(
        tokenizer.without_stop(prompt) if table else prompt
    )
    words = ', '.join(map(repr, unknown))
    if table:
      require(
          not unknown,
          f'the prompt {prompt!r} holds {words}, unknown to this run; it knows '
          f'{" ".join(sorted(tokenizer.pieces)[:50])}.',
      )
    elif unknown:
      logging.warning('T5 does not know %s of the prompt %r.', words, prompt)


def check_t5(config: ml_collections.ConfigDict) -> None:
  """Raises UserError for a T5 that cannot be used; reads no arrays."""
  tokenizer = _tokenizer(config, None, None)
  found = t5_weights.t5_config(
      config.text.path, num_pieces=tokenizer.num_pieces
  )
  _require_width(config, found.dim)


def prepare(config: ml_collections.ConfigDict, sources: Iterable) -> None:
  """Computes T5's vectors of all captions of some sources.

  Raises:
    UserError: no tokenizer or no encoder; the encoder has another width.
  """
  sources = list(sources)
  tokenizer = _tokenizer(config, None, sources[0])
  captions = (c for source in sources for c in source.captions())
  fill(config, tokenizer, captions)


def fill(
    config: ml_collections.ConfigDict,
    tokenizer: tokenizer_lib.Tokenizer,
    captions: Iterable[str],
) -> tokens.Vectors:
  """Reads T5 and computes the vectors of captions that have none."""
  path = config.text.path
  logging.info('Reading the T5 in %s.', path)
  t5_config, params = t5_weights.load_t5(
      path, num_pieces=tokenizer.num_pieces
  )
  _require_width(config, t5_config.dim)
  fingerprint = t5_weights.fingerprint(t5_config, params)
  cache = _open_cache(config, fingerprint, tokenizer)
  dtype = embedding_cache.DTYPES[config.text.dtype]
  with memory.explained(functools.partial(_t5_too_large, path)):
    report = cache.fill(captions, t5.make_encode(t5_config, params, dtype))
  known = {'fingerprint': fingerprint, 'stamp': t5_weights.stamp(path)}
  _remember_encoder(config, path, known)
  logging.info(
      '%d captions have vectors in %s: %d are new, %d were too long and lost '
      'their end.',
      report.captions, cache.directory, report.computed, report.truncated,
  )
  return tokens.Vectors(tokenizer, cache)


def _t5_too_large(path, need):
  return (
      f'{memory.misfit(f"the T5 in {path}", need)}; set text.dtype to '
      "'bfloat16', or run --mode=prepare where there is more memory."
  )


def keep_tokenizer(text: Text, workdir: epath.Path) -> None:
  """Writes WORKDIR/tokenizer.model where there is none."""
  path = workdir / TOKENIZER
  if not path.exists():
    files.write(path, text.tokenizer.content)


def _tokenizer(config, workdir, source) -> tokenizer_lib.Tokenizer:
  """That of the run, else the configured one, else one made of captions."""
  options = config.text
  is_t5 = options.encoder == 't5'
  own = workdir and epath.Path(workdir) / TOKENIZER
  folder = epath.Path(files.expand(options.path, 'text.path', bucket=True))
  beside = [p / name for p in (folder, folder.parent) for name in _NAMES]
  given = options.tokenizer and epath.Path(
      files.expand(options.tokenizer, 'text.tokenizer', bucket=True)
  )
  kept = own and own.exists()
  if kept:
    model = own
  elif given:
    model = given
  elif is_t5:
    model = next((path for path in beside if path.exists()), None)
    require(
        model is not None or folder.exists(),
        f'text.path {folder} does not exist; give the checkpoint of a T5.',
    )
    require(
        model is not None,
        f'text.path {folder} has no {" or ".join(_NAMES)} in it or beside it; '
        'give text.tokenizer.',
    )
  else:
    require(
        source is not None,
        f'{workdir} has no {TOKENIZER}; copy it from where the run was '
        'trained.',
    )
    model = tokenizer_lib.train_tokenizer(
        source.captions(), max_pieces=options.max_pieces
    )
  tokenizer = tokenizer_lib.Tokenizer(model, length=options.length)
  # On another machine than that of the training it need not exist.
  require(
      not kept or not given or not given.exists()
      or given.read_bytes() == tokenizer.content,
      f'text.tokenizer {given} is not the one that the run was trained with, '
      f'{own}.',
  )
  require(
      is_t5 or tokenizer.num_pieces <= options.max_pieces,
      f'text.max_pieces is {options.max_pieces}, but the tokenizer has '
      f'{tokenizer.num_pieces}; set it to that.',
  )
  return tokenizer


def _same_as_before(text, workdir):
  """`text`, if it is what the run in workdir, if any, was trained with."""
  saved = run_dir.text_fingerprint(workdir)
  require(
      saved in ('', text.fingerprint),
      f'{workdir} was trained with another tokenizer or text encoder; set '
      'text.path, and text.tokenizer if it was set, to those.',
  )
  return text


def _require_width(config, width):
  require(
      width == config.text.dim,
      f'the T5 in text.path {config.text.path} has vectors of width {width}, '
      f'but text.dim is {config.text.dim}; give a T5 of that size.',
  )


def _cache_dir(config) -> pathlib.Path:
  own = config.text.dir
  return pathlib.Path(
      files.expand(own, 'text.dir')
      if own
      else os.path.join(datasets.data_dir(''), 'text_embeddings')
  )


def _known_vectors(config, tokenizer) -> tokens.Vectors | None:
  """Those by the encoder that text.path was found to hold."""
  path = config.text.path
  known = _encoders(config).get(path)
  if known is None:
    return None
  if t5_weights.stamp(path) not in ('', known['stamp']):
    logging.warning('The T5 in %s is not the one that it was.', path)
    return None
  return tokens.Vectors(
      tokenizer, _open_cache(config, known['fingerprint'], tokenizer)
  )


def _open_cache(config, fingerprint, tokenizer):
  """The cache of vectors that this T5 computes in text.dtype."""
  dtype = config.text.dtype
  return embedding_cache.EmbeddingCache(
      _cache_dir(config),
      encoder=fingerprint + (f':{dtype}' if dtype != 'float32' else ''),
      tokenizer=tokenizer,
  )


def _encoders(config) -> dict[str, dict[str, str]]:
  """Path of a T5 -> its 'fingerprint' and 'stamp' when it was last read."""
  path = _cache_dir(config) / ENCODERS
  try:
    found = json_files.read(path) if path.exists() else {}
    return {
        name: known
        for name, known in found.items()
        if isinstance(known, dict)
        and all(isinstance(known.get(k), str) for k in ('fingerprint', 'stamp'))
    }
  except UserError:
    logging.warning('%s cannot be read; it is made anew.', path)
    return {}


def _remember_encoder(config, path, known):
  """Adds to `_encoders`, which other processes may do at the same time."""
  folder = _cache_dir(config)
  with storage.writing_to(folder, field='text.dir'):
    with locks.Lock(folder, wait=True):
      encoders = _encoders(config) | {path: known}
      files.write(folder / ENCODERS, json.dumps(encoders, indent=1))
