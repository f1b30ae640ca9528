"""A U-Net with the encoder of its condition, as one set of parameters."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from video_diffusion.models import unet3d


class LabelEncoder(nn.Module):
  """Integer labels -> a condition vector, the sum of one table row per label.

  A label of -1 is absent and adds nothing, so that absent labels alone give
  the null condition, zero.

  Attributes:
    sizes: the number of values of each label slot.
    dim: width D of the condition vector.
  """

  sizes: tuple[int, ...]
  dim: int

  @nn.compact
  def __call__(self, labels: jax.Array) -> jax.Array:
    """int32 [batch, n, slots] -> float32 [batch, n, dim]."""
    cond = jnp.zeros(labels.shape[:-1] + (self.dim,), jnp.float32)
    for i, size in enumerate(self.sizes):
      table = self.param(
          f'table_{i}', nn.initializers.normal(1.0), (size, self.dim)
      )
      slot = labels[..., i]
      cond = cond + jnp.where((slot >= 0)[..., None], table[slot], 0.0)
    return cond


class ConditionalUNet(nn.Module):
  """The network that is trained and sampled: encoder -> condition -> U-Net.

  Attributes:
    unet: the U-Net.
    encoder: a `LabelEncoder` or `text.TextEncoder`, None for an unconditional
      model.
  """

  unet: unet3d.UNet3D
  encoder: nn.Module | None = None

  def __call__(
      self,
      z: jax.Array,
      logsnr: jax.Array,
      condition: dict[str, jax.Array] | None = None,
      keep: jax.Array | None = None,
      num_images: int = 0,
      train: bool = False,
  ) -> jax.Array:
    """Predicts from z, the log-SNR and a condition.

    Args:
      z: [batch, T + K, height, width, channels].
      logsnr: [batch] or [batch, T + K].
      condition: what the encoder takes, by name, each [batch, 1 + K, ...], the
        video's and each image's: 'labels', or 'tokens' and 'mask'. None is the
        null condition.
      keep: bool [batch]; where False the condition is dropped to zero, for the
        video and its images together.
      num_images: K.
      train: applies dropout.

    Returns:
      float32 of z's shape.
    """
    cond = None
    if self.encoder is not None and condition is not None:
      cond = self.encoder(**condition)
      if keep is not None:
        cond = jnp.where(keep[:, None, None], cond, 0.0)
      frames = z.shape[1] - num_images
      video = jnp.repeat(cond[:, :1], frames, axis=1)
      cond = jnp.concatenate([video, cond[:, 1:]], axis=1)
    return self.unet(z, logsnr, cond, num_images, train)
