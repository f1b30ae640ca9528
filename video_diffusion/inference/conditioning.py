"""What clips are drawn from: labels or captions, given or of held-out clips."""
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from video_diffusion.config import inputs
from video_diffusion.config import validate
from video_diffusion.data import pipeline


def heldout_examples(
    config: ml_collections.ConfigDict, source
) -> Iterator[dict[str, Any]]:
  """sample.num_clips held-out clips, in turn; see `mixing.Source.example`."""
  rng = np.random.default_rng(0)
  for i in range(config.sample.num_clips):
    yield source.example(
        i % source.num_examples, rng, config.data.frames,
        config.data.frameskips,
    )


class Drawn(NamedTuple):
  """What clips are drawn from.

  Attributes:
    condition: what the model's encoder takes, each [num_clips, 1, ...]; None
      for an unconditional model.
    captions: of each clip, () for a model that knows no text.
  """

  condition: dict[str, np.ndarray] | None
  captions: tuple[str, ...] = ()


def sample_condition(
    config: ml_collections.ConfigDict,
    source,
    encode: pipeline.Encode | None = None,
) -> Drawn:
  """Of sample.prompts or sample.labels, else of held-out clips.

  Args:
    config: of the run.
    source: of held-out clips; None with prompts.
    encode: captions -> tokens and mask, of a run with text.

  Raises:
    UserError: prompts or labels that do not fit.
  """
  if not config.text.encoder:
    labels = sample_labels(config, source)
    return Drawn(None if labels is None else {'labels': labels})
  options = config.sample
  prompts = options.prompts
  validate.require(
      not options.labels,
      'sample.labels is set, but the model takes text; give --prompt.',
  )
  validate.require(
      isinstance(prompts, tuple) and len(prompts) <= options.num_clips,
      f'sample.num_clips is {options.num_clips}, but there are {len(prompts)} '
      'prompts; set it to at least that.',
  )
  if prompts:
    captions = [prompts[i % len(prompts)] for i in range(options.num_clips)]
  else:
    captions = [e['caption'] for e in heldout_examples(config, source)]
  return of_captions(captions, encode)


def of_captions(captions: Sequence[str], encode: pipeline.Encode) -> Drawn:
  """What clips with these captions are drawn from."""
  condition = {name: x[:, None] for name, x in encode(captions).items()}
  return Drawn(condition, tuple(captions))


def sample_labels(
    config: ml_collections.ConfigDict, source
) -> np.ndarray | None:
  """int32 [num_clips, 1, slots]: sample.labels, else those of held-out clips.

  Raises:
    UserError: sample.labels of another length or out of range.
  """
  sizes = inputs.label_sizes(source)
  n, given = config.sample.num_clips, config.sample.labels
  validate.require(
      not config.sample.prompts,
      'sample.prompts is set (or --prompt, --prompt_file), but the model knows '
      'no text: its text.encoder is empty.',
  )
  if not config.model.cond_dim:
    validate.require(
        not given, 'sample.labels is set, but the model is unconditional.'
    )
    return None
  if not given:
    rows = [e['labels'].ravel() for e in heldout_examples(config, source)]
    return np.asarray(rows, np.int32)[:, None]
  for row in given:
    good = (
        isinstance(row, (tuple, list))
        and len(row) == len(sizes)
        and all(
            isinstance(value, int) and -1 <= value < size
            for value, size in zip(row, sizes, strict=True)
        )
    )
    validate.require(
        good,
        f'sample.labels holds {row}; it is a tuple of tuples, each of '
        f'{len(sizes)} whole numbers from -1 to below {sizes}.',
    )
  rows = [given[i % len(given)] for i in range(n)]
  return np.asarray(rows, np.int32)[:, None]
