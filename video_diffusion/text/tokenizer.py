"""Turns captions into token ids, by sentencepiece as T5 uses it."""
from collections.abc import Iterable
import hashlib
import io
import os
from typing import NamedTuple

from etils import epath
import numpy as np

from video_diffusion.errors import UserError

PAD = 0
MAX_MODEL = 2**26  # bytes of a sentencepiece model; T5's has 2**20
_SPACE = '▁'  # sentencepiece's mark of the start of a word


class Tokens(NamedTuple):
  """Token ids of captions.

  Attributes:
    ids: int32 [n, length]; PAD after the end.
    mask: bool [n, length], True up to and with the end mark.
    truncated: bool [n], captions that were too long and lost their end.
  """

  ids: np.ndarray
  mask: np.ndarray
  truncated: np.ndarray


class Tokenizer:
  """A sentencepiece model as T5 uses it: pieces, the end mark, padding.

  Attributes:
    length: ids of a caption, with the end mark.
    num_pieces: number of pieces; ids are below it.
    fingerprint: digest of the model.
    content: content of the model's file.
  """

  def __init__(self, model: bytes | os.PathLike | str, *, length: int):
    """Opens a model.

    Args:
      model: the content of a sentencepiece model, or its path, local or gs://.
      length: ids of a caption, with the end mark; at least 2.

    Raises:
      UserError: there is no such model, it has no end mark, or the length is
        too short.
    """
    import sentencepiece

    name = 'the tokenizer' if isinstance(model, bytes) else os.fspath(model)
    if length < 2:
      raise UserError(
          f'a caption of length {length} has no room for a piece and the end '
          'mark; it must be at least 2.'
      )
    try:
      content = model
      if not isinstance(model, bytes):
        size = epath.Path(model).stat().length
        if size > MAX_MODEL:
          raise UserError(
              f'{name} has {size:,} bytes; a sentencepiece model has at most '
              f'{MAX_MODEL:,}.'
          )
        content = epath.Path(model).read_bytes()
      self._processor = sentencepiece.SentencePieceProcessor(
          model_proto=content
      )
    except (OSError, RuntimeError) as error:
      raise UserError(
          f"{name} is no sentencepiece model; T5's is called spiece.model or "
          'sentencepiece.model.'
      ) from error
    if self._processor.eos_id() < 0:
      raise UserError(f'{name} has no end mark </s>, which T5 needs.')
    self.length, self.content = length, content
    self.num_pieces = self._processor.get_piece_size()
    self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

  def __call__(self, captions: Iterable[str]) -> Tokens:
    """Returns the token ids of captions; '' is the end mark alone."""
    captions = list(captions)
    ids = np.full((len(captions), self.length), PAD, np.int32)
    mask = np.zeros(ids.shape, bool)
    truncated = np.zeros(len(captions), bool)
    for i, pieces in enumerate(self._processor.encode(captions)):
      truncated[i] = len(pieces) >= self.length
      pieces = pieces[: self.length - 1] + [self._processor.eos_id()]
      ids[i, : len(pieces)] = pieces
      mask[i, : len(pieces)] = True
    return Tokens(ids, mask, truncated)

  @property
  def pieces(self) -> list[str]:
    """All pieces but control symbols, without the mark of a word's start."""
    model = self._processor
    return [
        model.id_to_piece(i).removeprefix(_SPACE)
        for i in range(self.num_pieces)
        if not (model.is_control(i) or model.is_unknown(i))
    ]

  def without_stop(self, caption: str) -> str:
    """Returns the caption without marks at its end that the model lacks.

    To a model of words 'right.' is another word than 'right'.
    """
    bare = caption.rstrip().rstrip('.!?').rstrip()
    if bare in ('', caption):
      return caption
    last = self._processor.encode(caption)[-1]
    return bare if last == self._processor.unk_id() else caption

  def unknown(self, caption: str) -> list[str]:
    """Returns the parts of a caption that the model lacks, each once."""
    ids = self._processor.encode(caption)
    names = self._processor.encode(caption, out_type=str)
    # Neighbours that are unknown come as one piece.
    parts = [
        part
        for name, i in zip(names, ids, strict=True)
        if i == self._processor.unk_id()
        for part in name.split(_SPACE)
        if part
    ]
    return list(dict.fromkeys(parts))


def train_tokenizer(
    captions: Iterable[str], *, max_pieces: int = 8192
) -> bytes:
  """Trains a small sentencepiece model whose pieces are words of captions.

  For captions of few words, as those of moving_shapes: a word that they do not
  have is unknown, and can be named, which letters could not. The case of
  letters is ignored. Equal captions in any order give equal bytes.

  Args:
    captions: captions to learn from.
    max_pieces: the rarest words beyond are left out.

  Returns:
    The model, with T5's special ids: pad 0, end 1, unknown 2.

  Raises:
    UserError: there are no words.
  """
  import sentencepiece

  captions = sorted({caption for caption in captions if caption.strip()})
  if not captions:
    raise UserError('a tokenizer cannot be trained without captions.')
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(captions),
      model_writer=model,
      model_type='word',
      normalization_rule_name='nmt_nfkc_cf',
      vocab_size=max_pieces,
      hard_vocab_limit=False,
      character_coverage=1.0,
      pad_id=PAD,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      num_threads=1,
      minloglevel=2,
  )
  return model.getvalue()
