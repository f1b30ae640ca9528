"""The mode that distils a trained run into runs of fewer and fewer steps."""
import time

from absl import logging
from etils import epath
import ml_collections

from video_diffusion import callable_module
from video_diffusion import train
from video_diffusion.config import distill_config
from video_diffusion.config import run_dir as run_dir_lib
from video_diffusion.filesystem import files
from video_diffusion.training import preemption


def distill(
    config: ml_collections.ConfigDict,
    run_dir: epath.PathLike,
    watch: preemption.Preemption | None = None,
) -> None:
  """Trains a student for each of distill.rounds, in run_dir/steps_N.

  Each is a run like any other, which samples in N steps; it is the teacher of
  the next (Salimans & Ho 2022, 2202.00512). Where the first teacher predicts
  eps, or students learn guidance (distill.max_guidance_weight, Meng et al.
  2023, 2210.03142; distill.reconstruction_weight), another student comes before
  them, in run_dir/steps_any. It samples in any number of steps, and predicts v
  where the teacher predicts eps.

  Interrupted at any point, the same call continues as an uninterrupted one
  would have. The module can be called in place of this function:
  `video_diffusion.distill(config, run_dir)`.

  Args:
    config: from `distill_config.get_config`, perhaps with other fields.
    run_dir: folder of the students, local or gs://.
    watch: see `train.train`.

  Raises:
    UserError: a bad config, before any compile; or see `train.train`.
  """
  began = time.time()
  distill_config.check(config)
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  minutes = config.train.max_minutes
  # A later one may hold another run, which would show when it is its turn.
  for folder, student in distill_config.students(config, run_dir):
    run_dir_lib.require_same(student, folder)
  for folder, student in distill_config.students(config, run_dir):
    logging.info('%s learns from %s.', folder, student.distill.teacher)
    if student.diffusion.prediction != config.diffusion.prediction:
      logging.info(
          'The teacher predicts %s; this student and all others learn to '
          'predict %s.', config.diffusion.prediction,
          student.diffusion.prediction,
      )
    if minutes:
      left = minutes - (time.time() - began) / 60
      if left <= 0:
        return
      with student.unlocked():
        student.train.max_minutes = left
    if train.train(student, folder, watch) < student.train.steps:
      return  # train.max_minutes is over


callable_module.make(__name__)
