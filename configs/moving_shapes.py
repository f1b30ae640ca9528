"""Coloured shapes in motion, drawn on the fly; nothing to download.

  python -m video_diffusion.main
  python -m video_diffusion.main --config=configs/moving_shapes.py:accelerator

`laptop` (the default) trains in minutes on two cores; `accelerator` (16 + 8
frames of 64x64, 27 M parameters) in minutes on one data-centre GPU. `text` and
`text_accelerator` are of these sizes and take captions in place of labels:

  python -m video_diffusion.main --config=configs/moving_shapes.py:text
  python -m video_diffusion.main --config=configs/moving_shapes.py:text \
    --mode=sample --prompt='a red circle moves right'

Their tokenizer is made of the captions; three pairs of a colour and a shape
never appear in training, to see whether words are combined anew
(`python -m benchmarks.alignment`). `text_small`, of 32x32, is fast enough to
compare K, as in

  python -m video_diffusion.main --config=configs/moving_shapes.py:text_small \
    --config.data.images=0 --workdir=runs/k_0

The paper's cascade in miniature is `cascade_base`, 16 frames of 32x32, four
apart, and `cascade_refine`, 9 of 64x64, one apart, to 64 frames:

  python -m video_diffusion.main \
    --config=configs/moving_shapes.py:cascade_base
  python -m video_diffusion.main \
    --config=configs/moving_shapes.py:cascade_refine
  python -m video_diffusion.main --mode=sample \
    --config=configs/moving_shapes.py:cascade_base \
    --config.sample.refine_workdir=runs/moving_shapes-cascade_refine
"""
from video_diffusion.config import defaults as defaults_lib

VARIANTS = (
    'laptop', 'accelerator', 'text', 'text_accelerator', 'text_small',
    'cascade_base', 'cascade_refine',
)


def get_config(variant: str = 'laptop'):
  """The config of a variant, see above."""
  defaults_lib.require_variant(variant, VARIANTS)
  config = defaults_lib.get_config()
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
  if variant in ('laptop', 'text'):
    data.frames, data.images, data.height, data.width = 8, 4, 16, 16
    data.radius, data.speed = 0.25, 0.04
    # Many small steps: on two cores they teach more a minute than few large.
    config.batch_size = 4
    model.base_channels = 16
    model.channel_mults = (1, 2)
    model.num_blocks = 1
    model.attention_resolutions = (8,)
    model.head_dim = 32
    model.emb_dim = 128
    model.cond_dim = 64
    model.dtype = 'float32'
    config.train.steps = 2000
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
  else:
    data.frames, data.images, data.height, data.width = 16, 8, 64, 64
    data.radius, data.speed = 0.15, 0.025
    # Drawing holds Python's lock: threads would feed one core's worth.
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
  if variant in ('text_small', 'cascade_base', 'cascade_refine'):
    config.train.steps = optim.decay_steps = 5000
    optim.lr = 1e-3
    optim.warmup_steps = 250
    # Larger, so that shapes are told apart at 32x32.
    data.radius = 0.2
  if variant == 'text_accelerator':
    data.speed = 0.04
  if variant == 'text_small':
    data.speed = 0.035
  if variant in ('text_small', 'cascade_base'):
    data.height = data.width = 32
    config.eval.num_clips = 256
  if variant == 'text_small':
    config.sample.sampler = 'dpmpp_2m'
    config.sample.num_steps = 32
  if variant in ('cascade_base', 'cascade_refine'):
    data.speed = 0.0085
    model.base_channels = model.head_dim = 32
  if variant == 'cascade_base':
    data.frameskips = (4,)
    config.sample.num_steps = 256
  if variant not in ('laptop', 'accelerator', 'text'):
    # Colour and shape show in any frame, a direction in all of them alone: it
    # is decided where the noise hides single frames, which times drawn by the
    # paper's schedule seldom visit. The longer a path, the more of where a
    # shape may be is said by its direction: these cross most of the frame.
    config.diffusion.logsnr_shift = -5.0
    config.diffusion.pure_noise = 0.2
    # Where frames hold noise alone, a bias leaves them alike: softmax over like
    # values is that value. These vectors tell early from late frames there.
    model.position = 'shaw'
    model.position_stddev = 1.0
  if variant not in ('laptop', 'accelerator'):
    data.heldout_pairs = ('red triangle', 'green circle', 'blue square')
    config.text.encoder = 'table'
    config.text.length = 16
    config.text.dim = 64
    config.text.max_pieces = 64
    config.sample.guidance_weight = 1.0
  if variant in ('cascade_base', 'cascade_refine'):
    # What guidance leaves unclean in frames of the first model, the second one
    # keeps.
    config.sample.guidance_weight = 0.0
  if variant == 'cascade_refine':
    data.frames, data.images = 9, 7
    config.batch_size = 16
    # What goes where is said by the first model's frames; this one is to draw
    # edges, which less noise hides. At -2 frames between those of the first
    # model are out of place more often, at -4 their edges are rougher.
    config.diffusion.logsnr_shift = -3.0
    config.diffusion.pure_noise = 0.0
    config.sample.num_steps = 128
    config.sample.overlap = 1
  return config
