"""BAIR robot pushing, 16 frames of 64x64, for prediction from one frame.

  python -m video_diffusion.main --config=bair

TFDS downloads the episodes (32 GB) into data.dir or finds its copy there. They
are packed once. Epochs run over episodes. The hyper-parameters are those of the
paper (appendix A), which trained its model of 0.146 B parameters on 128 TPU v4
chips and reports FVD 66.92 for one known frame. `:smoke` shrinks model and run
for a first try on two CPU cores, with a few episodes.
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
  data.name = 'bair_robot_pushing_small'
  # Of TFDS's copy and of the records: '' is TFDS_DATA_DIR, else
  # ~/tensorflow_datasets.
  data.dir = ''
  # The view that others report on; the paper does not say. Or 'image_aux1'.
  data.camera = 'image_main'
  data.train_split = 'train'
  data.test_split = 'test'  # the 256 evaluation episodes
  # An episode has 30 frames of 64x64, neither cropped nor resized here. All are
  # of one length: with each taken once in an epoch, at a random start, every
  # start of every episode is equally likely.
  data.clip_frames = 30
  data.short_clips = 'refuse'
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  data.flip = True  # as in the paper
  config.batch_size = 128
  model.base_channels = 128
  model.channel_mults = (1, 2, 3, 4)
  model.num_blocks = 3
  model.attention_resolutions = (8, 16, 32)
  model.head_dim = 64
  model.emb_dim = 1024
  model.emb_layers = 2
  model.dropout = 0.1
  config.diffusion.prediction = 'v'
  optim.lr = 2e-4
  optim.beta1, optim.beta2 = 0.9, 0.999
  optim.weight_decay = 0.01
  optim.ema_decay = 0.999
  config.train.steps = 660_000
  config.sample.num_steps = 256
  config.sample.gamma = 0.0
  config.sample.corrector_delta = 0.1
  config.sample.reconstruction_weight = 50.0
  return config


def smoke():
  """A few steps of a tiny model on a few episodes."""
  config = variants.shrink(paper())
  config.data.train_split, config.data.test_split = 'train[:100]', 'test[:20]'
  return config
