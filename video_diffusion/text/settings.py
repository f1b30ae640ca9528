"""How a run turns captions into tokens."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the text encoder of a run.

  Errors of this folder name them as arguments: 'path', 'dim'.

  Attributes:
    encoder: 'table', a table of vectors that the model learns, or 't5', a
      frozen T5 encoder.
    path: checkpoint of the T5, local or gs://.
    tokenizer: a sentencepiece model, local or gs://. '' takes the one that lies
      in or beside `path` or, for a table, trains one on the captions.
    dtype: dtype in which the T5 computes, 'float32' or 'bfloat16'.
    length: tokens of a caption, including the end mark.
    dim: width of the vector of a token.
    max_pieces: largest number of pieces of the tokenizer of a table, which has
      a row for each of them.
    dir: folder in which the vectors of a T5 are kept; '' takes the folder
      text_embeddings beside the prepared data sets.
  """

  encoder: str
  path: str = ''
  tokenizer: str = ''
  dtype: str = 'float32'
  length: int = 64
  dim: int = 1024
  max_pieces: int = 1024
  dir: str = ''
