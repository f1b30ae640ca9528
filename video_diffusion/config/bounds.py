"""The bounds of each field of a config.

The upper bounds leave room above the paper's largest models. They are there so
that a slip, or a config that another person made, ends in a sentence and not
in hours or in all of the memory.
"""
from typing import Any, NamedTuple

from video_diffusion.data import datasets

MANY = 10**12  # of what is counted but costs nothing
MAX_TEXT = 4096  # characters of a field

# Field -> (smallest, largest) value that is allowed.
RANGES = {
    'seed': (0, 2**31 - 1),
    'batch_size': (1, 2**20),
    'mesh.fsdp': (0, 2**16),
    'mesh.model': (1, 2**16),
    'mesh.min_sharded': (1, MANY),
    'mesh.processes': (0, 2**16),
    'data.frames': (1, 4096),
    'data.images': (0, 4096),
    # Pillow refuses larger images, whatever is asked.
    'data.max_pixels': (1, 178_956_970),
    'data.max_frames': (1, MANY),
    'data.max_seconds': (0.001, MANY),
    'data.max_pixels_per_byte': (1, MANY),
    'data.height': (1, 8192),
    'data.width': (1, 8192),
    'data.weight': (0, MANY),
    'text.length': (2, 4096),
    'text.dim': (1, 2**16),
    'text.max_pieces': (4, 2**20),
    'prepare.tasks': (0, 10**6),
    'prepare.task': (0, 10**6),
    'model.base_channels': (4, 8192),
    'model.num_blocks': (0, 64),
    'model.head_dim': (1, 8192),
    'model.group_size': (1, 8192),
    'model.patch_size': (1, 64),
    'model.emb_dim': (1, 2**16),
    'model.emb_layers': (1, 64),
    'model.cond_dim': (0, 2**16),
    'model.position_stddev': (0, 1000),
    'model.dropout': (0, 1),
    'diffusion.cond_drop': (0, 1),
    'diffusion.logsnr_shift': (-10, 10),
    'diffusion.pure_noise': (0, 1),
    'diffusion.sigmoid_bias': (-20, 20),
    'extension.context_frames': (1, 64),
    'extension.next_frames': (1, 4096),
    'optim.lr': (0, 3.4e38),  # float32's largest; updates may be skipped
    'optim.warmup_steps': (0, MANY),
    'optim.decay_steps': (0, MANY),
    'optim.beta1': (0, 1),
    'optim.beta2': (0, 1),
    'optim.eps': (0, 1),
    'optim.weight_decay': (0, 1000),
    'optim.clip_norm': (0, MANY),
    'optim.ema_decay': (0, 1),
    'train.steps': (1, 2**31 - 1),
    'train.max_minutes': (0, MANY),
    'train.accumulate': (1, 2**20),
    'train.max_skips': (1, MANY),
    'distill.num_steps': (0, 10**5),
    'distill.max_guidance_weight': (0, 10**6),
    'distill.reconstruction_weight': (0, 10**6),
    'log.every': (1, MANY),
    'log.eval_every': (0, MANY),
    'log.sample_every': (0, MANY),
    'log.score_every': (0, MANY),
    'log.score_samples': (2, 10**7),
    'log.spike': (1, MANY),
    'log.profile_steps': (0, 10_000),
    'log.forecast_steps': (0, 10_000),
    'checkpoint.every': (1, MANY),
    'checkpoint.keep': (1, MANY),
    'checkpoint.keep_every': (0, MANY),
    'eval.num_clips': (1, 10**8),
    'eval.batch_size': (1, 2**20),
    'eval.num_samples': (0, 10**7),
    'eval.frames': (0, 2**16),
    'eval.seed': (0, 2**31 - 1),
    'sample.num_videos': (1, 10**6),
    'sample.batch_size': (1, 2**20),
    'sample.frames': (0, 2**16),
    'sample.num_steps': (1, 10**5),
    'sample.corrector_delta': (0, 1),
    'sample.guidance_weight': (-1, 10**6),
    'sample.reconstruction_weight': (0, 10**6),
    'sample.super_resolution_weight': (0, 10**6),
    'sample.init_every': (0, 2**20),
    'sample.overlap': (0, 4096),
    'sample.factor': (2, 1024),
    'sample.upscale': (1, 64),
    'sample.stride': (1, 1024),
    'sample.gamma': (0, 1),
    'sample.eta': (0, 1),
    'sample.langevin_step': (0, 1),
    'sample.seed': (0, 2**31 - 1),
    'sample.fps': (0.1, 1000),
}


class Several(NamedTuple):
  """A tuple of like values.

  Attributes:
    item: int, str, or another Several.
    longest: most values that it may have.
    low: smallest number.
    high: largest number, or most characters of a text.
    shortest: fewest values.
  """

  item: Any
  longest: int
  low: int = 0
  high: int = MAX_TEXT
  shortest: int = 0


TUPLES = {
    'data.frameskips': Several(int, 64, 1, 1024, shortest=1),
    'distill.rounds': Several(int, 20, 1, 10**5, shortest=1),
    'eval.evaluators': Several(str, 100),
    'eval.metrics': Several(str, 100),
    'log.scores': Several(str, 100),
    'model.channel_mults': Several(int, 10, 1, 256, shortest=1),
    'model.attention_resolutions': Several(int, 16, 1, 8192),
    'model.temporal_resolutions': Several(int, 16, 1, 8192),
    'model.spacetime_resolutions': Several(int, 16, 1, 8192),
    'model.remat': Several(int, 16, 1, 8192),
    'sample.labels': Several(Several(int, 64, -1, 2**31 - 1), 10**6),
    'sample.prompts': Several(str, 10**6, high=10_000),
}
# The fields that only some data sets have, in data or in a mixture.
DATA_SET = datasets.all_options()
RANGES |= {
    f'data.{k}': (v.low, v.high)
    for k, v in DATA_SET.items() if v.kind in (int, float)
}
TUPLES |= {
    f'data.{k}': Several(str, v.longest)
    for k, v in DATA_SET.items() if v.kind is tuple
}
# Field -> (regular expression that its text must match, what it is then).
PATTERNS = {
    f'data.{k}': (v.pattern, v.meaning)
    for k, v in DATA_SET.items() if v.pattern
}
