"""Kinetics-600, 16 frames of 64x64, for prediction from five frames.

  python -m video_diffusion.main --config=kinetics --config.data.path=DIR

DIR holds the published CSVs (train.csv, val.csv, test.csv) and the downloaded
clips, in any of the usual layouts. Missing and broken clips are skipped. Epochs
run over videos. The hyper-parameters are those of the paper (appendix A), which
trained its model of 1.21 B parameters on 256 TPU v4 chips and reports FVD 16.2
for five known frames. `:smoke` shrinks model and run for a first try on two CPU
cores.
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
  data.name = 'kinetics600'
  data.path = ''
  data.dir = ''
  # An epoch takes each video once, at a random start, and so does the paper's
  # evaluation. 'windows' makes every start of every video equally likely; the
  # videos are of ten seconds, so there is little between the two.
  data.epoch = 'videos'
  data.clip_frames = 16  # which are stored together
  data.fps = 0.0  # frames per second, by time of presentation; 0 takes all
  data.short_clips = 'drop'
  # Decoded frames are kept; they take three times the room of the records.
  data.keep_cache = True
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  config.batch_size = 256
  model.base_channels = 256
  model.channel_mults = (1, 2, 4, 8)
  model.num_blocks = 2
  model.attention_resolutions = (8, 16, 32)
  model.head_dim = 64
  model.emb_dim = 1024
  model.emb_layers = 2
  model.dropout = 0.1
  config.diffusion.prediction = 'v'
  optim.lr = 2e-4
  optim.beta1, optim.beta2 = 0.9, 0.99
  optim.weight_decay = 0.0
  optim.ema_decay = 0.9999
  config.train.steps = 220_000
  config.sample.num_steps = 128
  config.sample.gamma = 0.0
  config.sample.corrector_delta = 0.1
  config.sample.reconstruction_weight = 9.0
  return config


def smoke():
  """A few steps of a tiny model."""
  return variants.shrink(paper())
