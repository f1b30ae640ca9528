"""What a config asks of its data sets, checked when these are there."""
from collections.abc import Mapping

from absl import logging
import ml_collections
import numpy as np

from video_diffusion.config import validate
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import sides
from video_diffusion.errors import UserError


def check(
    config: ml_collections.ConfigDict,
    sources: Mapping[str, mixture_lib.Source],
    *,
    split: str,
) -> None:
  """Checks the sources of clips that a config trains on, or is evaluated on.

  A run with text needs captions. In training it warns of clips that have none,
  which are taken as with a dropped condition. With data.flip, half of the clips
  contradict captions and classes that name a side: an error where these are the
  condition, and a warning where they are not.

  Args:
    config: the whole config.
    sources: where a data set stands in the config -> its clips.
    split: 'train' or 'test', of the sources.

  Raises:
    UserError: a data set has no captions and the run has text; or data.flip is
      set, and conditions name sides.
  """
  text = bool(config.text.encoder)
  labels = validate.conditioning_kind(config) == 'labels'
  for prefix, source in sources.items():
    if text and 'caption' not in source.example(0, np.random.default_rng(0), 1):
      raise UserError(
          f'text.encoder is {config.text.encoder!r}, but the clips of {prefix} '
          'have no captions; a folder has them in captions.jsonl or '
          'captions.csv.'
      )
    if split != 'train':
      continue
    lacking = getattr(source, 'clips_without_caption', 0)
    if text and lacking:
      logging.warning(
          '%s has clips without a caption, %d in both splits together; the '
          'run trains on them without a condition.', prefix, lacking,
      )
    if not config.data.flip:
      continue
    named = getattr(source, 'sides', lambda: sides.Found(0, ''))()
    _check_mirrored(f'captions of {prefix}', named, conditioning=text)
    named = sides.find(getattr(source, 'class_names', ()))
    _check_mirrored(f'classes of {prefix}', named, conditioning=labels)


def _check_mirrored(whose: str, named: sides.Found, *, conditioning: bool):
  if not named.count:
    return
  sentence = (
      f'data.flip is set, but a mirrored clip contradicts {named.count} of the '
      f'{whose}, which name a side, for instance {named.example!r}; set '
      'data.flip=False.'
  )
  if conditioning:
    raise UserError(sentence)
  logging.warning('%s The run is not conditioned on them.', sentence)
