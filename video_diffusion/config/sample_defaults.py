"""Every field of `config.sample`, with its meaning and its default value."""
import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the fields of sampling: what is sampled, and how."""
  sample = ml_collections.ConfigDict()
  # Number of videos.
  sample.num_videos = 16
  # Number of videos that are sampled at once, over all devices.
  sample.batch_size = 16
  # Number of frames of a video. 0 is data.frames of the run. A longer video is
  # sampled by extension, block after block.
  sample.frames = 0
  # Name of the sampler: 'ancestral', as in the paper, 'ddim', 'dpmpp_2m' or
  # 'annealed_langevin'.
  sample.sampler = 'ancestral'
  # Number of steps from noise to a video.
  sample.num_steps = 256
  # Option of 'ancestral', from 0 (the lower bound of the variance) to 1 (the
  # upper bound).
  sample.gamma = 0.1
  # Option of 'ddim', from 0 (deterministic) to 1 ('ancestral' with gamma 0).
  sample.eta = 0.0
  # Option of 'annealed_langevin', the part of the way to x_hat in a step: 0 is
  # 'ddim' with eta 0; with 1 all noise is new in every step.
  sample.langevin_step = 0.1
  # How x_hat is kept in its range: 'static' clips it to [-1, 1], 'dynamic'
  # divides it by its 99.5th percentile before, 'none' leaves it as it is.
  sample.clip = 'static'
  # Step size of the Langevin corrector after each step; the paper has 0.1. 0
  # makes no such correction.
  sample.corrector_delta = 0.0
  # Weight w of classifier-free guidance: eps = (1 + w) eps(c) - w eps(0), where
  # c is the condition. 0 samples without guidance. It is an input of a network
  # that was distilled with distill.max_guidance_weight.
  sample.guidance_weight = 0.0
  # Weight w_r of reconstruction guidance, where some frames are known (the
  # paper's eq. 7). At 0 the known frames are replaced and do not guide.
  sample.reconstruction_weight = 9.0
  # How known frames x are noised in a step from z_t to z_s: 'marginal' takes
  # q(z_s | x), 'joint' takes q(z_s | z_t, x).
  sample.replacement = 'marginal'
  # Number of frames that a block of a longer video has in common with the block
  # before. 0 takes half of a block, or 1 frame in a cascade. A model with
  # extension.context 'aligned' has such blocks only in sample.upscale, and as
  # the second one of a cascade.
  sample.overlap = 0
  # File of a video to begin with. sample.task and sample.upscale say what is
  # done with it.
  sample.video = ''
  # n takes every n-th frame of sample.video. 0 takes frames that are as far
  # apart as those of the run's clips, by data.fps and the first of
  # data.frameskips (for 'interpolate', sample.factor times as far). Of a file
  # that this program wrote, 0 takes every frame.
  sample.init_every = 0
  # What is done with sample.video: 'extend' and 'extend_backwards' continue it
  # to sample.frames, 'interpolate' puts new frames between its frames.
  sample.task = 'extend'
  # 'interpolate' makes the frame rate so many times as high.
  sample.factor = 2
  # sample.video is enlarged so many times in height and width. 1 does not
  # enlarge it.
  sample.upscale = 1
  # Weight of the guidance by a video of low resolution (the paper's eq. 8), in
  # sample.upscale and in a cascade.
  sample.super_resolution_weight = 9.0
  # Folder of a second run, which makes a cascade as in the paper: it refines
  # the frames of this run's model to its own size and frame rate. Sample fields
  # of the command line are for both models. All other sample fields are those
  # of each run.
  sample.refine_workdir = ''
  # The frames of the first model are so many frames of the second one apart.
  sample.stride = 4
  # Seed of the samples.
  sample.seed = 0
  # Labels to sample from, one tuple for each video, repeated as needed. -1
  # leaves a label open. () takes the labels of held-out clips.
  sample.labels = ()
  # Captions to sample from, one for each video, repeated as needed. () takes
  # the captions of held-out clips. The flags --prompt and --prompt_file set
  # this field.
  sample.prompts = ()
  # Frames per second of the files that are written.
  sample.fps = 8.0
  return sample
