"""From config.text to what makes tokens of captions and prompts."""
from collections.abc import Callable, Iterable, Sequence
import functools
import json

from etils import epath
import ml_collections
import numpy as np

from video_diffusion.config import init_from
from video_diffusion.config import saved_config
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import naming
from video_diffusion.text import encode as encode_lib
from video_diffusion.text import settings as settings_lib
from video_diffusion.text import t5_vectors
from video_diffusion.text import tokenizer_files

CAPTIONS_OF_A_LINE = 2048  # as many as a file of vectors has


def settings(config: ml_collections.ConfigDict) -> settings_lib.Settings:
  """How captions become tokens: the text fields but for text.injection."""
  fields = config.text.to_dict()
  del fields['injection']  # of the network
  return settings_lib.Settings(**fields)


def _fields():
  """Names the arguments of the text encoder as fields of config.text."""
  return naming(lambda name: f'text.{name}')


def places(
    config: ml_collections.ConfigDict, run_dir: epath.Path
) -> tuple[str, ...]:
  """The text fields that name what a trained run needs beside its folder."""
  if config.text.encoder != 't5':
    return ()
  own = (run_dir / tokenizer_files.NAME).exists()
  return ('text.path', 'text.dir') + (() if own else ('text.tokenizer',))


def open_text(
    config: ml_collections.ConfigDict,
    run_dir: epath.Path,
    source: mixture_lib.Source | mixture_lib.Mixture,
) -> encode_lib.Text | None:
  """What makes tokens of the captions of a source; None for a run without text.

  Raises:
    UserError: see `text.encode.open_text` and `init_from.tokenizer_folder`.
  """
  if not config.text.encoder:
    return None
  other = init_from.tokenizer_folder(config, run_dir)
  with _fields():
    return encode_lib.open_text(
        settings(config), source, run_dir=run_dir, other_dir=other,
        fingerprint=saved_config.text_fingerprint(run_dir),
    )


def check_t5(config: ml_collections.ConfigDict) -> None:
  """Checks that the T5 of a config can be used; reads none of its arrays."""
  with _fields():
    t5_vectors.check(settings(config))


def prepare_t5(
    config: ml_collections.ConfigDict, captions: Iterable[str]
) -> None:
  """Computes the vectors of captions, for a run with T5.

  Several processes may do so at once, and share what they have computed.
  """
  with _fields():
    t5_vectors.prepare(settings(config), captions)


def prepare_t5_on_workers(
    config: ml_collections.ConfigDict,
    captions: Sequence[str],
    for_each: Callable[..., None],
) -> None:
  """Has the workers of an engine that have accelerators do the same.

  Args:
    config: the whole config.
    captions: distinct captions.
    for_each: (lines, work, folder=) -> None; see `builders.beam.for_each`.
  """
  with _fields():
    shared = t5_vectors.on_workers(settings(config))
    for_each(
        (
            json.dumps(captions[i : i + CAPTIONS_OF_A_LINE])
            for i in range(0, len(captions), CAPTIONS_OF_A_LINE)
        ),
        functools.partial(t5_vectors.fill_on_worker, settings=shared),
        folder=shared.dir,
    )


def make_encode(
    config: ml_collections.ConfigDict, run_dir: epath.Path
) -> Callable[..., dict[str, np.ndarray]] | None:
  """(captions, prompts=()) -> the arrays of the text encoder of a trained run.

  Prompts are those of the captions that a person has written; they are checked.
  None for a run without text.
  """
  if not config.text.encoder:
    return None

  def encode(captions, prompts=()):
    with _fields():
      return encode_lib.encode(
          settings(config), captions, run_dir=run_dir, prompts=prompts,
          fingerprint=saved_config.text_fingerprint(run_dir),
      )

  return encode
