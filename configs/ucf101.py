"""UCF101, unconditional, 16 frames of 64x64: the paper's first experiment.

  python -m video_diffusion.main --config=configs/ucf101.py \
    --config.data.path=DIR

DIR holds the unpacked UCF101 archive (13,320 avi files). Hyper-parameters are
the paper's (appendix A), which trained on 128 TPU v4 chips and reports FID 295
and IS 57 under C3D features. `:smoke` shrinks model and run for a first try.
"""
from video_diffusion import default_config


def get_config(variant: str = 'paper'):
  """The config of a variant, 'paper' or 'smoke'."""
  default_config.require_variant(variant, ('paper', 'smoke'))
  config = default_config.get_config()
  data, model, optim = config.data, config.model, config.optim
  data.name = 'ucf101'
  data.path = ''
  data.dir = ''
  data.frame_stride = 1
  data.clip_frames = 64
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  config.batch_size = 128
  model.base_channels = 256
  model.channel_mults = (1, 2, 4, 8)
  model.num_blocks = 2
  model.attention_resolutions = (8, 16, 32)
  model.head_dim = 64
  model.emb_dim = 1024
  model.emb_layers = 4
  model.dropout = 0.1
  config.diffusion.prediction = 'eps'
  optim.lr = 3e-4
  optim.beta1, optim.beta2 = 0.9, 0.99
  optim.weight_decay = 0.0
  optim.ema_decay = 0.9999
  config.train.steps = 60_000
  config.sample.num_steps = 256
  config.sample.gamma = 0.1
  return default_config.shrink(config) if variant == 'smoke' else config
