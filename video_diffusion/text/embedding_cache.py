"""Embeddings of captions, computed once and kept on disk.

A frozen encoder gives a caption the same embedding at every step, so captions
are embedded before training. The function that computes embeddings is passed
in: this module knows no model.
"""
from collections.abc import Callable, Iterable, Sequence
import contextlib
import hashlib
import json
import logging
import os
import pathlib
import random
from typing import NamedTuple
import uuid

import jax.numpy as jnp
import numpy as np

from video_diffusion.data import storage
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files as files_lib
from video_diffusion.text import embedding_files as files
from video_diffusion.text import tokenizer as tokenizer_lib

VERSION = 1  # raise it when the same settings give another file
DTYPES = {'bfloat16': jnp.bfloat16, 'float32': jnp.float32}
_PART_AGE = 3600  # seconds after which an unfinished file is nobody's

# (ids int32 [batch, length], mask bool [batch, length]) -> [batch, length, D]
Encode = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Report(NamedTuple):
  """What `EmbeddingCache.fill` did.

  Attributes:
    captions: number of distinct captions that were asked for.
    computed: number of those that this process embedded.
    truncated: number of those that were longer than the tokenizer's length.
    note: one sentence where there were embeddings by other settings alone, ''
      otherwise.
  """

  captions: int
  computed: int
  truncated: int
  note: str


class EmbeddingCache:
  """Embeddings of captions, kept by the content of all that they depend on.

  A folder for each (encoder, tokenizer, length, dtype) holds files of some
  thousand captions. A caption lies there by a digest of its text, without its
  padding. Files appear by a rename and never change: what is there is whole, a
  process that is killed loses the file that it was at, and several may write at
  once, even the same caption.

  Safe to read from several threads; a copy can be sent to other processes.

  Attributes:
    directory: folder of the embeddings of these settings.
  """

  def __init__(
      self,
      directory: str | os.PathLike,
      *,
      encoder: str,
      tokenizer: tokenizer_lib.Tokenizer,
      dtype: str = 'bfloat16',
  ):
    """Opens a cache, which may be empty.

    Args:
      directory: local folder of the caches of all settings.
      encoder: a digest of the encoder, as `t5_weights.fingerprint` gives.
      tokenizer: tokenizer of the captions.
      dtype: dtype in which embeddings are kept, 'bfloat16' or 'float32'.

    Raises:
      UserError: another dtype.
    """
    if dtype not in DTYPES:
      raise UserError(
          f'embeddings cannot be kept as {dtype!r}; it must be one of '
          f'{", ".join(DTYPES)}.'
      )
    self._tokenizer, self._dtype = tokenizer, np.dtype(DTYPES[dtype])
    self._settings = {
        'version': VERSION,
        'encoder': encoder,
        'tokenizer': tokenizer.fingerprint,
        'length': tokenizer.length,
        'dtype': dtype,
    }
    key = hashlib.sha256(json.dumps(self._settings).encode()).hexdigest()[:16]
    self.directory = pathlib.Path(directory) / key
    self._files: dict[str, files.File] = {}
    self._index = files.merge({})

  def fill(
      self,
      captions: Iterable[str],
      encode: Encode,
      *,
      batch_size: int = 64,
      file_captions: int = 2048,
  ) -> Report:
    """Embeds the captions that are not there, with a progress bar.

    Args:
      captions: any number, the same one perhaps many times.
      encode: (ids, mask) -> [batch_size, length, D], finite; always given
        batch_size captions, so that it is compiled once.
      batch_size: captions of a call of `encode`.
      file_captions: captions of a file, in memory until it is written.

    Raises:
      ValueError: `encode` gives another shape.
      UserError: `encode` gives values that are not finite.
      StorageError: the directory cannot be written.
    """
    import tqdm

    captions = list(dict.fromkeys(captions))
    missing = self.missing(captions)
    note = self._note() if missing else ''
    if note:
      logging.warning(note)
    # In an order of its own: processes that work at once share the captions.
    random.Random(os.urandom(8)).shuffle(missing)
    computed, others = 0, set()
    with tqdm.tqdm(
        total=len(captions),
        initial=len(captions) - len(missing),
        desc='embedding captions',
        unit='caption',
    ) as progress:
      for i in range(0, len(missing), file_captions):
        part = missing[i : i + file_captions]
        for file in self._read_new_files():
          others.update(file.digests.tolist())
        todo = [c for c in part if files.digest(c) not in others]
        progress.update(len(part) - len(todo))
        batches = []
        for j in range(0, len(todo), batch_size):
          batch = todo[j : j + batch_size]
          batches.append(self._embed(batch, encode, batch_size))
          progress.update(len(batch))
        if todo:
          self._write(todo, batches)
        computed += len(todo)
    _, rows, index = self._find(captions)
    truncated = int(index.truncated[rows].sum())
    return Report(len(captions), computed, truncated, note)

  def missing(self, captions: Iterable[str]) -> list[str]:
    """Returns the captions that are not embedded, each once."""
    captions = list(dict.fromkeys(captions))
    found, _, _ = self._find(captions)
    return [c for c, there in zip(captions, found, strict=True) if not there]

  def lookup(
      self, captions: Sequence[str | bytes]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the embeddings of captions.

    Args:
      captions: one or more; bytes are UTF-8.

    Returns:
      (tokens, mask): [n, length, D] of the cache's dtype, zero at padding; bool
      [n, length], False at padding.

    Raises:
      UserError: a caption is not there.
    """
    found, rows, index = self._find(captions)
    if not found.all():
      caption = captions[int(np.argmin(found))]
      raise UserError(
          f'there is no embedding of the caption {caption!r} in '
          f'{self.directory}; run --mode=prepare with this encoder and '
          f'tokenizer. {self._note()}'.strip()
      )
    width = files.open_tokens(index.paths[0], self._dtype).shape[1]
    length = self._tokenizer.length
    tokens = np.zeros((len(captions), length, width), self._dtype)
    for i, row in enumerate(rows):
      path = index.paths[index.numbers[row]]
      start, size = index.starts[row], index.lengths[row]
      stored = files.open_tokens(path, self._dtype)
      tokens[i, :size] = stored[start : start + size]
    return tokens, np.arange(length) < index.lengths[rows][:, None]

  def _find(self, captions) -> tuple[np.ndarray, np.ndarray, files.Index]:
    """(is it there, its row, rows of what); looks for new files if need be."""
    digests = np.array([files.digest(c) for c in captions], 'S24')
    index = self._index
    found, rows = index.find(digests)
    if not found.all():
      self._read_new_files()
      self._index = index = files.merge(self._files)
      found, rows = index.find(digests)
    return found, rows, index

  def _read_new_files(self) -> list[files.File]:
    """The files that have appeared since the last call."""
    new = {}
    for path in map(os.fspath, self.directory.glob('[!.]*.embeddings')):
      if path not in self._files and (file := files.read(path)):
        new[path] = file
    # Not changed in place: another thread may be reading it.
    self._files = self._files | new
    return list(new.values())

  def _embed(self, captions, encode, batch_size):
    """(tokens [sum of lengths, D], lengths, truncated) of a batch."""
    ids, mask, truncated = self._tokenizer(captions)
    pad = ((0, batch_size - len(captions)), (0, 0))
    padded = np.pad(ids, pad, 'edge'), np.pad(mask, pad, 'edge')
    tokens = np.asarray(encode(*padded))
    if tokens.ndim != 3 or tokens.shape[:2] != padded[0].shape:
      raise ValueError(
          f'the encoder gives the shape {tokens.shape} for ids of shape '
          f'{padded[0].shape}; it must give a vector for each.'
      )
    tokens = tokens[: len(captions)]
    finite = (np.isfinite(tokens).all(axis=-1) | ~mask).all(axis=1)
    if not finite.all():
      raise UserError(
          'the encoder gives values that are not finite for the caption '
          f'{captions[int(np.argmin(finite))]!r}; T5 must run in float32 or '
          'bfloat16, and with the tokenizer that it was trained with.'
      )
    return tokens[mask].astype(self._dtype), mask.sum(axis=1), truncated

  def _write(self, captions, batches):
    tokens, lengths, truncated = map(
        np.concatenate, zip(*batches, strict=True)
    )
    digests = [files.digest(c) for c in captions]
    described = files.File(
        np.array(digests, 'S24'), lengths.astype(np.int32), truncated
    )
    path = self.directory / f'{uuid.uuid4().hex}.embeddings'
    with storage.writing_to(self.directory):
      self.directory.mkdir(parents=True, exist_ok=True)
      files_lib.remove_parts(self.directory, age=_PART_AGE)
      settings = json.dumps(self._settings)
      files_lib.write(self.directory / 'settings.json', settings)
      with files_lib.writing(path) as part, open(part, 'wb') as file:
        files.write(file, described, tokens)

  def _note(self) -> str:
    """What other settings there are embeddings by, where these have none."""
    others = []
    for path in sorted(self.directory.parent.glob('*/settings.json')):
      if path.parent == self.directory:
        return ''
      with contextlib.suppress(OSError, ValueError):
        settings = json.loads(path.read_text())
        changed = [k for k, v in self._settings.items() if settings.get(k) != v]
        others.append((len(changed), ', '.join(changed), path.parent))
    if not others:
      return ''
    _, changed, folder = min(others)
    return (
        f'The embeddings in {folder} were made with another {changed}: none of '
        'them is used.'
    )
