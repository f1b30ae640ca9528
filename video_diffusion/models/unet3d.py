"""The paper's 3D U-Net, factorised over space and time (section 3)."""
import flax.linen as nn
import jax
import jax.numpy as jnp

from video_diffusion.models import attention
from video_diffusion.models import blocks
from video_diffusion.parallel import sharding

HEADS = ('shared', 'separate')


class Block(nn.Module):
  """A residual block, then spatial and temporal attention where wanted."""

  features: int
  resample: str
  attend_space: bool
  attend_time: bool
  spacetime: bool
  head_dim: int
  injection: str
  position: str
  position_stddev: float
  dropout: float
  dtype: jnp.dtype
  group_size: int = 1
  conv: str = 'space'

  @nn.compact
  def __call__(
      self, x: jax.Array, emb: jax.Array, num_images: int, train: bool
  ) -> jax.Array:
    x = blocks.ResidualBlock(
        self.features,
        self.resample,
        self.injection,
        self.dropout,
        self.dtype,
        self.group_size,
        self.conv,
        name='residual',
    )(x, emb, train, num_images)
    if self.attend_space:
      x = attention.SpatialAttention(
          self.head_dim,
          self.dtype,
          self.group_size,
          self.spacetime,
          name='spatial',
      )(x, num_images)
    if self.attend_time:
      x = attention.TemporalAttention(
          self.head_dim,
          self.dtype,
          self.position,
          self.position_stddev,
          group_size=self.group_size,
          name='temporal',
      )(x, num_images)
    return sharding.constrain_batch(x)


def level_sizes(
    height: int, width: int, levels: int, patch_size: int
) -> list[int]:
  """The shorter side of the feature map at each level of the U-Net."""
  return [min(height, width) // (patch_size * 2**i) for i in range(levels)]


def to_patches(x: jax.Array, size: int) -> jax.Array:
  """[b, f, h, w, c] -> [b, f, h / size, w / size, size * size * c]."""
  b, f, h, w, c = x.shape
  x = x.reshape(b, f, h // size, size, w // size, size, c)
  x = x.transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(b, f, h // size, w // size, size * size * c)


def from_patches(x: jax.Array, size: int) -> jax.Array:
  """The inverse of `to_patches`."""
  b, f, h, w, c = x.shape
  x = x.reshape(b, f, h, w, size, size, c // size**2)
  x = x.transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(b, f, h * size, w * size, c // size**2)


class UNet3D(nn.Module):
  """z_t, log-SNR and condition -> a prediction of z's shape.

  In the paper convolutions see space alone; time is mixed by temporal attention
  alone, at the attention resolutions and in the middle. No parameter depends on
  the number of frames T or of appended images K, so one set serves any.

  Attributes:
    base_channels: channels after the first convolution.
    channel_mults: channels per level, in units of base_channels.
    num_blocks: residual blocks per level (one more on the way up).
    attention_resolutions: feature-map sides that carry attention, over space
      and then over frames.
    temporal_resolutions: further sides that carry attention over frames alone,
      which costs little where attention over space would not fit (this
      project's choice).
    spacetime_resolutions: sides whose attention over space sees all frames of
      the video at once (`attention.SpatialAttention`).
    temporal_input: whether frames attend to each other once more, after the
      first convolution (this project's choice).
    head_dim: channels per attention head.
    emb_dim: width of the embedding vector and its MLP.
    emb_layers: layers of that MLP.
    dropout: rate inside residual blocks, in training.
    injection: how the embedding enters a block, 'add' or 'scale_shift'.
    position: how attention over frames knows their distance, one of
      `attention.POSITIONS`.
    position_stddev: of what it learns of each distance, at the start.
    group_size: smallest number of channels that a norm takes together.
    patch_size: side of the square of pixels that the first convolution takes,
      and the last gives, as the channels of one position. It is 1 in the paper.
    conv: what all convolutions are, a name of `blocks.CONVS`: 'space', as in
      the paper, or 'full_3d', over the frames of the video too.
    heads: 'shared', as in the paper, or 'separate', where the last norm and the
      last convolution of images are not those of the video.
    dtype: of convolutions and matrix products; parameters, norm statistics,
      softmax and the last layer stay float32. Products of float32 numbers are
      exact to float32 on every device (`blocks.precision`).
    remat: feature-map sides whose blocks are recomputed in the backward pass
      instead of kept.
  """

  base_channels: int
  channel_mults: tuple[int, ...]
  num_blocks: int
  attention_resolutions: tuple[int, ...]
  temporal_resolutions: tuple[int, ...] = ()
  spacetime_resolutions: tuple[int, ...] = ()
  temporal_input: bool = False
  head_dim: int = 64
  emb_dim: int = 1024
  emb_layers: int = 2
  dropout: float = 0.0
  injection: str = 'add'
  position: str = 'bias'
  position_stddev: float = 0.0
  group_size: int = 1
  patch_size: int = 1
  conv: str = 'space'
  heads: str = 'shared'
  dtype: jnp.dtype = jnp.float32
  remat: tuple[int, ...] = ()

  @nn.compact
  def __call__(
      self,
      z: jax.Array,
      logsnr: jax.Array,
      cond: jax.Array | None = None,
      num_images: int = 0,
      train: bool = False,
      channels: jax.Array | None = None,
  ) -> jax.Array:
    """Predicts eps, v or x, whichever it was trained for.

    Args:
      z: [batch, T + K, height, width, channels].
      logsnr: [batch] or [batch, T + K].
      cond: [batch, D] or [batch, T + K, D]; None or zeros is no condition.
      num_images: K; the last K frames are independent images.
      train: applies dropout, which draws from the 'dropout' stream.
      channels: [batch, T + K, height, width, any], a condition of each frame
        that enters beside z, by the first convolution (this project's choice;
        no model of the paper has one). None or zeros is no condition.

    Returns:
      float32 of z's shape.
    """
    b, f, h, w, c = z.shape
    levels, patch = len(self.channel_mults), self.patch_size
    sizes = level_sizes(h, w, levels, patch)
    factor = patch * 2 ** (levels - 1)
    assert h % factor == 0 and w % factor == 0, (h, w, factor)
    # Per-video values get a frame axis of one, which broadcasts.
    logsnr = logsnr.reshape(b, -1)
    if cond is not None:
      cond = cond.reshape(b, -1, cond.shape[-1])
    emb = blocks.Embedding(
        self.base_channels, self.emb_dim, self.emb_layers, self.dtype,
        name='embedding',
    )(logsnr, cond)
    # static_argnums: num_images and train steer Python, counted with self as 0.
    remat_block = nn.remat(Block, static_argnums=(3, 4))

    def block(name, x, level, resample='none', attend=None):
      wanted = lambda sides: sizes[level] in sides if attend is None else attend
      attend_space = wanted(self.attention_resolutions)
      attend_time = attend_space or wanted(self.temporal_resolutions)
      block_cls = remat_block if sizes[level] in self.remat else Block
      return block_cls(
          self.base_channels * self.channel_mults[level],
          resample,
          attend_space,
          attend_time,
          sizes[level] in self.spacetime_resolutions,
          self.head_dim,
          self.injection,
          self.position,
          self.position_stddev,
          self.dropout,
          self.dtype,
          self.group_size,
          self.conv,
          name=name,
      )(x, emb, num_images, train)

    patches = lambda x: to_patches(x, patch) if patch > 1 else x
    conv = blocks.CONVS[self.conv]
    x = conv(self.base_channels, self.dtype, name='conv_in')(
        patches(z), num_images
    )
    if channels is not None:
      # The sum is the convolution of z and the channels together. A network
      # that was trained without them begins as it was.
      x = x + conv(
          self.base_channels, self.dtype, zero=True, use_bias=False,
          name='conv_channels',
      )(patches(channels), num_images)
    if self.temporal_input:
      x = attention.TemporalAttention(
          min(self.head_dim, self.base_channels),
          self.dtype,
          self.position,
          self.position_stddev,
          group_size=self.group_size,
          name='temporal_in',
      )(x, num_images)
    x = sharding.constrain_batch(x)
    skips = [x]
    for level in range(levels):
      for i in range(self.num_blocks):
        x = block(f'down_{level}_{i}', x, level)
        skips.append(x)
      if level < levels - 1:
        x = block(f'down_{level}_pool', x, level, 'down', attend=False)
        skips.append(x)
    x = block('middle_0', x, levels - 1, attend=True)
    x = block('middle_1', x, levels - 1, attend=False)
    for level in reversed(range(levels)):
      for i in range(self.num_blocks + 1):
        x = jnp.concatenate([x, skips.pop()], axis=-1)
        x = block(f'up_{level}_{i}', x, level)
      if level > 0:
        x = block(f'up_{level}_unpool', x, level, 'up', attend=False)
    assert not skips

    def head(x, num_images, suffix=''):
      norm = blocks.GroupNorm(
          jnp.float32, self.group_size, name=f'norm_out{suffix}'
      )
      return conv(
          c * patch**2, jnp.float32, zero=True, name=f'conv_out{suffix}'
      )(nn.swish(norm(x)), num_images)

    if self.heads == 'separate' and num_images == f:
      x = head(x, num_images, '_images')
    elif self.heads == 'separate' and num_images:
      video, images = x[:, : f - num_images], x[:, f - num_images :]
      images = head(images, num_images, '_images')
      x = jnp.concatenate([head(video, 0), images], axis=1)
    else:
      x = head(x, num_images)
    return from_patches(x, patch) if patch > 1 else x
