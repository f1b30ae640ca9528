"""Captions and prompts as tokens, for training and for sampling."""
import collections
from collections.abc import Sequence

from absl import logging
from etils import epath
import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.text import settings as settings_lib
from video_diffusion.text import t5_vectors
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokenizer_files
from video_diffusion.text import tokens

CHECKED = 16  # clips of a data set whose captions `open_text` looks up
MAX_WORDS = 50  # words that a line of the log names

Text = tokens.Ids | tokens.Vectors


def open_text(
    settings: settings_lib.Settings,
    source: mixture_lib.Source | mixture_lib.Mixture,
    *,
    run_dir: epath.Path,
    other_dir: epath.Path | None = None,
    fingerprint: str = '',
) -> Text:
  """Opens what makes tokens of the captions of a source, for training.

  Args:
    settings: settings of the text encoder.
    source: clips with captions.
    run_dir: folder of the run, which may have a tokenizer.
    other_dir: folder of another run, whose tokenizer is taken over; None takes
      over none.
    fingerprint: `Text.fingerprint` of what the run was trained with; '' for a
      new run.

  Raises:
    UserError: there is no tokenizer, --mode=prepare has not computed the
      vectors, the run was trained with something else, or the tokenizer that
      is taken over lacks most words of the captions.
  """
  mixture = mixture_lib.as_mixture(source)
  if other_dir is None:
    tokenizer = tokenizer_files.find(settings, run_dir, mixture)
  else:
    tokenizer = tokenizer_files.find(settings, other_dir)
    _check_words(tokenizer, mixture.captions(), other_dir)
  if settings.encoder == 'table':
    text = tokens.Ids(tokenizer)
    _require_same(text, run_dir, fingerprint)
    return text
  text = t5_vectors.known_vectors(settings, tokenizer)
  if text is None:
    raise ArgumentError(
        f'{t5_vectors.directory(settings)} holds no vectors by ',
        Argument('path'), f' {settings.path}; run --mode=prepare with this '
        'config.',
    )
  # There may be millions of captions. Those of a few clips stand for all: if a
  # data set was not prepared, or only half of it, some have no vectors.
  rng, captions = np.random.default_rng(0), []
  for part in dict.fromkeys((*mixture.sources, *mixture.images.sources)):
    for i in range(0, part.num_examples, -(-part.num_examples // CHECKED)):
      captions.append(part.example(i, rng, 1)['caption'])
  t5_vectors.require_width(settings, text(captions)['tokens'].shape[-1])
  _require_same(text, run_dir, fingerprint)
  return text


def encode(
    settings: settings_lib.Settings,
    captions: Sequence[str],
    *,
    run_dir: epath.Path,
    prompts: Sequence[str] = (),
    fingerprint: str = '',
) -> dict[str, np.ndarray]:
  """Tokens of captions to sample from; reads the T5 if some have no vectors.

  Args:
    settings: settings of the text encoder.
    captions: one for each video.
    run_dir: folder of the run, which is trained.
    prompts: captions among these that a person has written; they are checked.
    fingerprint: `Text.fingerprint` of what the run was trained with; '' where
      that is not known.

  Returns:
    {'tokens': [n, length] or [n, length, D], 'mask': bool [n, length]}.

  Raises:
    UserError: a prompt is empty, too long or, for a table, partly unknown;
      there is no tokenizer or no encoder, or the run was trained with others.
  """
  tokenizer = tokenizer_files.find(settings, run_dir)
  check_prompts(prompts, tokenizer, encoder=settings.encoder)
  if settings.encoder == 'table':
    text = tokens.Ids(tokenizer)
    _require_same(text, run_dir, fingerprint)
    return text(captions)
  text = t5_vectors.known_vectors(settings, tokenizer)
  if text is None or text.cache.missing(captions):
    text = t5_vectors.fill(settings, tokenizer, captions)
  _require_same(text, run_dir, fingerprint)
  vectors = text(captions)
  t5_vectors.require_width(settings, vectors['tokens'].shape[-1])
  return vectors


def check_prompts(
    prompts: Sequence[str],
    tokenizer: tokenizer_lib.Tokenizer,
    *,
    encoder: str,
) -> None:
  """Checks that prompts can be used; warns of words that a T5 does not know.

  Args:
    prompts: captions that a person has written.
    tokenizer: tokenizer of the run.
    encoder: 'table' or 't5'.

  Raises:
    UserError: a prompt is empty, too long or, for a table, partly unknown.
  """
  for prompt in prompts:
    if not isinstance(prompt, str) or not prompt.strip():
      raise UserError(
          f'a prompt is {prompt!r}; it must describe a clip in words.'
      )
    if tokenizer([prompt]).truncated[0]:
      raise UserError(
          f'the prompt {prompt!r} has more than {tokenizer.length - 1} tokens, '
          'as many as the run was trained with; shorten it.'
      )
    table = encoder == 'table'
    unknown = tokenizer.unknown(
        tokenizer.without_stop(prompt) if table else prompt
    )
    words = ', '.join(map(repr, unknown))
    if table and unknown:
      raise UserError(
          f'the prompt {prompt!r} holds {words}, unknown to this run; it knows '
          f'{" ".join(sorted(tokenizer.pieces)[:50])}.'
      )
    if unknown:
      logging.warning('T5 does not know %s of the prompt %r.', words, prompt)


def _check_words(tokenizer, captions, other_dir) -> None:
  """Lists words of captions that a tokenizer of another run lacks.

  Raises:
    ArgumentError: it lacks most of them.
  """
  words, lacking = 0, collections.Counter()
  for caption in {*captions}:
    caption = tokenizer.without_stop(caption)
    words += len({*caption.lower().split()})
    lacking.update(tokenizer.unknown(caption))
  if not lacking:
    return
  names = ', '.join(repr(word) for word, _ in lacking.most_common(MAX_WORDS))
  more = len(lacking) - MAX_WORDS
  names += f' and {more:,} more' if more > 0 else ''
  if 2 * lacking.total() > words:
    raise ArgumentError(
        f'the tokenizer of {other_dir} lacks most words of the captions '
        f'({names}); set ', Argument('tokenizer'), ' to one that has them, '
        'whose vectors then start anew.',
    )
  logging.warning(
      'The tokenizer of %s, which this run takes over, lacks %d words of the '
      'captions: %s. To the model they are all one unknown word.', other_dir,
      len(lacking), names,
  )


def _require_same(text: Text, run_dir, fingerprint: str) -> None:
  """Raises ArgumentError if a run was trained with another text encoder."""
  if fingerprint not in ('', text.fingerprint):
    raise ArgumentError(
        f'{run_dir} was trained with another tokenizer or text encoder; set ',
        Argument('path'), ', and ', Argument('tokenizer'), ' if it was set, to '
        'those.',
    )
