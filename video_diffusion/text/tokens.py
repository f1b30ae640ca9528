"""Turns captions into tokens: ids, or the vectors of a frozen encoder.

Both classes turn n captions into {'tokens': [n, length] ids or [n, length, D]
vectors, 'mask': bool [n, length]}. A caption without text has no token: the
model then sees its null condition, as it does for an absent label.
"""
from collections.abc import Sequence

import numpy as np

from video_diffusion.text import embedding_cache
from video_diffusion.text import tokenizer as tokenizer_lib


class Ids:
  """Turns captions into int32 ids, for a table that the model learns.

  Attributes:
    tokenizer: tokenizer of the captions.
    fingerprint: digest of all that the tokens depend on.
  """

  def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
    self.tokenizer = tokenizer
    self.fingerprint = f'{tokenizer.fingerprint}:{tokenizer.length}'

  def __call__(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """{'tokens': int32 [n, length], 'mask': bool [n, length]}."""
    # Prompts end in a full stop more often than captions do.
    ids, mask, _ = self.tokenizer(map(self.tokenizer.without_stop, captions))
    return {'tokens': ids, 'mask': mask & _written(captions)}


class Vectors:
  """Turns captions into vectors that a cache holds.

  Attributes:
    tokenizer: tokenizer of the captions.
    cache: filled before, with every caption that is asked for.
    fingerprint: digest of all that the tokens depend on.
  """

  def __init__(
      self,
      tokenizer: tokenizer_lib.Tokenizer,
      cache: embedding_cache.EmbeddingCache,
  ):
    self.tokenizer, self.cache = tokenizer, cache
    self.fingerprint = cache.directory.name

  def __call__(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """{'tokens': [n, length, D] as they are kept, 'mask': bool [n, length]}.

    Raises:
      UserError: a caption is not in the cache.
    """
    tokens, mask = self.cache.lookup(captions)
    return {'tokens': tokens, 'mask': mask & _written(captions)}


def _written(captions):
  """bool [n, 1]: which captions hold any text."""
  return np.array([bool(caption.strip()) for caption in captions])[:, None]
