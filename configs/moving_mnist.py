"""Moving-MNIST, two digits that bounce at random, 64x64.

  python -m video_diffusion.main --config=configs/moving_mnist.py \
    --config.data.path=DIR

DIR has MNIST's train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz;
without it the digits are those of TFDS, which downloads them. The clips are
drawn once into records. The default is sized for one GPU, `:laptop` for two
cores; `:original` has the default's model and the 10,000 clips of the first
Moving-MNIST as TFDS has them, whose digits bounce like light.
"""
from video_diffusion.config import defaults as defaults_lib


def get_config(variant: str = 'accelerator'):
  """The config of a variant, 'accelerator', 'laptop' or 'original'."""
  defaults_lib.require_variant(
      variant, ('accelerator', 'laptop', 'original')
  )
  config = defaults_lib.get_config()
  data, model, optim = config.data, config.model, config.optim
  # Of the records: '' is TFDS_DATA_DIR, else ~/tensorflow_datasets.
  data.dir = ''
  data.clip_frames = 20
  if variant == 'original':
    data.name = 'moving_mnist'
    data.train_split, data.test_split = 'test[256:]', 'test[:256]'
    data.short_clips = 'refuse'
  else:
    data.name = 'moving_mnist_stochastic'
    data.path = ''
    data.train_clips = 10_000
    data.test_clips = 1000
  config.diffusion.prediction = 'v'
  model.injection = 'scale_shift'
  optim.ema_rule = 'ramp'
  optim.schedule = 'cosine'
  if variant == 'laptop':
    data.frames, data.images, data.height, data.width = 8, 4, 16, 16
    data.train_clips, data.test_clips = 4000, 200
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
    config.sample.num_steps = 48
  else:
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
