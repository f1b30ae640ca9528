"""Coloured shapes in motion, made on the fly: there is nothing to download.

  python -m video_diffusion.main --config=moving_shapes:VARIANT

Epochs run over the clips, each of which is a video of its own.

`laptop` is the default. It trains a model of 0.28 M parameters on 8 + 4 frames
of 16x16. Two CPU cores took 7 min 36 s, samples included; 64 samples had a
palette share of 0.949 (real clips: 1.000).

`accelerator` trains 27 M parameters on 16 + 8 frames of 64x64. One NVIDIA H200
took 7 min 40 s; the held-out loss was 0.0140, the palette share 0.987.

`text` and `text_accelerator` have these sizes and take captions in place of
labels:

  python -m video_diffusion.main --config=moving_shapes:text
  python -m video_diffusion.main --config=moving_shapes:text \
    --mode=sample --prompt='a red circle moves right'

The captions of every variant below the first two leave out three pairs of a
colour and a shape, to see whether a model combines words anew: the evaluator
'alignment' says it in --mode=evaluate, and `python -m benchmarks.alignment` for
several guidance weights.

`text_small`, 16 + 8 frames of 32x32 and 26 M parameters, is fast enough to
compare numbers of image frames K. One H200 took 11.5 minutes; the held-out loss
was 0.0524. With K = 0:

  python -m video_diffusion.main --config=moving_shapes:text_small \
    --config.data.images=0 --workdir=runs/k_0

`demo` is the recipe of the small model that comes with the package: 1.9 M
parameters on 16 + 4 frames of 32x32. One NVIDIA H100 took about 15 minutes,
and waited for clips most of the time. The held-out loss was 0.0483; 0.993 of
the samples showed all that their captions say, with pairs that were left out
0.790. FVD 98.0 (real clips against others: 4.2).

`cascade_base` and `cascade_refine` are the paper's cascade in miniature. The
first makes 16 frames of 32x32, four apart; the second makes 64 frames of 64x64
from them, in blocks of nine. Half an NVIDIA H100 took 16 minutes for each; the
held-out losses were 0.0628 and 0.0334. Of 48 videos of 64 frames a share of
1.000 had the colours of its caption, 0.979 the shapes and 0.896 the directions:

  python -m video_diffusion.main --config=moving_shapes:cascade_base
  python -m video_diffusion.main --config=moving_shapes:cascade_refine
  python -m video_diffusion.main --mode=sample \
    --config=moving_shapes:cascade_base \
    --config.sample.refine_workdir=runs/moving_shapes-cascade_refine

For every variant --mode=evaluate says whether shapes stay what they are, with
--config.eval.evaluators="('coherence',)". docs/results.md has the protocol of
every figure.
"""
from video_diffusion.config import defaults
from video_diffusion.config import variants


def get_config(variant: str = 'laptop'):
  """Returns the config of a variant, which is the name of a function below."""
  return variants.select(variant, {
      'laptop': laptop,
      'accelerator': accelerator,
      'text': text,
      'text_accelerator': text_accelerator,
      'text_small': text_small,
      'demo': demo,
      'cascade_base': cascade_base,
      'cascade_refine': cascade_refine,
  })


def laptop():
  """The sizes for two CPU cores."""
  config = _moving_shapes()
  data, model, optim = config.data, config.model, config.optim
  data.frames, data.images, data.height, data.width = 8, 4, 16, 16
  data.radius, data.speed = 0.25, 0.04
  # Many small steps: on two cores they teach more a minute than few large ones.
  config.batch_size = 4
  model.base_channels = 16
  model.channel_mults = (1, 2)
  model.num_blocks = 1
  model.attention_resolutions = (8,)
  model.head_dim = 32
  model.emb_dim = 128
  model.cond_dim = 64
  model.dtype = 'float32'
  # At the width of the first level a group would be a single channel.
  model.group_size = 4
  config.train.steps = 2000
  optim.name = 'muon'
  optim.lr = 3e-3
  optim.warmup_steps = 100
  optim.decay_steps = 2000
  optim.ema_decay = 0.99
  config.log.every = 50
  config.log.eval_every = 500
  config.log.sample_every = 1000
  config.checkpoint.every = 250
  config.eval.num_clips = 64
  config.eval.batch_size = 32
  config.sample.num_videos = 64
  config.sample.batch_size = 64
  config.sample.num_steps = 48
  config.sample.gamma = 0.0
  return config


def accelerator():
  """The sizes for one data-centre GPU."""
  config = _moving_shapes()
  data, model, optim = config.data, config.model, config.optim
  data.frames, data.images, data.height, data.width = 16, 8, 64, 64
  data.radius, data.speed = 0.15, 0.025
  # Painting clips holds Python's lock: all threads together would use one core.
  data.loader = 'processes'
  config.batch_size = 32
  model.base_channels = 64
  model.channel_mults = (1, 2, 3, 4)
  model.attention_resolutions = (8, 16)
  model.emb_dim = 256
  model.cond_dim = 64
  config.train.steps = 1500
  optim.lr = 5e-4
  optim.warmup_steps = 75
  optim.decay_steps = 1500
  optim.ema_decay = 0.995
  config.log.every = 50
  config.log.eval_every = 0
  config.log.sample_every = 0
  config.checkpoint.every = 500
  config.eval.num_clips = 1024
  config.eval.batch_size = 64
  config.sample.num_videos = 64
  config.sample.batch_size = 64
  config.sample.num_steps = 128
  return config


def text():
  """`laptop`, with captions."""
  return _with_captions(laptop())


def text_accelerator():
  """`accelerator`, with captions and what makes their directions learnable."""
  config = _with_captions(accelerator())
  config.data.speed = 0.04
  # Colour and shape show in every single frame. A direction shows in all frames
  # together alone: it is decided where the noise hides single frames, and the
  # paper's schedule seldom visits these times. The longer a path is, the more
  # its direction says of where a shape may be: these paths cross most of the
  # frame.
  config.diffusion.logsnr_shift = -5.0
  config.diffusion.pure_noise = 0.2
  # Where frames hold noise alone, a bias leaves them alike: softmax over like
  # values is that value. These vectors tell early from late frames there.
  config.model.position = 'shaw'
  config.model.position_stddev = 1.0
  return config


def text_small():
  """`text_accelerator` at 32x32, trained for longer."""
  config = _trained_longer(text_accelerator())
  config.data.height = config.data.width = 32
  config.data.speed = 0.035
  config.eval.num_clips = 256
  config.sample.sampler = 'dpmpp_2m'
  config.sample.num_steps = 32
  return config


def demo():
  """`text_small` as a network of 1.9 M parameters, for two CPU cores."""
  config = text_small()
  data, model, optim = config.data, config.model, config.optim
  data.images = 4
  config.batch_size = 64
  model.base_channels = 28
  model.channel_mults = (1, 2, 3)
  model.num_blocks = 1
  model.head_dim = 28
  model.emb_dim = 128
  model.cond_dim = 64
  # At the width of the first level a group would be a single channel.
  model.group_size = 4
  config.train.steps = optim.decay_steps = 8_000
  optim.lr = 1.5e-3
  optim.warmup_steps = 200
  optim.ema_decay = 0.999
  config.sample.num_videos = config.sample.batch_size = 4
  return config


def cascade_base():
  """The first model of the cascade: 16 frames of 32x32, four apart."""
  config = _cascade()
  config.data.height = config.data.width = 32
  config.data.frameskips = (4,)
  config.eval.num_clips = 256
  config.sample.num_steps = 256
  return config


def cascade_refine():
  """The second model of the cascade: 9 frames of 64x64, one apart."""
  config = _cascade()
  config.data.frames, config.data.images = 9, 7
  config.batch_size = 16
  # The frames of the first model say what goes where. The second model makes
  # the edges, which less noise hides. At -2 the frames between those of the
  # first model are out of place more often; at -4 their edges are rougher.
  config.diffusion.logsnr_shift = -3.0
  config.diffusion.pure_noise = 0.0
  config.sample.num_steps = 128
  config.sample.overlap = 1
  return config


def _moving_shapes():
  """What all variants have in common."""
  config = defaults.get_config()
  data, optim = config.data, config.optim
  data.name = 'moving_shapes'
  # An epoch takes each clip once. A clip is made as long as the longest window.
  data.train_clips = 1_000_000
  data.test_clips = 10_000
  data.bounce = False
  data.heldout_pairs = ()
  config.diffusion.prediction = 'v'
  config.model.injection = 'scale_shift'
  optim.ema_rule = 'ramp'
  optim.schedule = 'cosine'
  return config


def _with_captions(config):
  """Adds captions, some of whose pairs of words are never trained on."""
  config.data.heldout_pairs = ('red triangle', 'green circle', 'blue square')
  config.text.encoder = 'table'
  config.text.length = 16
  config.text.dim = 64
  config.text.max_pieces = 64
  config.sample.guidance_weight = 1.0
  return config


def _trained_longer(config):
  """Trains for 5,000 steps on shapes that are large enough for 32x32."""
  config.train.steps = config.optim.decay_steps = 5000
  config.optim.lr = 1e-3
  config.optim.warmup_steps = 250
  config.data.radius = 0.2
  return config


def _cascade():
  """What both models of the cascade have in common."""
  config = _trained_longer(text_accelerator())
  config.data.speed = 0.0085
  config.model.base_channels = config.model.head_dim = 32
  # The second model keeps what guidance leaves unclean in frames of the first.
  config.sample.guidance_weight = 0.0
  return config
