"""The encoder of T5 and T5 1.1 (Raffel et al. 2020, arXiv 1910.10683).

Parameters carry T5X's names and shapes, so that a T5X checkpoint is this tree:
kernels are [in, out] with the heads merged, `relpos_bias` is [heads, buckets].
"""
from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.models import attention
from video_diffusion.parallel import sharding

# By the names of Hugging Face's configs; 'gelu_new' is the tanh approximation,
# which is what T5X calls gelu and what T5 1.1 was trained with.
ACTIVATIONS = {
    'relu': nn.relu,
    'gelu_new': functools.partial(nn.gelu, approximate=True),
    'gelu': functools.partial(nn.gelu, approximate=False),
    'silu': nn.silu,
}


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of an encoder.

  Attributes:
    vocab_size: rows of the embedding table, at least the tokenizer's pieces.
    dim: width D of the tokens.
    num_layers: blocks of attention and MLP.
    num_heads: of the attention.
    head_dim: width of a head; num_heads * head_dim need not be dim.
    mlp_dim: width of the hidden layer.
    gated: T5 1.1's MLP, act(x wi_0) * (x wi_1), else T5's, act(x wi).
    activation: one of ACTIVATIONS.
    num_buckets: of relative positions, shared by all layers.
    max_distance: from which on all positions share a bucket.
    epsilon: of the RMS norms.
  """

  vocab_size: int
  dim: int
  num_layers: int
  num_heads: int
  head_dim: int
  mlp_dim: int
  gated: bool
  activation: str
  num_buckets: int = 32
  max_distance: int = 128
  epsilon: float = 1e-6


class T5Encoder(nn.Module):
  """Token ids -> one vector per token, without dropout.

  Attributes:
    config: sizes.
    dtype: of the activations. T5 was trained in bfloat16 and overflows in
      float16; float32 is exact.
    precision: of the matrix products, a name of jax.default_matmul_precision.
  """

  config: T5Config
  dtype: jnp.dtype = jnp.float32
  precision: str = 'highest'

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Encodes token ids.

    Args:
      ids: int32 [batch, length] in [0, vocab_size).
      mask: bool [batch, length], False at padding, which no token attends to.

    Returns:
      [batch, length, dim]; what stands at padding means nothing.
    """
    config = self.config
    with jax.default_matmul_precision(self.precision):
      x = nn.Embed(
          config.vocab_size, config.dim, dtype=self.dtype, name='token_embedder'
      )(ids)
      return _Stack(config, self.dtype, name='encoder')(x, mask)


class _Stack(nn.Module):
  """Pre-norm residual blocks and a last norm."""

  config: T5Config
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, mask):
    norm = functools.partial(
        nn.RMSNorm, epsilon=self.config.epsilon, dtype=self.dtype
    )
    bias = _RelativeBias(self.config, name='relpos_bias')(x.shape[1])
    for i in range(self.config.num_layers):
      x = _Layer(self.config, self.dtype, name=f'layers_{i}')(x, bias, mask)
    return norm(name='encoder_norm')(x)


class _RelativeBias(nn.Module):
  """Length -> what all layers add to their logits, [1, heads, query, key]."""

  config: T5Config

  @nn.compact
  def __call__(self, length):
    config = self.config
    table = self.param(
        'rel_embedding',
        nn.initializers.normal(1.0),
        (config.num_heads, config.num_buckets),
    )
    return table[None, :, attention.relative_buckets(
        length, config.num_buckets, config.max_distance
    )]


class _Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  config: T5Config
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, bias, mask):
    norm = functools.partial(
        nn.RMSNorm, epsilon=self.config.epsilon, dtype=self.dtype
    )
    y = norm(name='pre_attention_layer_norm')(x)
    x = x + _Attention(self.config, self.dtype, name='attention')(y, bias, mask)
    y = norm(name='pre_mlp_layer_norm')(x)
    return x + _Mlp(self.config, self.dtype, name='mlp')(y)


class _Attention(nn.Module):
  """Self-attention without biases and without the division by sqrt(d)."""

  config: T5Config
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, bias, mask):
    b, n, dim = x.shape
    heads, head_dim = self.config.num_heads, self.config.head_dim
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
    q, k, v = (
        dense(heads * head_dim, name=name)(x).reshape(b, n, heads, head_dim)
        for name in ('query', 'key', 'value')
    )
    # Not attention.attend, which scales and knows no mask: this runs once per
    # caption, and no fused kernel takes float32.
    y = jax.nn.dot_product_attention(
        q, k, v, bias.astype(self.dtype), mask[:, None, None, :], scale=1.0
    )
    return dense(dim, name='out')(y.reshape(b, n, heads * head_dim))


class _Mlp(nn.Module):
  """wo(act(wi x)), or wo(act(wi_0 x) * wi_1 x)."""

  config: T5Config
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x):
    config = self.config
    act = ACTIVATIONS[config.activation]
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)
    if config.gated:
      y = act(dense(config.mlp_dim, name='wi_0')(x))
      y = y * dense(config.mlp_dim, name='wi_1')(x)
    else:
      y = act(dense(config.mlp_dim, name='wi')(x))
    return dense(x.shape[-1], name='wo')(y)


def make_encode(
    config: T5Config, params: Any, dtype: jnp.dtype = jnp.float32
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """(ids, mask) -> float32 [batch, length, dim] in numpy, compiled per shape.

  `EmbeddingCache.fill` takes such a function. The devices of this process share
  the batch, of whatever size, and the large arrays: T5-XXL alone would not fit
  on one.

  Args:
    config: of the encoder.
    params: its parameters; put on the devices once.
    dtype: of the activations and of the parameters on the devices.
  """
  encoder = T5Encoder(config, dtype)
  mesh = sharding.make_mesh(devices=jax.local_devices())
  rows = sharding.batch_sharding(mesh)
  params = jax.device_put(
      jax.tree.map(lambda x: np.asarray(x, dtype), params),
      sharding.shardings(params, mesh),
  )
  apply = jax.jit(encoder.apply, out_shardings=rows)

  def encode(ids, mask):
    pad = ((0, -len(ids) % mesh.size), (0, 0))
    batch = jax.device_put((np.pad(ids, pad), np.pad(mask, pad)), rows)
    return np.asarray(apply({'params': params}, *batch), np.float32)[: len(ids)]

  return encode
