"""The objective of a student: its teacher's two steps in one."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import distillation
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.models import conditioning
from video_diffusion.training import next_frames as next_frames_lib
from video_diffusion.training import step as step_lib


def make_loss(
    model: conditioning.ConditionalUNet,
    *,
    num_images: int,
    num_steps: int,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    share_noise: bool = False,
    cond_drop: float = 0.0,
    next_frames: int = 0,
    train: bool = False,
) -> tuple[Callable, Callable]:
  """(draw_noise, loss_fn), as of `step.make_loss`.

  The noise has 'index' [b, f] in place of 'logsnr': the step of the student
  that a frame is at. loss_fn(params, batch with its noise, key, teacher) takes
  the teacher's parameters as well; no gradient goes through them. The teacher
  never has dropout, and sees the same conditioning.

  Args:
    model: student and teacher, a `ConditionalUNet`.
    num_images: K, each image at a step of its own.
    num_steps: of the student; the teacher takes two for each.
    prediction: what the network outputs.
    logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
    share_noise: gives a video and its images one step.
    cond_drop: probability with which the conditioning of an example is dropped.
    next_frames: J, see `next_frames.appended`.
    train: applies dropout to the student.
  """
  metrics = step_lib.make_metrics(logsnr_fn)

  def draw_noise(key, batch):
    index_key, eps_key, drop_key = jax.random.split(key, 3)
    b, f = batch['video'].shape[:2]
    batch = next_frames_lib.appended(
        jax.random.fold_in(drop_key, 1), batch,
        num_frames=f - num_images, next_frames=next_frames,
    )
    index = distillation.draw_index(
        index_key, batch=b, num_frames=f - num_images,
        num_images=num_images + next_frames, num_steps=num_steps,
        share=share_noise,
    )
    return step_lib.with_noise(
        batch, eps_key, drop_key, cond_drop, index=index
    )

  def loss_fn(params, batch, key, teacher):
    logsnr_t, logsnr_m, logsnr_s = distillation.levels(
        batch['index'], num_steps, logsnr_fn
    )
    x = step_lib.to_float(batch['video'])
    z = gaussian.diffuse(x=x, eps=batch['eps'], logsnr=logsnr_t)
    taught = step_lib.network_of(model, teacher, batch, num_images, None)

    def denoise(z, logsnr):
      return loss_lib.x_hat(
          z=z, output=taught(z, logsnr), logsnr=logsnr, prediction=prediction
      )

    wanted_x = jax.lax.stop_gradient(distillation.target(
        denoise, z_t=z, logsnr_t=logsnr_t, logsnr_m=logsnr_m, logsnr_s=logsnr_s
    ))
    student = step_lib.network_of(
        model, params, batch, num_images, key if train else None
    )
    output = student(z, logsnr_t).astype(jnp.float32)
    wanted = distillation.output_of(
        z=z, x=wanted_x, logsnr=logsnr_t, prediction=prediction
    )
    losses = jnp.mean((output - wanted) ** 2, axis=(-3, -2, -1))
    weight = distillation.weight(logsnr_t, prediction=prediction)
    return (weight * losses).mean(), metrics(losses, logsnr_t)

  return draw_noise, loss_fn
