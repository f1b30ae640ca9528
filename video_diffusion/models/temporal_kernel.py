"""Attention over a few frames at many positions, as one kernel on NVIDIA GPUs.

A sequence of 16 frames fills a quarter of the smallest tile that the tensor
cores like, and the general path copies queries, keys and values to bring the
heads forward. Here a tile holds the frames of several neighbouring positions,
read where the projection wrote them; what a frame may not see, the other
positions of its tile, is masked by the bias.
"""
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

TILE = 64  # rows of a tile: frames x positions
MAX_TILES = 16  # of one program


def fits(num_frames: int, positions: int, head_dim: int) -> bool:
  """Whether the kernel can do it: sizes of its tiles are powers of two."""
  return (
      num_frames in (4, 8, 16, 32)
      and positions % (TILE // num_frames) == 0
      and head_dim in (16, 32, 64, 128)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend(
    qkv: jax.Array, bias: jax.Array, interpret: bool = False
) -> jax.Array:
  """softmax(q k / sqrt(d) + bias) v over the frames of each position.

  Args:
    qkv: [batch, frames, positions, 3, heads, head_dim].
    bias: float32 [heads, frames, frames], query by key.
    interpret: run the kernel in plain JAX, for tests.

  Returns:
    [batch, frames, positions, heads, head_dim], of qkv's dtype.
  """
  return _forward(qkv, _tile_bias(bias), interpret)


def _attend_fwd(qkv, bias, interpret):
  return attend(qkv, bias, interpret), (qkv, bias)


def _attend_bwd(interpret, residuals, grad):
  qkv, bias = residuals
  heads, t, _ = bias.shape
  dqkv, dtile = _backward(qkv, _tile_bias(bias), grad, interpret)
  p = TILE // t
  # Only entries of one position with itself are logits.
  dtile = dtile.sum(axis=(0, 1)).reshape(heads, t, p, t, p)
  return dqkv, jnp.einsum('htpsp->hts', dtile)


attend.defvjp(_attend_fwd, _attend_bwd)


def _tile_bias(bias):
  """[heads, t, t] -> [heads, TILE, TILE], rows (frame, position) of a tile."""
  heads, t, _ = bias.shape
  p = TILE // t
  same = np.eye(p, dtype=bool)[None, None, :, None, :]
  tile = jnp.where(same, bias[:, :, None, :, None], -1e30)
  return tile.reshape(heads, TILE, TILE)


def _load(ref, rows):
  """The rows of one tile, [TILE, head_dim]."""
  x = ref[:, rows, :]
  return x.reshape(TILE, x.shape[-1])


def _dot(a, b, axes=(1, 0)):
  """The product of two tiles, summed over these axes of them, in float32."""
  contracted = tuple((axis,) for axis in axes)
  return jax.lax.dot_general(
      a, b, (contracted, ((), ())), preferred_element_type=jnp.float32
  )


def _weights(q, k, bias):
  logits = _dot(q, k, axes=(1, 1)) / math.sqrt(q.shape[-1]) + bias
  weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
  return weights / jnp.sum(weights, axis=1, keepdims=True)


def _forward_kernel(q_ref, k_ref, v_ref, bias_ref, out_ref, *, p, tiles):
  from jax.experimental import pallas as pl

  bias = bias_ref[...]

  def body(i, _):
    rows = pl.ds(i * p, p)
    v = _load(v_ref, rows)
    weights = _weights(_load(q_ref, rows), _load(k_ref, rows), bias)
    out = _dot(weights.astype(v.dtype), v)
    out = out.astype(out_ref.dtype).reshape(TILE // p, p, v.shape[-1])
    out_ref[:, rows, :] = out

  jax.lax.fori_loop(0, tiles, body, None)


def _backward_kernel(
    q_ref, k_ref, v_ref, bias_ref, grad_ref, dqkv_ref, dbias_ref, *, p, tiles
):
  from jax.experimental import pallas as pl

  bias = bias_ref[...]

  def body(i, dbias):
    rows = pl.ds(i * p, p)
    q, k, v, grad = (_load(r, rows) for r in (q_ref, k_ref, v_ref, grad_ref))
    weights = _weights(q, k, bias)
    dweights = _dot(grad, v, axes=(1, 1))
    inner = jnp.sum(dweights * weights, axis=1, keepdims=True)
    dlogits = weights * (dweights - inner)
    low = (dlogits / math.sqrt(q.shape[-1])).astype(q.dtype)
    for j, value in enumerate((
        _dot(low, k),
        _dot(low, q, axes=(0, 0)),
        _dot(weights.astype(q.dtype), grad, axes=(0, 0)),
    )):
      value = value.astype(dqkv_ref.dtype)
      dqkv_ref[:, rows, j, :] = value.reshape(TILE // p, p, q.shape[-1])
    return dbias + dlogits

  zero = jnp.zeros((TILE, TILE), jnp.float32)
  dbias_ref[...] = jax.lax.fori_loop(0, tiles, body, zero)


def _specs(qkv):
  """(grid, specs of q, k, v, of the bias, of what is like v, tile sizes)."""
  from jax.experimental import pallas as pl

  b, t, n, _, heads, d = qkv.shape
  p = TILE // t
  tiles = math.gcd(n // p, MAX_TILES)
  width = p * tiles
  part = lambda which: pl.BlockSpec(
      (None, t, width, None, None, d),
      lambda i, j, h: (i, 0, j, which, h, 0),
  )
  bias = pl.BlockSpec((None, TILE, TILE), lambda i, j, h: (h, 0, 0))
  value = pl.BlockSpec(
      (None, t, width, None, d), lambda i, j, h: (i, 0, j, h, 0)
  )
  grid = (b, n // width, heads)
  return grid, [part(0), part(1), part(2), bias], value, dict(p=p, tiles=tiles)


def _call(kernel, **fields):
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton

  params = triton.CompilerParams(num_warps=4, num_stages=2)
  return pl.pallas_call(kernel, compiler_params=params, **fields)


def _forward(qkv, tile_bias, interpret):
  grid, inputs, value, sizes = _specs(qkv)
  b, t, n, _, heads, d = qkv.shape
  return _call(
      functools.partial(_forward_kernel, **sizes),
      grid=grid,
      in_specs=inputs,
      out_specs=value,
      out_shape=jax.ShapeDtypeStruct((b, t, n, heads, d), qkv.dtype),
      interpret=interpret,
      name='temporal_attention',
  )(qkv, qkv, qkv, tile_bias)


def _backward(qkv, tile_bias, grad, interpret):
  from jax.experimental import pallas as pl

  grid, inputs, value, sizes = _specs(qkv)
  _, t, _, _, heads, d = qkv.shape
  width = sizes['p'] * sizes['tiles']
  return _call(
      functools.partial(_backward_kernel, **sizes),
      grid=grid,
      in_specs=[*inputs, value],
      out_specs=[
          pl.BlockSpec(
              (None, t, width, 3, None, d),
              lambda i, j, h: (i, 0, j, 0, h, 0),
          ),
          # One partial sum a program, added outside: atomics would make the
          # last digits, and so a resumed run, differ from run to run.
          pl.BlockSpec(
              (None, None, None, TILE, TILE),
              lambda i, j, h: (i, j, h, 0, 0),
          ),
      ],
      out_shape=[
          jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
          jax.ShapeDtypeStruct((*grid, TILE, TILE), jnp.float32),
      ],
      interpret=interpret,
      name='temporal_attention_backward',
  )(qkv, qkv, qkv, tile_bias, grad.astype(qkv.dtype))
