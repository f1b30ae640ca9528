"""UCF101, unconditional, 16 frames of 64x64: the paper's first experiment.

  python -m video_diffusion.main --config=ucf101

TFDS downloads the 13,320 videos (7 GB; it needs `ffmpeg`) into data.dir or
finds its copy there. They are packed once, at the training size. Epochs run
over videos. The hyper-parameters are those of the paper (appendix A), which
trained its model of 1.21 B parameters on 128 TPU v4 chips and reports FID 295
and IS 57 under C3D features. `:smoke` shrinks model and run for a first try on
two CPU cores, with a few videos.
"""
from video_diffusion.config import defaults
from video_diffusion.config import variants


def get_config(variant: str = 'paper'):
  """Returns the config of a variant, which is the name of a function below."""
  return variants.select(variant, {'paper': paper, 'smoke': smoke})


def paper():
  """The paper's model and training."""
  config = defaults.get_config()
  data, model, optim = config.data, config.model, config.optim
  data.name = 'ucf101'
  # Of TFDS's copy and of the records: '' is TFDS_DATA_DIR, else
  # ~/tensorflow_datasets.
  data.dir = ''
  # TFDS squeezes the 320x240 frames into 256x256 in this configuration, so that
  # nothing is left to crop; 'ucf101_1' keeps 320x240, of which the centre
  # square is taken. Either is then resized by the area mean. The paper names
  # neither.
  data.tfds_config = 'ucf101_1_256'
  # The paper trains on all videos, so what is held out was seen in training;
  # 'train' here holds out 3,783 videos indeed.
  data.train_split = 'train+test'
  data.test_split = 'test'
  # An epoch takes each video once, at a random start: the protocols of this set
  # take as many clips of every video. 'windows' makes every start of every
  # video equally likely, so that long videos count for more.
  data.epoch = 'videos'
  data.clip_frames = 16  # which are stored together
  # A video with fewer than data.frames: 'drop', 'loop' or 'refuse'.
  data.short_clips = 'loop'
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
  return config


def smoke():
  """A few steps of a tiny model on a few videos."""
  config = variants.shrink(paper())
  config.data.train_split, config.data.test_split = 'train[:100]', 'test[:20]'
  return config
