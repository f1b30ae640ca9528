"""The U-Net of models/unet3d.py in torch, for small recipes, with our weights.

Written as functions of a dict of tensors, whose names are those of our
parameters: a weight is found under one name on both sides. Frames are merged
into the batch, [batch * frames, channels, height, width], in either memory
format. Norms, attention and swish are torch's own fused operations.
"""
import math

import numpy as np

try:
  import torch
  import torch.nn.functional as F
except ImportError:  # the arguments are parsed without it
  torch = F = None

from video_diffusion.models import attention
from video_diffusion.models import conditioning
from video_diffusion.models import unet3d

# What this network is, of the fields that choose one; others are its sizes.
FIXED = {
    'temporal_resolutions': (), 'spacetime_resolutions': (),
    'temporal_input': False, 'emb_layers': 2, 'dropout': 0.0,
    'injection': 'scale_shift', 'position': 'bias', 'patch_size': 1,
    'conv': 'space', 'heads': 'shared', 'remat': (), 'dtype': np.float32,
}


def from_ours(name: str, array: np.ndarray) -> np.ndarray:
  """A parameter of ours, in the layout that torch's functions take.

  Kernels of convolutions are [out, in, 3, 3], all others [out, in].
  """
  if not name.endswith('.kernel'):
    if name.endswith('qkv.bias'):
      array = array.reshape(-1)
  elif array.ndim == 4 and 'qkv' not in name:
    array = array.transpose(3, 2, 0, 1)
  elif 'qkv' in name:
    array = array.reshape(array.shape[0], -1).T
  else:
    array = array.reshape(-1, array.shape[-1]).T
  return np.array(array)  # a copy, which torch may write to


def to_ours(name: str, array: np.ndarray, like: np.ndarray) -> np.ndarray:
  """The inverse of `from_ours`, for an array of the shape of `like`."""
  if array.ndim == 4:
    array = array.transpose(2, 3, 1, 0)
  elif name.endswith('.kernel'):
    array = array.T
  return array.reshape(like.shape)


class Network:
  """z, log-SNR and labels -> a prediction of z's shape."""

  def __init__(
      self,
      model: conditioning.ConditionalUNet,
      *,
      num_images: int,
      channels_last: bool = False,
  ):
    """Takes the sizes of a model of ours.

    Args:
      model: the model.
      num_images: K.
      channels_last: whether activations are in that memory format.

    Raises:
      ValueError: the model has parts that this network does not have.
    """
    unet = model.unet
    other = {
        name: getattr(unet, name) for name, value in FIXED.items()
        if getattr(unet, name) != value
    }
    if other or not isinstance(model.encoder, conditioning.LabelEncoder):
      raise ValueError(f'this network is another one: {other or "no labels"}.')
    self.unet = unet
    self.slots = len(model.encoder.sizes)
    self.num_images = num_images
    self.format = (
        torch.channels_last if channels_last else torch.contiguous_format
    )
    self._buckets = {}

  def __call__(self, p, z, logsnr, labels, keep):
    """Predicts from z, the log-SNR and the labels.

    Args:
      p: the parameters, by name.
      z: [b, f, h, w, c].
      logsnr: [b, f].
      labels: int64 [b, 1 + K, slots], -1 where absent.
      keep: bool [b], False where the labels are dropped.

    Returns:
      Of z's shape.
    """
    unet, k = self.unet, self.num_images
    b, f, h, w, c = z.shape
    levels = len(unet.channel_mults)
    sizes = unet3d.level_sizes(h, w, levels, 1)
    frames = (b, f)
    vectors = 0.0
    for i in range(self.slots):
      slot = labels[..., i]
      rows = F.embedding(slot.clamp(min=0), p[f'encoder.table_{i}'])
      vectors = vectors + rows * (slot >= 0)[..., None]
    vectors = vectors * keep[:, None, None]
    cond = torch.cat(
        [vectors[:, :1].expand(-1, f - k, -1), vectors[:, 1:]], dim=1
    )
    emb = F.silu(self._embedding(p, logsnr, cond).flatten(0, 1))

    def block(name, x, level, resample=None, attend=False):
      features = unet.base_channels * unet.channel_mults[level]
      name = f'unet.{name}.'
      x = self._residual(p, name + 'residual.', x, emb, features, resample)
      if attend:
        x = self._spatial(p, name + 'spatial.', x)
        x = self._temporal(p, name + 'temporal.', x, frames)
      return x

    x = z.flatten(0, 1).permute(0, 3, 1, 2).contiguous(
        memory_format=self.format
    )
    x = self._conv(p, 'unet.conv_in', x)
    skips = [x]
    for level in range(levels):
      attend = sizes[level] in unet.attention_resolutions
      for i in range(unet.num_blocks):
        x = block(f'down_{level}_{i}', x, level, attend=attend)
        skips.append(x)
      if level < levels - 1:
        x = block(f'down_{level}_pool', x, level, 'down')
        skips.append(x)
    x = block('middle_0', x, levels - 1, attend=True)
    x = block('middle_1', x, levels - 1)
    for level in reversed(range(levels)):
      attend = sizes[level] in unet.attention_resolutions
      for i in range(unet.num_blocks + 1):
        x = torch.cat([x, skips.pop()], dim=1)
        x = block(f'up_{level}_{i}', x, level, attend=attend)
      if level > 0:
        x = block(f'up_{level}_unpool', x, level, 'up')
    x = F.silu(self._norm(p, 'unet.norm_out', x))
    x = self._conv(p, 'unet.conv_out', x)
    return x.permute(0, 2, 3, 1).reshape(b, f, h, w, c)

  def _embedding(self, p, logsnr, cond):
    u = torch.arctan(torch.exp(-0.5 * logsnr.clamp(-20, 20))) / (math.pi / 2)
    half = self.unet.base_channels // 2
    place = torch.arange(half, dtype=logsnr.dtype)
    frequency = torch.exp(-math.log(10000.0) * place / (half - 1))
    angle = 1000.0 * u[..., None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
    name = 'unet.embedding.'
    emb = self._dense(p, name + 'layer_0', waves)
    emb = emb + F.linear(cond, p[name + 'cond.kernel'])
    return self._dense(p, name + 'layer_1', F.silu(emb))

  def _residual(self, p, name, x, emb, features, resample):
    change = {
        None: lambda x: x,
        'down': lambda x: F.avg_pool2d(x, 2),
        'up': lambda x: F.interpolate(x, scale_factor=2.0, mode='nearest'),
    }[resample]
    y = F.silu(self._norm(p, name + 'norm_1', x))
    y = self._conv(p, name + 'conv_1', change(y))
    scale, shift = self._dense(p, name + 'emb', emb).chunk(2, dim=1)
    y = self._norm(p, name + 'norm_2', y)
    y = F.silu(y * (1 + scale[..., None, None]) + shift[..., None, None])
    y = self._conv(p, name + 'conv_2', y)
    x = change(x)
    if x.shape[1] != features:
      kernel, bias = p[name + 'shortcut.kernel'], p[name + 'shortcut.bias']
      x = F.conv2d(x, kernel[..., None, None], bias)
    return x + y

  def _spatial(self, p, name, x):
    n, c, h, w = x.shape
    heads = c // self.unet.head_dim
    y = self._norm(p, name + 'norm', x).permute(0, 2, 3, 1)
    qkv = self._dense(p, name + 'qkv', y).view(n, h * w, 3, heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    y = self._dense(p, name + 'out', y.transpose(1, 2).reshape(n, h, w, c))
    return x + y.permute(0, 3, 1, 2)

  def _temporal(self, p, name, x, frames):
    (b, f), (_, c, h, w) = frames, x.shape
    heads, t = c // self.unet.head_dim, f - self.num_images
    y = self._norm(p, name + 'norm', x).permute(0, 2, 3, 1)
    qkv = self._dense(p, name + 'qkv', y).view(b, f, h * w, 3, heads, -1)
    # [3, batch, positions, heads, frames, head_dim]
    q, k, v = qkv[:, :t].permute(3, 0, 2, 4, 1, 5).flatten(1, 2)
    bias = p[name + 'relative_bias'][self._distances(t)].permute(2, 0, 1)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    y = y.view(b, h * w, heads, t, -1).permute(0, 3, 1, 2, 4)
    y = torch.cat([y, qkv[:, t:, :, 2]], dim=1).reshape(b * f, h, w, c)
    return x + self._dense(p, name + 'out', y).permute(0, 3, 1, 2)

  def _distances(self, frames):
    if frames not in self._buckets:
      buckets = attention.relative_buckets(frames)
      self._buckets[frames] = torch.from_numpy(buckets).long()
    return self._buckets[frames]

  def _norm(self, p, name, x):
    c = x.shape[1]
    most = max(1, min(32, c // self.unet.group_size))
    groups = max(g for g in range(1, most + 1) if c % g == 0)
    return F.group_norm(x, groups, p[name + '.scale'], p[name + '.bias'], 1e-6)

  def _conv(self, p, name, x):
    return F.conv2d(x, p[name + '.kernel'], p[name + '.bias'], padding=1)

  def _dense(self, p, name, x):
    return F.linear(x, p[name + '.kernel'], p[name + '.bias'])
