"""From a network to the denoise function that samplers walk down."""
from typing import Any

import jax

from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.models import context


def make_denoise_fn(
    network,
    params: Any,
    condition: dict[str, jax.Array] | None,
    *,
    prediction: str,
    previous: context.Previous | None = None,
    guidance_weight: float | jax.Array | None = None,
) -> guidance.DenoiseFn:
  """(z, logsnr) -> x_hat of a network, for one batch of conditions.

  Args:
    network: a `ConditionalUNet`.
    params: the network's parameters.
    condition: what the network's encoder takes, by name, each [batch, 1, ...];
      None is the null condition.
    prediction: what the network outputs, one of `loss.PREDICTIONS`.
    previous: the frames before each frame of z, which is then a next frame; for
      a network with a context.
    guidance_weight: w, for a network that takes it as an input; None for
      another one.
  """
  more = {}
  if previous is not None:
    more |= {'previous': previous, 'num_images': previous.frames.shape[1]}
  if guidance_weight is not None:
    more['guidance_weight'] = guidance_weight

  def denoise_fn(z, logsnr):
    output = network.apply(
        {'params': params}, z, logsnr, condition=condition, **more
    )
    return loss_lib.x_hat(
        z=z, output=output, logsnr=logsnr, prediction=prediction
    )

  return denoise_fn
