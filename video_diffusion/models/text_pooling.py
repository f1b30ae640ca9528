"""From the tokens of a caption to one vector, by attention pooling."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from video_diffusion.models import attention
from video_diffusion.models import blocks

NUM_HEADS = 8


class TokenTable(nn.Module):
  """Token ids -> learned vectors, of the piece and of its place, summed.

  Pooling alone forgets order: without places 'a red circle, a blue square'
  would be 'a blue circle, a red square'.

  Attributes:
    num_pieces: rows, at least the tokenizer's pieces.
    length: ids of a caption.
    dim: width D of the vectors.
  """

  num_pieces: int
  length: int
  dim: int

  @nn.compact
  def __call__(self, ids: jax.Array) -> jax.Array:
    """int32 [..., length] -> float32 [..., length, dim]."""
    init = nn.initializers.normal(1.0)
    pieces = self.param('pieces', init, (self.num_pieces, self.dim))
    places = self.param('places', init, (self.length, self.dim))
    return pieces[ids] + places


class AttentionPooling(nn.Module):
  """Token vectors -> one vector: attention by a single learned query.

  The paper names attention pooling alone; eight heads, the norms of the tokens
  before it and of their average, and the projection are this project's choice.
  There is no bias, and a caption without a token gives exactly zero, the null
  condition.

  Attributes:
    dim: width of the result, a multiple of the heads.
    dtype: of the matrix products; the softmax is float32.
    num_heads: each with its own part of the query.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32
  num_heads: int = NUM_HEADS

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """tokens [..., length, D], bool mask [..., length] -> float32 [..., dim].

    Tokens are arbitrary where the mask is False.
    """
    # What is masked must be finite: zero times it is not.
    tokens = jnp.where(mask[..., None], tokens.astype(jnp.float32), 0.0)
    tokens = nn.LayerNorm(dtype=self.dtype, name='norm')(tokens)
    heads = (self.num_heads, self.dim // self.num_heads)
    fields = dict(
        use_bias=False,
        dtype=self.dtype,
        precision=blocks.precision(self.dtype),
    )
    key, value = (
        nn.DenseGeneral(heads, name=name, **fields)(tokens)
        for name in ('key', 'value')
    )
    query = self.param('query', nn.initializers.normal(1.0), heads)
    query = jnp.broadcast_to(
        query.astype(self.dtype), mask.shape[:-1] + (1, *heads)
    )
    bias = jnp.where(mask, 0.0, -1e9)[..., None, None, :]
    pooled = attention.attend(query, key, value, bias)[..., 0, :, :]
    # An average of many tokens is small, and of two captions much alike.
    pooled = nn.LayerNorm(use_bias=False, dtype=self.dtype, name='norm_out')(
        pooled.reshape(mask.shape[:-1] + (self.dim,))
    )
    out = nn.Dense(self.dim, name='out', **fields)(pooled)
    return jnp.where(mask.any(-1)[..., None], out.astype(jnp.float32), 0.0)
