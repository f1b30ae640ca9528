"""Moving-MNIST: two digits that bounce at random.

  python -m video_diffusion.main --config=moving_mnist:VARIANT \
    --config.data.path=DIR

DIR has MNIST's train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz.
Without data.path the digits are those of TFDS, which downloads them. The clips
are made once and kept as records. Epochs run over the clips.

`accelerator`, the default, trains 29 M parameters on 16 frames of 64x64 and is
sized for one GPU. It departs from the paper for digits that stay what they are:
it sees patches of 2x2 pixels, attends to all frames at once at 16x16 and 8x8,
is trained by Muon without images beside the videos, and on more noise than the
paper's schedule has. One NVIDIA H100 takes 74 ms a step. After 7,700 of 15,000
steps the ink of 1,024 samples changed by 0.024 of itself from frame to frame
(real clips: 0.017), digits moved by 2.73 pixels (2.89), 0.49 of the clips kept
both digits through all 16 frames, and the FVD was 31 (real clips: 8).
docs/results.md compares it with other models and has the protocol.

`laptop` trains 0.27 M parameters on 8 + 4 frames of 16x16 and is sized for two
CPU cores. `original` trains the model of `accelerator` on the 10,000 clips of
the first Moving-MNIST, in which digits bounce like light; TFDS downloads them,
and data.path is not needed.

Where frames are at least 32x32, --mode=evaluate says whether digits stay what
they are, with --config.eval.evaluators="('digits',)"; DIR then needs MNIST's
train-labels-idx1-ubyte.gz as well.
"""
from video_diffusion.config import defaults
from video_diffusion.config import variants


def get_config(variant: str = 'accelerator'):
  """Returns the config of a variant, which is the name of a function below."""
  return variants.select(variant, {
      'accelerator': accelerator, 'laptop': laptop, 'original': original,
  })


def accelerator():
  """Digits that bounce at random, for one GPU."""
  return _for_one_gpu(_stochastic(_moving_mnist()))


def original():
  """The clips of the first Moving-MNIST, for one GPU."""
  config = _for_one_gpu(_moving_mnist())
  config.data.name = 'moving_mnist'
  config.data.train_split = 'test[256:]'
  config.data.test_split = 'test[:256]'
  config.data.short_clips = 'refuse'
  return config


def laptop():
  """Digits that bounce at random, for two CPU cores."""
  config = _stochastic(_moving_mnist())
  data, model, optim = config.data, config.model, config.optim
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
  return config


def _moving_mnist():
  """What all variants have in common."""
  config = defaults.get_config()
  # Folder of the records; '' is TFDS_DATA_DIR, else ~/tensorflow_datasets.
  config.data.dir = ''
  # A clip is a video of its own, and all are of one length: with each taken
  # once in an epoch, at a random start, every start is equally likely.
  config.data.clip_frames = 20
  config.diffusion.prediction = 'v'
  config.model.injection = 'scale_shift'
  config.optim.ema_rule = 'ramp'
  config.optim.schedule = 'cosine'
  return config


def _stochastic(config):
  """Adds clips that are made of MNIST's digits."""
  data = config.data
  data.name = 'moving_mnist_stochastic'
  data.path = ''
  data.train_clips, data.test_clips = 20_000, 2048
  return config


def _for_one_gpu(config):
  """Adds the sizes for one GPU, and what keeps digits what they are."""
  data, model, optim = config.data, config.model, config.optim
  data.frames, data.images, data.height, data.width = 16, 0, 64, 64
  config.batch_size = 16
  # At the level of the pixels nothing but convolutions fits, which see one
  # frame: each frame then draws its own strokes.
  model.patch_size = 2
  model.base_channels = 64
  model.channel_mults = (2, 3, 4)
  model.attention_resolutions = (8, 16, 32)
  # A digit is elsewhere in the next frame, where attention over the frames of
  # one position does not look.
  model.spacetime_resolutions = (8, 16)
  model.position_stddev = 1.0
  model.group_size = 4
  model.emb_dim = 512
  # What a digit is, is decided under much noise.
  config.diffusion.logsnr_shift = -1.0
  config.train.steps = 20_000
  optim.name = 'muon'
  optim.lr = 1e-3
  optim.warmup_steps = 400
  optim.decay_steps = 20_000
  optim.ema_decay = 0.999
  config.sample.sampler = 'dpmpp_2m'
  config.sample.num_steps = 64
  return config
