"""Few steps in place of many: a trained model, distilled (2202.00512).

  python -m video_diffusion.main --mode=distill \
    --config.distill.teacher=RUN --workdir=STUDENTS

RUN is the folder of a trained run. Each of distill.rounds makes a student in
STUDENTS/steps_N, a run like any other, which samples in N steps. Where RUN
predicts eps, or students learn guidance (distill.max_guidance_weight,
distill.reconstruction_weight), STUDENTS/steps_any comes first.
Data, network and noise are those of RUN, and so is all that this file does not
set; flags that name data, as --config.data.path, are given as for a training.
"""
from video_diffusion.config import defaults


def get_config():
  """The training of a round; the fields of other groups come from the teacher.
  """
  config = defaults.get_config()
  optim = config.optim
  # Each round falls from its own peak to 0 (the paper: linearly from 1e-4).
  config.train.steps = 2000
  optim.lr = 1e-4
  optim.warmup_steps = 0
  optim.schedule = 'cosine'
  optim.decay_steps = 2000
  optim.ema_decay = 0.99
  config.log.every = 50
  config.log.eval_every = 0
  config.log.sample_every = 0
  config.checkpoint.every = 500
  return config
