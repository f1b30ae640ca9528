"""The jitted sampler of one block of frames, with guidance."""
from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp

from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import samplers
from video_diffusion.diffusion import sampling
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.inference import denoiser
from video_diffusion.inference import step_calls
from video_diffusion.models import context
from video_diffusion.parallel import sharding


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a block is sampled.

  Attributes:
    sampler: steps from one noise level to the next.
    num_steps: calls of the sampler, at least 1.
    clip: one of `guidance.CLIPPINGS`, applied to x_hat.
    corrector_delta: size of the Langevin corrector after each step (the paper:
      0.1); 0 runs none.
    guidance_weight: w of classifier-free guidance, eps = (1 + w) eps(c) - w
      eps(0); 0 is unguided.
    reconstruction_weight: w_r of reconstruction guidance by known frames (paper
      eq. 7); 0 leaves them to replacement.
    super_resolution_weight: w_r of guidance by low-resolution frames (eq. 8).
    replacement: one of `sampling.REPLACEMENTS`, how known frames are diffused.
  """

  sampler: samplers.Sampler = samplers.Ancestral()
  num_steps: int = 256
  clip: str = 'static'
  corrector_delta: float = 0.0
  guidance_weight: float = 0.0
  reconstruction_weight: float = 9.0
  super_resolution_weight: float = 9.0
  replacement: str = 'marginal'

  def __post_init__(self):
    for name, allowed in (
        ('clip', guidance.CLIPPINGS),
        ('replacement', sampling.REPLACEMENTS),
    ):
      value = getattr(self, name)
      if value not in allowed:
        raise ArgumentError(
            Argument(name), f' is {value!r}; it must be one of {allowed}.'
        )
    for name, least in (
        ('num_steps', 1),
        ('corrector_delta', 0),
        ('guidance_weight', -1),
        ('reconstruction_weight', 0),
        ('super_resolution_weight', 0),
    ):
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or not value >= least:
        raise ArgumentError(
            Argument(name), f' is {value!r}; it must be at least {least}.'
        )

  def updated(
      self, options: Mapping[str, float], **given: Any
  ) -> 'Settings':
    """The settings with those of a call; None leaves one as it is.

    Args:
      options: default options of a sampler that is given by name, or kept.
      **given: fields, where sampler may be a name, and options of samplers.

    Raises:
      ArgumentError: an unknown name, or a value that is out of range.
    """
    given = {name: value for name, value in given.items() if value is not None}
    known = {field.name for field in dataclasses.fields(self)}
    own = {name: given.pop(name) for name in [*given] if name not in known}
    for name in own.keys() - samplers.options().keys():
      raise ArgumentError(
          Argument(name), ' is not an argument of sampling; there are '
          f'{", ".join(sorted(known | samplers.options().keys()))}.',
      )
    sampler = given.pop('sampler', self.sampler.name)
    if isinstance(sampler, str):
      sampler = samplers.make(sampler, **options | own)
    elif own:
      sampler = dataclasses.replace(sampler, **own)
    return dataclasses.replace(self, sampler=sampler, **given)


def make_block_sampler(
    network,
    settings: Settings,
    *,
    shape: tuple[int, ...],
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    mesh: jax.sharding.Mesh,
    upscale: int = 1,
    sees_known: bool = False,
):
  """Returns the jitted sampler of one block.

  Args:
    network: a `ConditionalUNet`.
    settings: how to sample.
    shape: [batch, frames, height, width, channels] of the block.
    prediction: what the network outputs, one of `loss.PREDICTIONS`.
    logsnr_fn: the schedule that the network was trained with.
    mesh: all devices.
    upscale: how many times larger frames are than their low-resolution
      partners.
    sees_known: whether the network has learned to see known frames clean
      (`guidance.clean_known`), and is not guided by them.

  Returns:
    (params, key, condition, known, known_mask, low_res, low_res_mask, previous,
    previous_mask, weight, call) -> x, float32 of `shape` in [-1, 1]. condition
    holds what the network's encoder takes, each [batch, 1, ...], or is None.
    known, of `shape`, and low_res [batch, frames, height / upscale, width /
    upscale, channels] may be left out; each comes with a mask, bool [1,
    frames]. With previous, [batch, C, height, width, channels], and its mask,
    bool [1, C], the block is one frame, the next one (`context.Previous`).
    Everything with a batch axis is split by `sharding.batch_sharding`. Masks
    are data, so that blocks that know other frames share one program. weight
    replaces settings.guidance_weight. call is a number of
    `step_calls.following`, which is told of each step; without it the program
    has no callback.
  """
  if network.encoder is not None:
    w = settings.guidance_weight
    logging.info('Classifier-free guidance: w = %g (1 + w = %g).', w, 1 + w)

  def sample_block(
      params,
      key,
      condition,
      known=None,
      known_mask=None,
      low_res=None,
      low_res_mask=None,
      previous=None,
      previous_mask=None,
      weight=settings.guidance_weight,
      call=None,
  ):
    frames = shape[1]
    if previous is not None:
      frames = 1
      previous = context.Previous(previous[:, None], previous_mask[:, None])
    denoise_fn = _denoise_fn(
        network, params, condition, weight, prediction=prediction,
        previous=previous,
    )
    if known is not None and sees_known:
      denoise_fn = guidance.clean_known(
          denoise_fn, known=known, known_mask=known_mask,
          logsnr_max=logsnr_fn(jnp.float32(0.0)),
      )
    elif known is not None:
      denoise_fn = guidance.reconstruction(
          denoise_fn,
          known=known,
          known_mask=known_mask,
          weight=settings.reconstruction_weight,
      )
    if low_res is not None:
      denoise_fn = guidance.super_resolution(
          denoise_fn,
          low_res=low_res,
          weight=settings.super_resolution_weight,
          downsample=guidance.area(upscale),
          low_res_mask=low_res_mask,
      )
    return sampling.sample(
        key,
        guidance.clip(denoise_fn, method=settings.clip),
        shape=(shape[0], frames, *shape[2:]),
        num_steps=settings.num_steps,
        sampler=settings.sampler,
        corrector_delta=settings.corrector_delta or None,
        known=known,
        known_mask=known_mask,
        replacement=settings.replacement,
        logsnr_fn=logsnr_fn,
        on_step=None if call is None else functools.partial(
            step_calls.tell, call
        ),
    )

  return jax.jit(sample_block, out_shardings=sharding.batch_sharding(mesh))


def _denoise_fn(
    network, params, condition, weight, **options
) -> guidance.DenoiseFn:
  """(z, log-SNR) -> x_hat of a network, under classifier-free guidance.

  Args:
    network: see `make_block_sampler`.
    params: its parameters.
    condition: see `make_block_sampler`; None is not guided.
    weight: w, an input of a network that was distilled for it.
    **options: of `denoiser.make_denoise_fn`.
  """
  make = functools.partial(
      denoiser.make_denoise_fn, network, params, **options
  )
  if network.max_guidance_weight:
    return make(condition, guidance_weight=weight)
  if condition is None:
    return make(None)
  return guidance.classifier_free(make(condition), make(None), weight=weight)
