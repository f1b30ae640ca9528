"""How exact float32 products are on this device, and which attention it runs.

  python -m benchmarks.precision

Prints a table of relative errors against float64 in numpy: of the last
convolution and its two gradients, and of the sums by bucket of the log-SNR
range, at JAX's default precision and at the one that this project asks for
(`blocks.precision`). Then, of the train step of the networks whose config says
float32, and of a wider one: how far its gradient at either precision lies from
that of the CPU, and milliseconds of a step. Then which attention each size
takes on this device. It needs no data and writes no files.
"""
import contextlib
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases
from benchmarks import timing
from video_diffusion.config import build
from video_diffusion.models import attention
from video_diffusion.models import blocks
from video_diffusion.models import hardware
from video_diffusion.parallel import memory
from video_diffusion.training import state as state_lib
from video_diffusion.training import step as step_lib


def relative(got, want) -> float:
  """|got - want| / |want|, of all numbers together."""
  got, want = (np.asarray(x, np.float64) for x in (got, want))
  return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@contextlib.contextmanager
def default_precision():
  """Products as JAX takes them by itself: TF32 or bfloat16 passes."""
  jax.clear_caches()
  with mock.patch.object(blocks, 'precision', lambda dtype: None):
    yield
  jax.clear_caches()


# ---- Single operations -------------------------------------------------------
def conv_float64(x, kernel):
  """`blocks.conv_3x3` in numpy."""
  h, w = x.shape[1:3]
  x = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(
      x[:, i : i + h, j : j + w] @ kernel[i, j].astype(np.float64)
      for i in range(3) for j in range(3)
  )


def operations():
  """(what, function made anew at each call, arguments, float64 results)."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  x, kernel, g = draw(32, 64, 64, 128), draw(3, 3, 128, 3), draw(32, 64, 64, 3)

  def conv():
    def run(x, kernel, g):
      y, back = jax.vjp(blocks.conv_3x3, x, kernel)
      return y, *back(g)

    return run

  padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  flat = g.reshape(-1, 3).astype(np.float64)
  grad_kernel = np.array([
      [padded[:, i : i + 64, j : j + 64].reshape(-1, 128).T @ flat
       for j in range(3)] for i in range(3)
  ])
  grad_x = conv_float64(g, np.flip(kernel, (0, 1)).swapaxes(2, 3))
  wants = conv_float64(x, kernel), grad_x, grad_kernel
  names = [f'last convolution, {part}' for part in (
      'output', 'gradient of its input', 'gradient of its kernel')]
  yield names, conv, (x, kernel, g), wants

  losses = np.abs(draw(256, 24))
  bucket = np.eye(4, dtype=np.float32)[rng.integers(0, 4, (256, 24))]
  want = np.einsum('bf,bfq->q', losses.astype(np.float64), bucket)

  def sums():
    return lambda a, b: (jnp.einsum(
        'bf,bfq->q', a, b, precision=blocks.precision(jnp.float32)),)

  yield ['sums by bucket'], sums, (losses, bucket), (want,)


def operation_rows():
  """The table of single operations."""
  rows = []
  for names, make, args, wants in operations():
    found = {}
    for which, context in (
        ('default', default_precision()), ('ours', contextlib.nullcontext())
    ):
      with context:
        run = jax.jit(make())
        found[which] = jax.device_get(run(*args))
        seconds = timing.windows(
            lambda n, run=run, args=args: [
                jax.block_until_ready(run(*args)) for _ in range(n)
            ],
            warmup=3,
            each=5,
        )
        found[f'{which} ms'] = round(1e3 * sorted(seconds)[1], 3)
    for i, (name, want) in enumerate(zip(names, wants, strict=True)):
      rows.append({
          'case': name,
          'default': f'{relative(found["default"][i], want):.1e}',
          'ours': f'{relative(found["ours"][i], want):.1e}',
          'default_ms': found['default ms'],
          'ours_ms': found['ours ms'],
      })
  return rows


# ---- Whole train steps -------------------------------------------------------
def networks():
  """(name, config) of networks that are trained without data on disk."""
  small = cases.load_config('moving_shapes')
  small.batch_size = 32
  yield 'moving_shapes, float32, batch 32', small
  wide = cases.load_config('moving_shapes', 'accelerator')
  wide.batch_size = 4
  wide.model.dtype = 'float32'
  yield 'moving_shapes:accelerator in float32, batch 4', wide
  wide = wide.copy_and_resolve_references()
  wide.model.dtype = 'bfloat16'
  yield 'moving_shapes:accelerator, bfloat16, batch 4', wide


def gradient(config, params, batch):
  """(jitted loss and gradient of a config, anew; its arguments)."""
  model = build.make_model(config, (3, 3, 4))
  draw_noise, loss_fn = step_lib.make_loss(
      model,
      num_images=config.data.images,
      prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config),
      train=True,
  )

  def run(params, batch):
    key = jax.random.key(0)
    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        params, draw_noise(key, batch), key
    )
    return loss, metrics['bucket_sum'], grads

  return jax.jit(run), (params, batch)


def inputs(config):
  """Random parameters with nothing at zero, and a random batch."""
  rng = np.random.default_rng(0)
  model = build.make_model(config, (3, 3, 4))
  shapes = build.batch_shapes(config, model)
  abstract = jax.eval_shape(
      lambda: state_lib.init_params(
          model, shapes, num_images=config.data.images, seed=0
      )
  )

  def fill(path, leaf):
    fan_in = max(1, int(np.prod(leaf.shape[:-1])))
    scale = 1 / np.sqrt(fan_in) if len(leaf.shape) > 1 else 0.1
    one = 'scale' in jax.tree_util.keystr(path)
    value = scale * rng.standard_normal(leaf.shape) + one
    return value.astype(np.float32)

  params = jax.tree_util.tree_map_with_path(fill, abstract)
  batch = {
      name: rng.integers(0, 3 if name == 'labels' else 256, s.shape)
      .astype(s.dtype)
      for name, s in shapes.items()
  }
  return params, batch


def flat(tree):
  """All numbers of a tree as one array."""
  leaves = jax.tree.leaves(jax.device_get(tree))
  return np.concatenate([np.ravel(x).astype(np.float64) for x in leaves])


def network_rows():
  """The table of whole gradients; the truth is float32 on the CPU."""
  rows = []
  for name, config in networks():
    params, batch = inputs(config)
    exact = config.copy_and_resolve_references()
    exact.model.dtype = 'float32'
    began = time.perf_counter()
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      run, args = gradient(exact, params, batch)
      _, sums, want = jax.device_get(run(*args))
    print(f'{name}: CPU {time.perf_counter() - began:.0f} s', flush=True)
    row = {'case': name}
    for which, context in (
        ('default', default_precision()), ('ours', contextlib.nullcontext())
    ):
      with context:
        run, args = gradient(config, params, batch)
        args = jax.device_put(args)
        _, got_sums, got = run(*args)
        row[which] = f'{relative(flat(got), flat(want)):.1e}'
        row[f'{which}_sums'] = f'{relative(got_sums, sums):.1e}'
        seconds = timing.windows(
            lambda n, run=run, args=args: [
                jax.block_until_ready(run(*args)) for _ in range(n)
            ],
            warmup=3,
            each=5,
        )
        row[f'{which}_ms'] = round(1e3 * sorted(seconds)[1], 2)
    rows.append(row)
  return rows


# ---- Attention ---------------------------------------------------------------
def attention_rows():
  """Which attention each size takes here, and its error against float32."""
  rows = []
  rng = np.random.default_rng(0)
  for frames, side, heads, head_dim in (
      (16, 32, 8, 64), (16, 8, 32, 64), (8, 8, 1, 32), (9, 32, 4, 128),
      (16, 16, 1, 20), (12, 16, 2, 64),
  ):
    n = side * side
    draw = lambda *shape: jnp.asarray(
        rng.standard_normal(shape), jnp.bfloat16
    )
    qkv = draw(1, frames, n, 3, heads, head_dim)
    bias = jnp.asarray(
        rng.standard_normal((heads, frames, frames)), jnp.float32
    )
    q, k, v = (qkv[0, :, :, i] for i in range(3))
    wide = qkv.astype(jnp.float32)
    found = {
        'space': (
            attention.takes_cudnn(q.shape, q.dtype),
            relative(
                jax.jit(attention.attend)(q, k, v),
                jax.jit(attention.attend)(*(
                    x.astype(jnp.float32) for x in (q, k, v)
                )),
            ),
        ),
        'frames': (
            attention.takes_kernel(qkv.shape, qkv.dtype),
            relative(
                jax.jit(attention.attend_frames)(qkv, bias),
                jax.jit(attention.attend_frames)(wide, bias),
            ),
        ),
    }
    words = {
        'space': ('plain', 'cuDNN'), 'frames': ('plain', 'kernel')
    }
    rows.append({'case': f'{frames} frames, {side}x{side}, {heads} heads of '
                 f'{head_dim}'} | {
        key: f'{words[key][fused]}, {error:.1e}'
        for key, (fused, error) in found.items()
    })
  return rows


def main():
  device = jax.devices()[0]
  print(
      'python -m benchmarks.precision\n'
      f'{timing.today()}, {device.device_kind}, jax {jax.__version__}, '
      f'compute capability {hardware.capability(device)}, memory '
      f'{memory.gib(memory.limit() or 0)}', flush=True,
  )
  print(hardware.shortcoming(jnp.bfloat16))
  timing.print_table(operation_rows(), {
      'relative error': 'case', 'default': 'default', 'ours': 'ours',
      'default ms': 'default_ms', 'ours ms': 'ours_ms',
  })
  timing.print_table(attention_rows(), {
      'bfloat16 attention': 'case', 'over space': 'space',
      'over frames': 'frames',
  })
  timing.print_table(network_rows(), {
      'gradient against float32 on the CPU': 'case', 'default': 'default',
      'ours': 'ours', 'buckets, default': 'default_sums',
      'buckets, ours': 'ours_sums', 'default ms': 'default_ms',
      'ours ms': 'ours_ms',
  })


if __name__ == '__main__':
  main()
