"""Coloured shapes in motion, drawn on the fly; nothing to download.

  python -m video_diffusion.main --config=configs/moving_shapes.py
"""
from video_diffusion import default_config


def get_config(variant: str = 'laptop'):
  """The config of a variant, 'laptop' or 'accelerator'."""
  config = default_config.get_config()
  data, model, optim = config.data, config.model, config.optim
  data.name = 'moving_shapes'
  data.train_clips = 1_000_000
  data.test_clips = 10_000
  data.bounce = False
  data.heldout_pairs = ()
  config.diffusion.prediction = 'v'
  model.injection = 'scale_shift'
  optim.ema_rule = 'ramp'
  optim.schedule = 'cosine'
  if variant == 'laptop':
    data.frames, data.images, data.height, data.width = 8, 4, 16, 16
    data.radius, data.speed = 0.22, 0.04
    config.batch_size = 8
    model.base_channels = 24
    model.channel_mults = (1, 2)
    model.num_blocks = 1
    model.attention_resolutions = (8,)
    model.head_dim = 24
    model.emb_dim = 128
    model.cond_dim = 64
    model.dtype = 'float32'
    config.train.steps = 1000
    optim.lr = 2e-3
    optim.warmup_steps = 50
    optim.decay_steps = 1000
    optim.ema_decay = 0.99
    config.log.every = 25
    config.log.eval_every = 500
    config.log.sample_every = 500
    config.checkpoint.every = 250
    config.eval.num_clips = 64
    config.eval.batch_size = 32
    config.sample.num_clips = 64
    config.sample.batch_size = 64
    config.sample.num_steps = 64
    return config
  raise ValueError(f'unknown variant {variant!r}')
