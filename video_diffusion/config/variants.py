"""The variants of a config file, and how one of them is made small."""
from collections.abc import Callable, Mapping

import ml_collections

from video_diffusion.errors import UserError


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Makes a config small: the same code runs in seconds a step on two cores.

  Args:
    config: the config, which is changed.

  Returns:
    The same config.
  """
  config.data.frames, config.data.images = 4, 2
  config.data.height = config.data.width = 16
  config.batch_size = 8
  config.model.base_channels = 16
  config.model.channel_mults = (1, 2)
  config.model.num_blocks = 1
  config.model.attention_resolutions = (8,)
  config.model.head_dim = 16
  config.model.emb_dim = 64
  config.model.dtype = 'float32'
  config.train.steps = 20
  config.log.every = 5
  config.checkpoint.every = 10
  config.eval.num_clips = config.eval.batch_size = 8
  config.sample.num_videos = config.sample.batch_size = 8
  config.sample.num_steps = 8
  return config


def select(
    variant: str,
    variants: Mapping[str, Callable[[], ml_collections.ConfigDict]],
) -> ml_collections.ConfigDict:
  """Returns the config of one of the variants of a config file.

  Args:
    variant: name of the variant.
    variants: name -> function that makes the config.

  Raises:
    UserError: there is no such variant; the sentence names those that exist.
  """
  if variant not in variants:
    raise UserError(
        f'the config has no variant {variant!r}; it has {", ".join(variants)}.'
    )
  return variants[variant]()
