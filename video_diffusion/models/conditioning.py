"""What a network may be conditioned on, and the network with its conditioning.

Each kind of conditioning is one encoder class, an entry of KINDS:

- its fields are plain arguments,
- `arrays` names the arrays that it takes, with their shape for one clip or
  image; batches hold them as [batch, 1 + K, ...], the clip's and each image's,
- calling it with these arrays gives what it makes of them,
- `enter` is how the result enters the U-Net.

A further kind is a further class. A data set gives its arrays by yielding them
under the same names from `example` (see `data.mixture.Source`), and the field
model.conditioning chooses it.
"""
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.models import blocks
from video_diffusion.models import context as context_lib
from video_diffusion.models import text_pooling
from video_diffusion.models import unet3d

Encoder = nn.Module  # an entry of KINDS, as described above


def add_to_embedding(
    z: jax.Array, vectors: jax.Array, num_images: int
) -> tuple[jax.Array, jax.Array]:
  """The vector of the video for each of its frames, each image's for the image.

  The U-Net projects the vectors and adds them to the embedding of the log-SNR.

  Args:
    z: [batch, T + K, height, width, channels].
    vectors: [batch, 1 + K, D].
    num_images: K.

  Returns:
    z and the vectors of the frames, [batch, T + K, D].
  """
  frames = z.shape[1] - num_images
  video = jnp.repeat(vectors[:, :1], frames, axis=1)
  return z, jnp.concatenate([video, vectors[:, 1:]], axis=1)


class LabelEncoder(nn.Module):
  """Integer labels -> a vector, the sum of one table row for each label.

  A label of -1 is absent and adds nothing, so that absent labels alone give
  the null conditioning, zero.

  Attributes:
    dim: width D of the vector.
    sizes: the number of values of each label slot.
  """

  dim: int
  sizes: tuple[int, ...]

  enter = staticmethod(add_to_embedding)

  def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
    """'labels', int32 [slots]."""
    shape = (len(self.sizes),)
    return {'labels': jax.ShapeDtypeStruct(shape, jnp.int32)}

  @nn.compact
  def __call__(self, labels: jax.Array) -> jax.Array:
    """int32 [batch, n, slots] -> float32 [batch, n, D]."""
    vectors = jnp.zeros(labels.shape[:-1] + (self.dim,), jnp.float32)
    for i, size in enumerate(self.sizes):
      table = self.param(
          f'table_{i}', nn.initializers.normal(1.0), (size, self.dim)
      )
      slot = labels[..., i]
      vectors = vectors + jnp.where((slot >= 0)[..., None], table[slot], 0.0)
    return vectors


class TextEncoder(nn.Module):
  """The tokens of captions -> a vector each, by attention pooling.

  Attributes:
    dim: width of the vector.
    length: tokens of a caption.
    token_dim: width of a token's vector.
    max_pieces: number of token ids, whose vectors are learned. None where the
      tokens are the vectors of a frozen encoder.
    dtype: dtype of the matrix products.
  """

  dim: int
  length: int
  token_dim: int
  max_pieces: int | None = None
  dtype: jnp.dtype = jnp.float32

  enter = staticmethod(add_to_embedding)

  def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
    """'tokens', int32 [length] or bfloat16 [length, token_dim]; 'mask'."""
    shape = (self.length,)
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    if self.max_pieces is None:
      tokens = jax.ShapeDtypeStruct((*shape, self.token_dim), jnp.bfloat16)
    return {'tokens': tokens, 'mask': jax.ShapeDtypeStruct(shape, jnp.bool_)}

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Pools each caption.

    Args:
      tokens: [batch, n, length] int32 ids, or [batch, n, length, token_dim]
        vectors.
      mask: bool [batch, n, length], False at padding.

    Returns:
      float32 [batch, n, dim].
    """
    if self.max_pieces is not None:
      tokens = text_pooling.TokenTable(
          self.max_pieces, self.length, self.token_dim, name='table'
      )(tokens)
    return text_pooling.AttentionPooling(
        self.dim, self.dtype, name='pooling'
    )(tokens, mask)


class GuidanceEmbedding(nn.Module):
  """The weight w of classifier-free guidance -> a vector, zero at the start.

  w enters as Fourier features of w / max_weight (Meng et al. 2023, arXiv
  2210.03142, section 3.1), and a small MLP follows. Its last layer starts at
  zero, so that a network begins with the same output for every w.

  Attributes:
    dim: width of the vector.
    max_weight: the largest w, above 0.
  """

  dim: int
  max_weight: float

  @nn.compact
  def __call__(self, weight: jax.Array) -> jax.Array:
    """float32 [batch] in [0, max_weight] -> float32 [batch, 1, dim]."""
    angle = jnp.pi * weight[:, None, None] / self.max_weight
    angle = angle * jnp.array([0.5, 1.0, 2.0, 4.0])
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    dense = functools.partial(
        nn.Dense, self.dim, precision=blocks.precision(jnp.float32)
    )
    hidden = nn.swish(dense(name='layer_0')(waves))
    return dense(kernel_init=nn.initializers.zeros, name='layer_1')(hidden)


# Name of the kind -> its encoder. Every encoder has a field `dim`.
KINDS = {'labels': LabelEncoder, 'text': TextEncoder}
INJECTIONS = ('embedding', 'output')


class ConditionalUNet(nn.Module):
  """The network that is trained and sampled: the U-Net with its encoder.

  Attributes:
    unet: the U-Net.
    encoder: one of KINDS, None for an unconditional model.
    injection: where the vectors of the encoder are added: to the 'embedding' of
      the log-SNR, as in the paper, or to the 'output' of the U-Net, through a
      learned projection to its channels that starts at zero. The latter is the
      same at all positions of a frame, and zero for the null conditioning.
    context: makes channels of the frames before a next frame; None for a model
      that takes none.
    max_guidance_weight: above 0, the network takes a weight w of classifier-
      free guidance up to it, and predicts what guidance with w gives
      (`training.distill.make_guided_loss`). It then has an encoder.
  """

  unet: unet3d.UNet3D
  encoder: Encoder | None = None
  injection: str = 'embedding'
  context: context_lib.AlignedContext | None = None
  max_guidance_weight: float = 0.0

  def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that condition a clip or an image; {} if unconditional."""
    return {} if self.encoder is None else self.encoder.arrays()

  def condition_of(self, batch: dict[str, Any]) -> dict[str, Any] | None:
    """The arrays of a batch that condition it; None if unconditional."""
    return {name: batch[name] for name in self.arrays()} or None

  def inputs_of(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a batch that the network takes: 'video' and conditioning.

    Args:
      batch: as `data.pipeline` makes it; the conditioning of a clip or image
        may be flat.
    """
    inputs = {'video': batch['video']}
    for name, of_one in self.arrays().items():
      array = np.asarray(batch[name], of_one.dtype)
      inputs[name] = array.reshape(array.shape[:2] + of_one.shape)
    return inputs

  @nn.compact
  def __call__(
      self,
      z: jax.Array,
      logsnr: jax.Array,
      condition: dict[str, jax.Array] | None = None,
      keep: jax.Array | None = None,
      num_images: int = 0,
      train: bool = False,
      previous: context_lib.Previous | None = None,
      guidance_weight: float | jax.Array = 0.0,
  ) -> jax.Array:
    """Predicts from z, the log-SNR and the conditioning.

    Args:
      z: [batch, T + K, height, width, channels].
      logsnr: [batch] or [batch, T + K].
      condition: the arrays of the encoder, by name, each [batch, 1 + K, ...],
        the video's and each image's. None is the null conditioning. Next frames
        take the video's.
      keep: bool [batch]; where False the conditioning is dropped to zero, for
        the video and its images together.
      num_images: K, next frames included.
      train: applies dropout.
      previous: the frames before the last J of the images, which are frames to
        come of the video: next frames. No other frame has a context.
      guidance_weight: w, a number or [batch], of a network with
        max_guidance_weight. Without, w is 0.

    Returns:
      float32 of z's shape.
    """
    channels = vectors = None
    if previous is not None:
      channels = self.context(previous)
      next_frames = channels.shape[1]
      others = z.shape[1] - next_frames
      channels = jnp.pad(channels, ((0, 0), (others, 0), *[(0, 0)] * 3))
    if self.encoder is not None and condition is not None:
      vectors = self.encoder(**condition)
      if keep is not None:
        vectors = jnp.where(keep[:, None, None], vectors, 0.0)
      if previous is not None:
        own = jnp.repeat(vectors[:, :1], next_frames, axis=1)
        vectors = jnp.concatenate([vectors, own], axis=1)
      z, vectors = self.encoder.enter(z, vectors, num_images)
    embedded = vectors if self.injection == 'embedding' else None
    if self.max_guidance_weight:
      weight = jnp.asarray(guidance_weight, jnp.float32)
      guided = GuidanceEmbedding(
          self.encoder.dim, self.max_guidance_weight, name='guidance'
      )(jnp.broadcast_to(weight, z.shape[:1]))
      embedded = guided if embedded is None else embedded + guided
    output = self.unet(
        z, logsnr, embedded, num_images, train, channels
    )
    if vectors is None or self.injection == 'embedding':
      return output
    added = nn.Dense(
        output.shape[-1],
        use_bias=False,
        kernel_init=nn.initializers.zeros,
        precision=blocks.precision(jnp.float32),
        name='to_output',
    )(vectors)
    return output + added[:, :, None, None]
