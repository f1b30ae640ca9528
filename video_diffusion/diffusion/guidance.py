"""Transforms of the denoise function: DenoiseFn -> DenoiseFn."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

# (z [batch, time, height, width, channels], logsnr [batch]) -> x_hat like z.
# The one thing that samplers and guidance know of a network.
DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]


def clip(denoise_fn: DenoiseFn) -> DenoiseFn:
  """Clips x_hat to [-1, 1], the range of the data.

  The paper does not mention it (this project's choice): without it the first
  steps of an eps model, which divide by alpha = 4.5e-5, are unusable.
  """

  def clipped(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    return jnp.clip(denoise_fn(z, logsnr), -1.0, 1.0)

  return clipped
