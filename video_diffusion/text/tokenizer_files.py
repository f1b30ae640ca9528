"""The tokenizer of a run: where it is found, and where it is kept.

A run keeps its tokenizer as RUN_DIR/tokenizer.model. Together with config.json
and weights/, this is all that another machine needs to sample.
"""
from etils import epath

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.text import settings as settings_lib
from video_diffusion.text import tokenizer as tokenizer_lib

NAME = 'tokenizer.model'
# Names of the tokenizer that comes with the checkpoint of a T5.
T5_NAMES = ('spiece.model', 'sentencepiece.model')


def find(
    settings: settings_lib.Settings,
    run_dir: epath.Path | None = None,
    source: mixture_lib.Source | mixture_lib.Mixture | None = None,
) -> tokenizer_lib.Tokenizer:
  """The tokenizer of a run, else the one that the settings name.

  For a table without either it trains one on the captions of a source.

  Args:
    settings: settings of the text encoder.
    run_dir: folder of the run; None looks in no folder.
    source: clips with captions; None trains no tokenizer.

  Raises:
    ArgumentError: there is no tokenizer, the settings name another one than
      that of the run, or it has too many pieces.
    UserError: a file is not a tokenizer.
  """
  own = run_dir and epath.Path(run_dir) / NAME
  given = settings.tokenizer and epath.Path(
      files.expand(settings.tokenizer, Argument('tokenizer'), bucket=True)
  )
  kept = own and own.exists()
  is_t5 = settings.encoder == 't5'
  if kept:
    model = own
  elif given:
    model = given
  elif is_t5:
    model = _beside_t5(settings.path)
  elif source is not None:
    model = tokenizer_lib.train_tokenizer(
        source.captions(), max_pieces=settings.max_pieces
    )
  else:
    raise UserError(
        f'{run_dir} has no {NAME}; copy it from where the run was trained.'
    )
  tokenizer = tokenizer_lib.Tokenizer(model, length=settings.length)
  # The file that a run was trained with need not exist on another machine.
  if kept and given and given.exists():
    if given.read_bytes() != tokenizer.content:
      raise ArgumentError(
          Argument('tokenizer'), f' {given} is not the one that the run was '
          f'trained with, {own}.',
      )
  if not is_t5 and tokenizer.num_pieces > settings.max_pieces:
    raise ArgumentError(
        Argument('max_pieces'), f' is {settings.max_pieces}, but the tokenizer '
        f'has {tokenizer.num_pieces}; set it to that.',
    )
  return tokenizer


def _beside_t5(path: str) -> epath.Path:
  """The tokenizer in the folder of a T5's checkpoint, or in the one above."""
  folder = epath.Path(files.expand(path, Argument('path'), bucket=True))
  for place in (folder, folder.parent):
    for name in T5_NAMES:
      if (place / name).exists():
        return place / name
  if not folder.exists():
    raise ArgumentError(
        Argument('path'),
        f' {folder} does not exist; give the checkpoint of a T5.',
    )
  raise ArgumentError(
      Argument('path'), f' {folder} has no {" or ".join(T5_NAMES)} in it or '
      'beside it; give ', Argument('tokenizer'), '.',
  )


def keep(tokenizer: tokenizer_lib.Tokenizer, run_dir: epath.Path) -> None:
  """Writes RUN_DIR/tokenizer.model unless there is one."""
  path = run_dir / NAME
  if not path.exists():
    files.write(path, tokenizer.content)
