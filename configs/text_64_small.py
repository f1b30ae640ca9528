"""The paper's small text-to-video model, 16 frames of 64x64.

  python -m video_diffusion.main --mode=prepare --config=text_64_small \
    --config.data.path=DIR --config.text.path=T5
  python -m video_diffusion.main --config=text_64_small \
    --config.data.path=DIR --config.text.path=T5
  python -m video_diffusion.main --mode=sample --config=text_64_small \
    --config.text.path=T5 --prompt='...' --config.sample.guidance_weight=1

The model has 0.317 B parameters. The paper trained it on 64 TPU v4 chips, to
compare numbers of image frames (table 4): --config.data.images=0, =4 and =8,
the default here, gave FVD 202, 68 and 58.

DIR holds videos and their captions (captions.jsonl or captions.csv, see the
README). T5 is the checkpoint of a T5 1.1 large (docs/text.md). The paper took
BERT-large and 10 million captioned videos that are not public; everything else
is as in its appendix A. Epochs run over windows. `:smoke` shrinks model and
run, not the T5.
"""
from video_diffusion.config import defaults
from video_diffusion.config import variants


def get_config(variant: str = 'paper'):
  """Returns the config of a variant, which is the name of a function below."""
  return variants.select(variant, {'paper': paper, 'smoke': smoke})


def paper():
  """The paper's model and training, but for the text encoder."""
  config = defaults.get_config()
  data, model, optim = config.data, config.model, config.optim
  data.name = 'video_folder'
  data.path = ''
  data.dir = ''
  # Every start of every video is equally likely: long videos count for more.
  data.epoch = 'windows'
  data.clip_frames = 16  # which are stored together
  data.fps = 0.0  # frames per second, by time of presentation; 0 takes all
  data.short_clips = 'drop'
  data.classes = False
  # Decoded frames are kept for other settings and for more files.
  data.keep_cache = True
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  config.text.encoder = 't5'
  config.text.path = ''
  config.text.length = 64
  config.text.dim = 1024  # T5 1.1 large's, and BERT-large's
  config.batch_size = 128
  model.base_channels = 128
  model.channel_mults = (1, 2, 4, 8)
  model.num_blocks = 2
  model.attention_resolutions = (8, 16, 32)
  model.head_dim = 64
  model.emb_dim = 1024
  model.emb_layers = 4
  model.cond_dim = 1024
  model.dropout = 0.0
  config.diffusion.prediction = 'eps'
  optim.lr = 3e-4
  optim.beta1, optim.beta2 = 0.9, 0.99
  optim.weight_decay = 0.0
  optim.ema_decay = 0.9999
  config.train.steps = 200_000
  config.sample.num_steps = 256
  config.sample.gamma = 0.3
  return config


def smoke():
  """A few steps of a tiny model."""
  return variants.shrink(paper())
