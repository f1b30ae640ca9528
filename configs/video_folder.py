"""Your own videos: a folder of mp4, mov, mkv, webm, avi, gif and more.

  python -m video_diffusion.main --config=video_folder:VARIANT \
    --config.data.path=DIR

Files are decoded once, to the training size, into records under data.dir.
captions.jsonl or captions.csv in DIR may describe them. DIR may also be a
folder of records. Epochs run over windows.

`accelerator`, the default, trains 29 M parameters on 16 + 8 frames of 64x64 and
is sized for one GPU. `laptop` trains 0.27 M parameters on 8 + 4 frames of 16x16
and is sized for two CPU cores.

`demo` begins from the small model that comes with the package, in place of
random weights: 1.9 M parameters on 16 + 4 frames of 32x32, without captions.
Its size fits one GPU; two CPU cores take --config.batch_size=4 and
--config.model.dtype=float32.
"""
from video_diffusion.config import defaults
from video_diffusion.config import variants


def get_config(variant: str = 'accelerator'):
  """Returns the config of a variant, which is the name of a function below."""
  return variants.select(
      variant, {'accelerator': accelerator, 'laptop': laptop, 'demo': demo}
  )


def accelerator():
  """The sizes for one GPU."""
  config = _video_folder()
  data, model, optim = config.data, config.model, config.optim
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  config.batch_size = 16
  model.base_channels = 64
  model.channel_mults = (1, 2, 3, 4)
  model.attention_resolutions = (8, 16, 32)
  model.emb_dim = 512
  config.train.steps = 50_000
  optim.warmup_steps = 2500
  optim.decay_steps = 50_000
  return config


def laptop():
  """The sizes for two CPU cores."""
  config = _video_folder()
  data, model, optim = config.data, config.model, config.optim
  data.frames, data.images, data.height, data.width = 8, 4, 16, 16
  data.frameskips = (2,)
  config.batch_size = 4
  model.base_channels = 16
  model.channel_mults = (1, 2)
  model.num_blocks = 1
  model.attention_resolutions = (8,)
  model.head_dim = 32
  model.emb_dim = 128
  model.dtype = 'float32'
  config.train.steps = 5000
  optim.lr = 2e-3
  optim.warmup_steps = 250
  optim.decay_steps = 5000
  optim.ema_decay = 0.995
  config.log.every = 100
  config.log.eval_every = 1000
  config.log.sample_every = 2500
  config.checkpoint.every = 500
  config.eval.num_clips = 64
  config.eval.batch_size = 8
  config.sample.num_videos = 32
  config.sample.batch_size = 32
  # At few steps this sampler keeps the spread of the clips best: 'ancestral'
  # with gamma 0 has half of it.
  config.sample.sampler = 'dpmpp_2m'
  config.sample.num_steps = 64
  return config


def demo():
  """The network of the model in the package, which knows moving shapes."""
  config = _video_folder()
  data, model, optim = config.data, config.model, config.optim
  # What follows up to the noise is as in `moving_shapes:demo`.
  data.frames, data.images, data.height, data.width = 16, 4, 32, 32
  model.base_channels = 28
  model.channel_mults = (1, 2, 3)
  model.num_blocks = 1
  model.attention_resolutions = (8, 16)
  model.head_dim = 28
  model.emb_dim = 128
  model.group_size = 4
  model.position = 'shaw'
  model.position_stddev = 1.0
  config.diffusion.logsnr_shift = -5.0
  config.train.init_from = 'runs/demo'
  config.batch_size = 32
  config.train.steps = 2000
  optim.lr = 5e-4
  optim.warmup_steps = 50
  optim.decay_steps = 2000
  optim.ema_decay = 0.995
  config.log.every = 50
  config.log.eval_every = 500
  config.log.sample_every = 1000
  config.checkpoint.every = 500
  # Step 0, the model in the package, is kept to compare with.
  config.checkpoint.keep_every = 2000
  config.eval.num_clips = 64
  config.eval.batch_size = 16
  config.sample.num_videos = config.sample.batch_size = 4
  config.sample.sampler = 'dpmpp_2m'
  config.sample.num_steps = 32
  return config


def _video_folder():
  """What both variants have in common."""
  config = defaults.get_config()
  data, optim = config.data, config.optim
  data.name = 'video_folder'
  data.path = ''
  # Folder of the records; '' is TFDS_DATA_DIR, else ~/tensorflow_datasets.
  data.dir = ''
  # What an epoch runs over. 'windows': every start of every video is equally
  # likely, so that long videos count for more. 'videos': each video is taken
  # once, at a random start.
  data.epoch = 'windows'
  # A video is stored in clips of so many frames. Reading a frame reads its
  # clip: more clips to a window are slower, and so are longer ones.
  data.clip_frames = 16
  data.fps = 0.0  # frames per second, by time of presentation; 0 takes all
  # Videos with too few frames: 'drop', 'loop' (start over) or 'refuse'.
  data.short_clips = 'drop'
  data.classes = False  # the first sub-folder of a file is its class
  data.fraction = 1.0  # of the files, by a hash of their names
  # Decoded frames are kept for other settings and for more files.
  data.keep_cache = True
  config.diffusion.prediction = 'v'
  config.model.injection = 'scale_shift'
  optim.ema_rule = 'ramp'
  optim.schedule = 'cosine'
  return config
