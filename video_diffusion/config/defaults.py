"""Every field of a config, with its meaning and default.

A file in configs/ starts from `get_config()`, sets what differs, and adds the
fields of its data set to `config.data` (the arguments of that data set in
`data/datasets.py`). `config/fields.py` has the type and the bounds of each
field.
"""
from collections.abc import Callable, Mapping

import ml_collections

from video_diffusion.errors import UserError


def get_config() -> ml_collections.ConfigDict:
  """The default config; model fields are those of the paper's large models."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  # Examples per step over all devices and hosts.
  config.batch_size = 128

  config.mesh = mesh = ml_collections.ConfigDict()
  # Devices that share one copy of parameters, moments and EMA; 0 takes up to
  # 16 of a slice, 1 is plain data parallelism.
  mesh.fsdp = 0
  mesh.model = 1  # devices that share each example (tensor parallelism)
  # Arrays of fewer scalars are whole on every device.
  mesh.min_sharded = 2**16
  # So many processes must find each other; 0 takes what there is.
  mesh.processes = 0

  config.data = data = ml_collections.ConfigDict()
  data.name = 'moving_shapes'  # a data set of data/datasets.py
  data.frames = 16  # T, video frames per example
  data.images = 8  # K, frames of other videos appended to it
  data.height = 64
  data.width = 64
  # 'tf' (tf.data), 'threads' or 'processes' (no TensorFlow), 'auto'; the same
  # batches from each.
  data.loader = 'auto'
  # Mirror left to right half of the time. Refused where captions or classes,
  # if they are the condition, name a side ('left', 'clockwise').
  data.flip = False
  # Distances of the frames of a clip, one drawn for each; (1, 2) halves the
  # frame rate of half of the clips.
  data.frameskips = (1,)
  # The most that one video or image file may hold; one that claims more is
  # skipped, with the reason in report.json. Also for sample.video.
  data.max_pixels = 2**26  # of a frame; 8K video has 2**25
  data.max_frames = 500_000
  data.max_seconds = 14_400.0
  # Of all frames, by the size of the file, from 4e9 pixels on: a small file may
  # claim hours of decoding. Ordinary video has some hundreds.
  data.max_pixels_per_byte = 100_000
  # Further data sets that take turns with this one: NAME -> its own fields
  # with their values, as data has them ('name', 'path', ...), and 'weight'.
  data.weight = 1.0  # of this one; a share of the examples, by all weights
  data.mixture = ml_collections.ConfigDict()
  # The same for the K frames alone; empty takes them from the videos.
  data.image_mixture = ml_collections.ConfigDict()

  # Captions as the condition; model.cond_dim is then the width to which their
  # tokens are pooled.
  config.text = text = ml_collections.ConfigDict()
  # '' (none); 'table', which the model learns; 't5', frozen, whose vectors
  # --mode=prepare computes once for each caption.
  text.encoder = ''
  # Of 't5': its checkpoint (docs/text.md says which), local or gs://.
  text.path = ''
  # A sentencepiece model; '' takes that beside text.path, or, for 'table',
  # makes one of the words of the captions.
  text.tokenizer = ''
  text.dtype = 'float32'  # in which T5 computes them, or 'bfloat16'
  text.length = 64  # tokens of a caption, with the end mark
  text.dim = 1024  # width of a token's vector
  text.max_pieces = 1024  # of the tokenizer of 'table', which has as many rows
  # Where the vectors are kept; '' takes text_embeddings in $TFDS_DATA_DIR, else
  # in ~/tensorflow_datasets.
  text.dir = ''

  config.model = model = ml_collections.ConfigDict()
  model.base_channels = 256
  model.channel_mults = (1, 2, 4, 8)
  model.num_blocks = 2  # residual blocks per level
  model.attention_resolutions = (8, 16, 32)  # feature-map sides
  model.head_dim = 64
  model.emb_dim = 1024  # width of the embedding vector
  model.emb_layers = 2  # layers of its MLP
  model.cond_dim = 0  # width of the condition vector; 0 is unconditional
  # What the network is conditioned on: a kind of models/conditioning.py. With
  # text.encoder it is the captions, whatever this field says.
  model.conditioning = 'labels'
  model.dropout = 0.0
  # 'add' (the paper) or 'scale_shift' after the second norm of a block.
  model.injection = 'add'
  # What attention over frames learns of their distances: 'bias' of its logits,
  # or 'shaw_exact', vectors added to keys and values for each distance up to 16
  # (Shaw et al. 2018, whom the paper cites), or 'shaw', such vectors for T5's
  # buckets of distances, where 8 to 11 frames apart are one.
  model.position = 'bias'
  # Of their tables at the start. At 0 the network takes the past like the
  # future, which captions of motion must first undo.
  model.position_stddev = 0.0
  # The dtype of convolutions and matrix products; parameters are always
  # float32. 'float32' is that on every device: neither TF32 on NVIDIA GPUs nor
  # bfloat16 passes on TPUs, and so several times slower there than 'bfloat16'.
  model.dtype = 'bfloat16'
  # Feature-map sides whose blocks are recomputed in the backward pass, as
  # (64, 32): the larger the map, the more memory that saves.
  model.remat = ()

  config.diffusion = diffusion = ml_collections.ConfigDict()
  diffusion.prediction = 'eps'  # or 'v'
  diffusion.logsnr_min = -20.0
  diffusion.logsnr_max = 20.0
  # About the log-SNR of the middle of the times. The paper's is 0; below, more
  # of them are noisy ones, at which colours, places and ways are decided.
  diffusion.logsnr_shift = 0.0
  # One noise level for a video and its images, instead of one for each.
  diffusion.images_share_noise = False
  # Share of the videos trained at t = 1, where all is noise but the condition.
  diffusion.pure_noise = 0.0
  diffusion.cond_drop = 0.1  # probability of dropping the condition

  config.optim = optim = ml_collections.ConfigDict()
  optim.lr = 3e-4
  optim.warmup_steps = 1000
  optim.schedule = 'constant'  # or 'cosine', to zero at decay_steps
  optim.decay_steps = 0
  optim.beta1 = 0.9
  optim.beta2 = 0.99
  optim.eps = 1e-8
  optim.weight_decay = 0.0
  optim.clip_norm = 1.0  # of the global mean gradient
  optim.ema_decay = 0.9999
  optim.ema_rule = 'constant'  # or 'ramp', min(decay, (1 + n) / (10 + n))

  config.train = train = ml_collections.ConfigDict()
  train.steps = 60_000
  # Ends early, with a checkpoint and samples; 0 is no limit.
  train.max_minutes = 0.0
  # Parts in which a batch is taken in turn, where it does not fit at once.
  train.accumulate = 1
  # Updates that are not finite are skipped; so many in a row end the run.
  train.max_skips = 10

  config.log = log = ml_collections.ConfigDict()
  log.every = 100  # steps between progress lines and points of the curves
  log.eval_every = 5_000  # held-out loss; 0 is only at the end
  log.sample_every = 5_000  # a grid of samples; 0 is only at the end
  # Reported with its step and clips: a loss so many times the recent median.
  log.spike = 3.0
  # So many steps, from the tenth of a call on, are traced to WORKDIR/profile.
  log.profile_steps = 0

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 5_000  # steps; a run also saves at its end
  checkpoint.keep = 2  # of the newest
  # And, for good, those at multiples of so many steps.
  checkpoint.keep_every = 0
  # '' or the dtype ('float32', 'bfloat16') in which a finished run also writes
  # its EMA weights to weights/*.safetensors, which sampling reads as well.
  checkpoint.export = ''

  config.eval = ml_collections.ConfigDict()
  # What is measured: names of evaluation/evaluators.py.
  config.eval.evaluators = ('heldout_loss',)
  config.eval.num_clips = 1024  # held-out clips, or windows of fewer clips
  config.eval.batch_size = 64

  config.sample = sample = ml_collections.ConfigDict()
  sample.num_videos = 16
  sample.batch_size = 16  # clips drawn at once, over all devices
  # 0 is the length of the training clips; more are drawn by extension.
  sample.frames = 0
  sample.sampler = 'ancestral'  # or 'ddim', 'dpmpp_2m'
  sample.num_steps = 256
  sample.gamma = 0.1  # of 'ancestral': 0 lower, 1 upper variance
  sample.eta = 0.0  # of 'ddim'
  # Of x_hat: 'static' to [-1, 1], 'dynamic' by its 99.5th percentile, 'none'.
  sample.clip = 'static'
  # Of the Langevin corrector after each step (the paper: 0.1); 0 is none.
  sample.corrector_delta = 0.0
  # Classifier-free: w of eps = (1 + w) eps(c) - w eps(0); 0 is unguided.
  sample.guidance_weight = 0.0
  # Of known frames: w_r of reconstruction guidance; 0 is replacement alone.
  sample.reconstruction_weight = 9.0
  sample.replacement = 'marginal'  # or 'joint'
  # Known frames of a block; 0 is half of it, or 1 in a cascade.
  sample.overlap = 0
  # A clip to continue ('extend', 'extend_backwards') to sample.frames, or to
  # spread by sample.factor ('interpolate'), or to enlarge by sample.upscale.
  sample.video = ''
  # n takes every n-th of its frames. 0 takes frames as far apart as those of
  # the run's clips, by data.fps and the first of data.frameskips (for
  # 'interpolate', sample.factor times that), and all frames of a file that this
  # program wrote.
  sample.init_every = 0
  sample.task = 'extend'
  sample.factor = 2
  sample.upscale = 1
  sample.super_resolution_weight = 9.0
  # The paper's cascade: the workdir of a second run, which refines frames that
  # this one draws, sample.stride apart, to its own size and rate. Sample fields
  # of the command line are for both; for the rest each has those of its run.
  sample.refine_workdir = ''
  sample.stride = 4
  sample.seed = 0
  # One tuple per clip, repeated as needed, -1 for absent; () takes the labels
  # of held-out clips.
  sample.labels = ()
  # With config.text: one caption per clip, repeated as needed (--prompt or
  # --prompt_file on the command line); () takes those of held-out clips.
  sample.prompts = ()
  sample.fps = 8.0  # of the files written
  return config


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A smoke variant: the same code paths in seconds a step on two cores."""
  config.data.frames, config.data.images = 4, 2
  config.data.height = config.data.width = 16
  config.batch_size = 8
  config.model.base_channels = 16
  config.model.channel_mults = (1, 2)
  config.model.num_blocks = 1
  config.model.attention_resolutions = (8,)
  config.model.head_dim = 16
  config.model.emb_dim = 64
  config.model.dtype = 'float32'
  config.train.steps = 20
  config.log.every = 5
  config.checkpoint.every = 10
  config.eval.num_clips = config.eval.batch_size = 8
  config.sample.num_videos = config.sample.batch_size = 8
  config.sample.num_steps = 8
  return config


def select(
    variant: str,
    variants: Mapping[str, Callable[[], ml_collections.ConfigDict]],
) -> ml_collections.ConfigDict:
  """Returns the config of one of the variants of a config file.

  Args:
    variant: name of the variant.
    variants: name -> function that makes the config.

  Raises:
    UserError: there is no such variant; the sentence names those that exist.
  """
  if variant not in variants:
    raise UserError(
        f'the config has no variant {variant!r}; it has {", ".join(variants)}.'
    )
  return variants[variant]()
