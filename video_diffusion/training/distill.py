"""The objectives of students: what they learn of their teachers.

`make_guided_loss` is that of the first student, where it has more to learn than
to take fewer steps: its teacher predicts eps, or is guided by two calls of its
network. `make_loss` is that of the others, whose one step is two of the
teacher's.

Each maker returns (draw_noise, loss_fn), as `step.make_loss` does. loss_fn(
params, batch with its noise, key, teacher) takes the teacher's parameters as
well; no gradient goes through them. The teacher never has dropout, and sees the
same conditioning. Its error of x_hat is weighed by `distillation.weight`.

The arguments that both have:
  model: student and teacher, a `ConditionalUNet`.
  num_images: K, each image at a noise level of its own.
  prediction: what the student outputs, one of `loss.PREDICTIONS`.
  logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
  share_noise: gives a video and its images one noise level.
  cond_drop: probability with which the conditioning of an example is dropped.
  reconstruction_weight: above 0, some frames of half of the videos are known
    ('known' [b, f] of the noise): the student sees them clean, at the largest
    log-SNR, and has no loss there.
  next_frames: J, see `next_frames.appended`.
  train: applies dropout to the student.
"""
from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import distillation
from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import guidance
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
    reconstruction_weight: float = 0.0,
    next_frames: int = 0,
    train: bool = False,
) -> tuple[Callable, Callable]:
  """The objective of a student of num_steps; its teacher takes twice as many.

  The noise has 'index' [b, f] in place of 'logsnr': the step of the student
  that a frame is at. A model that takes w sees the same as its teacher, drawn
  for each example, and so it is with known frames.
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
        batch, eps_key, drop_key, cond_drop, index=index,
        **_draw_weight(model, key, b),
        **_draw_known(
            key, batch, f - num_images, reconstruction_weight
        ),
    )

  def loss_fn(params, batch, key, teacher):
    logsnr_t, logsnr_m, logsnr_s = distillation.levels(
        batch['index'], num_steps, logsnr_fn
    )
    video = step_lib.to_float(batch['video'])
    z = gaussian.diffuse(x=video, eps=batch['eps'], logsnr=logsnr_t)
    denoise_fn = _denoise_fn(model, teacher, batch, num_images, prediction)
    if 'known' in batch:
      denoise_fn = guidance.clean_known(
          denoise_fn, known=video, known_mask=batch['known'],
          logsnr_max=logsnr_fn(jnp.float32(0.0)),
      )
    x = distillation.target(
        denoise_fn, z_t=z, logsnr_t=logsnr_t, logsnr_m=logsnr_m,
        logsnr_s=logsnr_s,
    )
    loss, losses = _student_loss(
        step_lib.network_of(
            model, params, batch, num_images, key if train else None
        ), batch, z=z, x=x, logsnr=logsnr_t, prediction=prediction,
        logsnr_fn=logsnr_fn,
    )
    return loss, metrics(losses, logsnr_t)

  return draw_noise, loss_fn


def make_guided_loss(
    model: conditioning.ConditionalUNet,
    *,
    num_images: int,
    teacher_prediction: str,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    share_noise: bool = False,
    cond_drop: float = 0.0,
    reconstruction_weight: float = 0.0,
    next_frames: int = 0,
    train: bool = False,
) -> tuple[Callable, Callable]:
  """The objective of one network in place of a guided one, at all noise levels.

  The student learns the x_hat that the teacher's sampler takes: that of
  classifier-free guidance, of reconstruction guidance by known frames (paper
  eq. 7, this project's choice), clipped. w ~ U[0, model.max_guidance_weight] is
  drawn for each example ('guidance_weight' [b] of its noise), and is an input
  of the student alone (Meng et al. 2023, arXiv 2210.03142, section 3.1). Where
  that maximum is 0, it is x_hat without guidance, in another prediction.

  Clipping is part of it since an eps model's x_hat divides by alpha: at t = 1
  its least error becomes 2e4 times as large (this project's choice).

  Args:
    model: its parameters have the same names in the teacher, whose embedding of
      w is the one that adds zero.
    num_images: see above.
    teacher_prediction: what the teacher outputs, one of `loss.PREDICTIONS`.
    prediction: see above, as all others.
    reconstruction_weight: w_r, see above.
  """
  metrics = step_lib.make_metrics(logsnr_fn)

  def draw_noise(key, batch):
    t_key, eps_key, drop_key = jax.random.split(key, 3)
    b, f = batch['video'].shape[:2]
    batch = next_frames_lib.appended(
        jax.random.fold_in(drop_key, 1), batch,
        num_frames=f - num_images, next_frames=next_frames,
    )
    logsnr = loss_lib.draw_logsnr(
        t_key, batch=b, num_frames=f - num_images,
        num_images=num_images + next_frames, share=share_noise,
        logsnr_fn=logsnr_fn,
    )
    return step_lib.with_noise(
        batch, eps_key, drop_key, cond_drop, logsnr=logsnr,
        **_draw_weight(model, key, b),
        **_draw_known(
            key, batch, f - num_images, reconstruction_weight
        ),
    )

  def loss_fn(params, batch, key, teacher):
    logsnr = batch['logsnr']
    video = step_lib.to_float(batch['video'])
    z = gaussian.diffuse(x=video, eps=batch['eps'], logsnr=logsnr)
    denoise_fn = guided(teacher, batch)
    if 'known' in batch:
      denoise_fn = guidance.reconstruction(
          denoise_fn, known=video, known_mask=batch['known'],
          weight=reconstruction_weight,
      )
    loss, losses = _student_loss(
        step_lib.network_of(
            model, params, batch, num_images, key if train else None
        ), batch, z=z, x=guidance.clip(denoise_fn)(z, logsnr), logsnr=logsnr,
        prediction=prediction, logsnr_fn=logsnr_fn,
    )
    return loss, metrics(losses, logsnr)

  def guided(teacher, batch):
    """The teacher's denoise function, guided with the weights of a batch."""
    make = functools.partial(
        _denoise_fn, model, teacher, num_images=num_images,
        prediction=teacher_prediction,
    )
    if 'guidance_weight' not in batch:
      return make(batch)
    weight = batch['guidance_weight']
    own = {name: x for name, x in batch.items() if name != 'guidance_weight'}
    null = own | {'keep': jnp.zeros(weight.shape, bool)}
    return guidance.classifier_free(
        make(own), make(null),
        weight=gaussian.broadcast_to_rank(weight, batch['eps']),
    )

  return draw_noise, loss_fn


def _draw_weight(model, key, batch: int) -> dict[str, jax.Array]:
  """'guidance_weight' [batch] of a model that takes it, else nothing."""
  if not model.max_guidance_weight:
    return {}
  return {'guidance_weight': jax.random.uniform(
      jax.random.fold_in(key, 1), (batch,), maxval=model.max_guidance_weight
  )}


def _draw_known(
    key, batch: dict[str, jax.Array], num_frames: int, weight: float
) -> dict[str, jax.Array]:
  """'known' [b, f] where the num_frames of a video may be known, else nothing.

  Images and next frames are never known.
  """
  if not weight:
    return {}
  b, f = batch['video'].shape[:2]
  known = distillation.draw_known(
      jax.random.fold_in(key, 2), batch=b, num_frames=num_frames
  )
  return {'known': jnp.pad(known, ((0, 0), (0, f - num_frames)))}


def _denoise_fn(
    model, params: Any, batch, num_images: int, prediction: str
) -> guidance.DenoiseFn:
  """(z, log-SNR) -> x_hat under the conditioning of a batch with its noise."""
  network = step_lib.network_of(model, params, batch, num_images, None)
  return lambda z, logsnr: loss_lib.x_hat(
      z=z, output=network(z, logsnr), logsnr=logsnr, prediction=prediction
  )


def _student_loss(
    student: Callable[[jax.Array, jax.Array], jax.Array],
    batch: dict[str, jax.Array],
    *,
    z: jax.Array,
    x: jax.Array,
    logsnr: jax.Array,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """(weighted mean loss, losses of frames [b, f]) of a student.

  Args:
    student: (z, log-SNR) -> output.
    batch: with its noise.
    z: latents of the batch.
    x: the x_hat that it is to have.
    logsnr: [b, f], of z.
    prediction: what it outputs.
    logsnr_fn: the schedule.
  """
  seen = z, logsnr
  if 'known' in batch:
    seen = guidance.with_clean_frames(
        z, logsnr, known=step_lib.to_float(batch['video']),
        known_mask=batch['known'], logsnr_max=logsnr_fn(jnp.float32(0.0)),
    )
  output = student(*seen).astype(jnp.float32)
  wanted = distillation.output_of(
      z=z, x=jax.lax.stop_gradient(x), logsnr=logsnr, prediction=prediction
  )
  losses = jnp.mean((output - wanted) ** 2, axis=(-3, -2, -1))
  if 'known' in batch:
    losses = jnp.where(batch['known'], 0.0, losses)
  weight = distillation.weight(logsnr, prediction=prediction)
  return (weight * losses).mean(), losses
