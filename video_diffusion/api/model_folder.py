"""Folders of models: what `Model.save` writes and `load` reads.

  config.json      config of the run, with the version of the format
  weights/         EMA weights, safetensors
  tokenizer.model  for a model that takes captions
  README.md        model card

A run's own folder has all but the card, and is read in the same way.
"""
import json
from typing import Any

from etils import epath

from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import demo
from video_diffusion.config import model_card
from video_diffusion.config import saved_config
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.filesystem import files
from video_diffusion.text import tokenizer_files

CARD = 'README.md'
HUB = 'hf://'
# All that is fetched from a hub; nothing else there is read.
_PATTERNS = (
    'config.json', f'{weights.FOLDER}/*.safetensors', tokenizer_files.NAME, CARD
)


def save(
    folder: epath.PathLike,
    *,
    run_dir: epath.Path,
    config,
    params: Any,
    step: int,
    dtype: str,
    card: str,
) -> None:
  """Writes a model folder, which takes its name when it is whole.

  Args:
    folder: local or gs://; a model folder that has the name is replaced.
    run_dir: folder of the run, which may hold a tokenizer and scores.
    config: config of the run; the paths and prompts in it are left out.
    params: EMA parameters.
    step: number of updates behind them.
    dtype: 'float32' or 'bfloat16', in which weights are stored.
    card: text of the model card; '' makes one of the config and the scores.

  Raises:
    UserError: the folder holds something else, or dtype is another.
  """
  if dtype not in build.DTYPES:
    raise ArgumentError(
        Argument('dtype'),
        f' is {dtype!r}; it must be one of {", ".join(build.DTYPES)}.',
    )
  folder = epath.Path(files.expand(folder, Argument('folder'), bucket=True))
  if folder.exists() and any(
      path.name not in (*_PATTERNS, weights.FOLDER)
      for path in folder.iterdir()
  ):
    raise ArgumentError(
        Argument('folder'), f' {folder} holds something else than a model; '
        'give a new folder.',
    )
  content = saved_config.without_places(config, run_dir)
  tokenizer = run_dir / tokenizer_files.NAME
  with files.writing_folder(folder) as part:
    (part / 'config.json').write_text(json.dumps(content, indent=1))
    weights.save(
        params, part / weights.FOLDER, step=step, dtype=build.DTYPES[dtype]
    )
    if config.text.encoder and tokenizer.exists():
      (part / tokenizer_files.NAME).write_bytes(tokenizer.read_bytes())
    text = card or model_card.write(config, run_dir, params, step=step)
    (part / CARD).write_text(text)


def find(path: epath.PathLike | None) -> str:
  """The folder that `load` reads.

  Args:
    path: a folder; 'hf://OWNER/NAME' or 'hf://OWNER/NAME@REVISION', which
      huggingface_hub fetches; or None, the model that comes with the package.

  Raises:
    UserError: huggingface_hub is missing, or cannot fetch the model.
  """
  if path is None:
    return str(demo.PACKAGED)
  if not str(path).startswith(HUB):
    return path
  name, _, revision = str(path).removeprefix(HUB).partition('@')
  if name.count('/') != 1 or not all(name.split('/')):
    raise ArgumentError(
        Argument('path'), f' is {str(path)!r}; a model of the hub is '
        'hf://OWNER/NAME.',
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise ArgumentError(
        Argument('path'), f' is {str(path)!r}, which needs huggingface_hub; '
        "install it by pip install 'video_diffusion[hub]'.",
    ) from error
  try:
    return huggingface_hub.snapshot_download(
        name, revision=revision or None, allow_patterns=[*_PATTERNS]
    )
  except (OSError, ValueError) as error:  # its errors are of these classes
    reason = str(error).strip().splitlines()[0]
    raise ArgumentError(
        Argument('path'), f' {path} cannot be fetched ({reason}).'
    ) from error
