"""Convolutions over space and time of the networks that score videos.

Those of the U-Net are in `blocks`.
"""
import functools

import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """A convolution over frames, rows and columns, padded as SAME.

  On CPUs it is the sum of one convolution of frames for each step in time of
  the kernel, the same up to rounding: XLA's CPU compiler takes 2 to 2.7 times
  as long for three axes at once.

  Args:
    x: [n, frames, height, width, in].
    kernel: [window, window, window, in, out].
    stride: the same on all three axes.

  Returns:
    [n, frames / stride, height / stride, width / stride, out], rounded up.
  """
  return jax.lax.platform_dependent(
      x, kernel,
      cpu=functools.partial(by_frames, stride=stride),
      default=functools.partial(whole, stride=stride),
  )


def whole(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """`convolve` as one convolution."""
  return jax.lax.conv_general_dilated(
      x, kernel, (stride,) * 3, 'SAME',
      dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
  )


def by_frames(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """`convolve` as a sum of convolutions of frames."""
  n, t, *_ = x.shape
  window, count = kernel.shape[0], -(-t // stride)
  reach = (count - 1) * stride + 1  # frames from the first to the last result
  pad = max(reach - 1 + window - t, 0)
  x = jnp.pad(x, ((0, 0), (pad // 2, pad - pad // 2), *[(0, 0)] * 3))
  y = sum(
      jax.lax.conv_general_dilated(
          x[:, i : i + reach : stride].reshape(-1, *x.shape[2:]),
          kernel[i], (stride,) * 2, 'SAME',
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
      for i in range(window)
  )
  return y.reshape(n, count, *y.shape[1:])
