"""The objectives of students: what they learn of their teachers.

`make_guided_loss` is that of the first student, where it has more to learn than
to take fewer steps: its teacher predicts eps, or is guided by two calls of its
network. `make_loss` is that of the others, whose one step is two of the
teacher's.

Each maker returns (draw_noise, loss_fn), as `step.make_loss` does. loss_fn(
params, batch with its noise, key, teacher) takes the teacher's parameters as
well; no gradient goes through them. The teacher never has dropout, and sees the
same conditioning. The error of x_hat is weighted by `distillation.weight`, or
for the first student by `distillation.guided_weight`.

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
from video_diffusion.parallel import sharding
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
  metrics = _make_metrics(logsnr_fn, next_frames)
  draw_index = functools.partial(
      distillation.draw_index, num_steps=num_steps, share=share_noise
  )
  draw_noise = _make_draw_noise(
      model, lambda key, **sizes: {'index': draw_index(key, **sizes)},
      num_images=num_images, cond_drop=cond_drop, next_frames=next_frames,
      reconstruction_weight=reconstruction_weight,
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
        weight=distillation.weight(logsnr_t, prediction=prediction),
    )
    return loss, metrics(losses, logsnr_t, batch)

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

  The student learns the x_hat that the teacher's sampler takes with static
  clipping, whatever sample.clip is: that of classifier-free guidance, of
  reconstruction guidance by known frames (paper eq. 7, this project's choice),
  clipped to [-1, 1]. w ~ U[0, model.max_guidance_weight] is drawn for each
  example ('guidance_weight' [b] of its noise), and is an input of the student
  alone (Meng et al. 2023, arXiv 2210.03142, section 3.1). Where that maximum is
  0, it is x_hat without guidance, in another prediction.

  Clipping is part of it since an eps model's x_hat divides by alpha: at t = 1
  its least error becomes 2e4 times as large (this project's choice).

  Args:
    model: its parameters have the same names in the teacher, whose embedding of
      w is the one that adds zero.
    num_images: K, each image at a noise level of its own.
    teacher_prediction: what the teacher outputs, one of `loss.PREDICTIONS`.
    prediction: what the student outputs, one of `loss.PREDICTIONS`.
    logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
    share_noise: gives a video and its images one noise level.
    cond_drop: probability with which the conditioning of an example is dropped.
    reconstruction_weight: w_r of the teacher's guidance by known frames; 0 has
      none.
    next_frames: J, see `next_frames.appended`.
    train: applies dropout to the student.
  """
  metrics = _make_metrics(logsnr_fn, next_frames)
  draw_logsnr = functools.partial(
      loss_lib.draw_logsnr, share=share_noise, logsnr_fn=logsnr_fn
  )
  draw_noise = _make_draw_noise(
      model, lambda key, **sizes: {'logsnr': draw_logsnr(key, **sizes)},
      num_images=num_images, cond_drop=cond_drop, next_frames=next_frames,
      reconstruction_weight=reconstruction_weight,
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
        weight=distillation.guided_weight(logsnr, prediction=prediction),
    )
    return loss, metrics(losses, logsnr, batch)

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


def _make_draw_noise(
    model,
    draw_level: Callable,
    *,
    num_images: int,
    reconstruction_weight: float,
    **options,
) -> Callable:
  """`step.make_draw_noise`, with what the student takes beside.

  That is 'guidance_weight' [b] of a model that takes it, and 'known' [b, f]
  with a reconstruction weight. Images and next frames are never known.
  """
  draw_others = step_lib.make_draw_noise(
      draw_level, num_images=num_images, **options
  )

  def draw_noise(key, batch):
    noisy, own = draw_others(key, batch), {}
    b, num_frames = len(batch['video']), batch['video'].shape[1] - num_images
    # split(key, 3), from which all else is drawn, gives fold_in(key, 0 to 2).
    weight_key, known_key = (jax.random.fold_in(key, i) for i in (3, 4))
    if model.max_guidance_weight:
      own['guidance_weight'] = jax.random.uniform(
          weight_key, (b,), maxval=model.max_guidance_weight
      )
    if reconstruction_weight:
      known = distillation.draw_known(
          known_key, batch=b, num_frames=num_frames
      )
      more = noisy['video'].shape[1] - num_frames
      own['known'] = jnp.pad(known, ((0, 0), (0, more)))
    return noisy | jax.tree.map(sharding.constrain_batch, own)

  return draw_noise


def _make_metrics(logsnr_fn: Callable, next_frames: int) -> Callable:
  """Makes (losses [b, f], log-SNRs [b, f], batch with its noise) -> metrics."""
  of_levels = step_lib.make_metrics(logsnr_fn)

  def metrics(losses, logsnr, batch):
    found = of_levels(losses, logsnr, batch.get('known'))
    if next_frames:
      found |= next_frames_lib.metrics(losses[:, -next_frames:])
    return found

  return metrics


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
    weight: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """(weighted mean loss, losses of frames [b, f]) of a student.

  Known frames have none, and the mean of each example is that of its others, so
  that the loss of a batch is the mean of its parts'.

  Args:
    student: (z, log-SNR) -> output.
    batch: with its noise.
    z: latents of the batch.
    x: the x_hat that it is to have.
    logsnr: [b, f], of z.
    prediction: what it outputs.
    logsnr_fn: the schedule.
    weight: [b, f], of the losses.
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
  if 'known' not in batch:
    return (weight * losses).mean(), losses
  losses = jnp.where(batch['known'], 0.0, losses)
  own = (weight * losses).sum(1) / (~batch['known']).sum(1)
  return own.mean(), losses
