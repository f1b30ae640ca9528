"""The speed of every sampler, with and without guidance.

  python -m benchmarks.sampler [--case base64] [--batches 16,1] [--rows 24]
      [--minutes 8] [--steps 16]

Each row is the jitted sampler of `--mode=sample` (`inference.block_sampler`),
bfloat16 compute, random weights: one batch to warm up, then three, each ended
by a wait. The figures are the median of these divided by the network calls and
by the steps; they thus hold the sampler's own arithmetic and the first noise as
well. Every step denoises once; the Langevin corrector once more in every step
but the last; classifier-free guidance calls the network twice, with labels and
without; reconstruction guidance, of half of the frames, calls it forward and
backward, which counts as one call here. TFLOP/s are of the network alone. The
peak is the program's arguments (the weights), results and scratch, as compiled.

Rows come in order of importance, each as JSON as soon as it is measured; none
is begun that may end after --minutes, by the longest row so far. On one GPU
about 8 minutes, nearly all of them compilation. `--case smoke` runs on a CPU.
"""
import argparse
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases
from benchmarks import timing
from video_diffusion.config import build
from video_diffusion.diffusion import guidance
from video_diffusion.inference import block_sampler
from video_diffusion.inference import denoiser
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import state as state_lib

# Name -> fields of config.sample.
SAMPLERS = {
    'ancestral': {'sampler': 'ancestral', 'corrector_delta': 0.0},
    'ancestral + corrector': {'sampler': 'ancestral', 'corrector_delta': 0.1},
    'ddim': {'sampler': 'ddim', 'corrector_delta': 0.0},
    'dpmpp_2m': {'sampler': 'dpmpp_2m', 'corrector_delta': 0.0},
}
GUIDANCE = {
    'none': {'guidance_weight': 0.0, 'reconstruction_weight': 0.0},
    'classifier-free': {'guidance_weight': 2.0, 'reconstruction_weight': 0.0},
    'reconstruction': {'guidance_weight': 0.0, 'reconstruction_weight': 9.0},
}
# The labels' width as in configs/moving_shapes.py, Kinetics-600's classes.
COND_DIM, CLASSES = 64, 600
COLUMNS = {
    'sampler': 'sampler',
    'guidance': 'guidance',
    'batch': 'batch',
    'calls': 'calls',
    'ms a call': 'ms',
    'ms a step': 'ms_per_step',
    'clips/s': 'clips_per_second',
    'TFLOP/s': 'tflops_per_second',
    'share of 790': 'share_of_790',
    'peak GiB': 'peak_gib',
    'compile s': 'compile_seconds',
}


def ordered(batches) -> list[tuple[str, str, int]]:
  """(sampler, guidance, batch) of every row, the most important first."""
  first = [(sampler, 'none') for sampler in SAMPLERS]
  first += [('ancestral', guided) for guided in GUIDANCE if guided != 'none']
  rest = [(s, g) for g in GUIDANCE for s in SAMPLERS if (s, g) not in first]
  return [(*row, b) for rows in (first, rest) for b in batches for row in rows]


def network_calls(options) -> int:
  """Calls of the network in one draw, by the fields of config.sample."""
  denoised = options.num_steps
  if options.corrector_delta:
    denoised += options.num_steps - 1
  return denoised * (2 if options.guidance_weight else 1)


def call_flops(config, model, params, guided: str) -> float:
  """FLOPs of one call for one clip; under reconstruction with its backward."""
  data = config.data
  z = jnp.zeros((1, data.frames, data.height, data.width, 3))
  mask = np.arange(data.frames)[None] < data.frames // 2

  def call(params, z, logsnr):
    denoise_fn = denoiser.make_denoise_fn(
        model, params, None, prediction=config.diffusion.prediction
    )
    if guided == 'reconstruction':
      denoise_fn = guidance.reconstruction(
          denoise_fn, known=z, known_mask=mask, weight=1.0
      )
    return denoise_fn(z, logsnr)

  return compile_lib.lowered_flops(call, params, z, jnp.zeros(1))


def make_weights(config, model, mesh):
  """Random weights of the case's model, split as config.mesh says."""
  shapes = build.batch_shapes(config, model)
  init = lambda: state_lib.init_params(
      model, shapes, num_images=config.data.images, seed=0
  )
  return cases.random_tree(
      sharding.abstract(jax.eval_shape(init), mesh, config.mesh.min_sharded)
  )


def make_inputs(config, mesh, guided: str) -> dict:
  """Returns what a draw takes after the weights, by name, on a mesh."""
  data, batch = config.data, config.sample.batch_size
  rows = sharding.batch_sharding(mesh)
  inputs = {'key': jax.random.key(0), 'condition': None}
  if guided == 'classifier-free':
    labels = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    inputs['condition'] = {'labels': jax.device_put(labels, rows)}
  if guided == 'reconstruction':
    shape = (batch, data.frames, data.height, data.width, 3)
    known = jax.random.uniform(jax.random.key(1), shape, minval=-1.0)
    inputs['known'] = jax.device_put(known, rows)
    inputs['known_mask'] = jnp.arange(data.frames)[None] < data.frames // 2
  return inputs


class Draw(NamedTuple):
  """A compiled sampler with what it takes; a call gives x.

  Attributes:
    config: its sample fields are those of the sampler.
    mesh: all devices.
    params: weights of the network.
    inputs: from `make_inputs`.
    compiled: the sampler.
    compile_seconds: what its compilation took.
  """

  config: Any
  mesh: jax.sharding.Mesh
  params: Any
  inputs: dict
  compiled: jax.stages.Compiled
  compile_seconds: float

  def __call__(self) -> jax.Array:
    """x: float32 [batch, frames, height, width, 3] in [-1, 1]."""
    return self.compiled(self.params, **self.inputs)


def make_config(case: str, steps: int):
  """The config of a case, with labels, and so many steps of a sampler."""
  config = cases.case_config(case)
  config.model.cond_dim = COND_DIM
  config.sample.num_steps = steps
  return config


def compile_draw(config, model, params, mesh, guided: str) -> Draw:
  """Compiles the sampler of config.sample; `guided` is one of GUIDANCE."""
  inputs = make_inputs(config, mesh, guided)
  data = config.data
  sampler = block_sampler.make_block_sampler(
      model,
      build.sampling_settings(config),
      shape=(config.sample.batch_size, data.frames, data.height, data.width,
             3),
      prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config),
      mesh=mesh,
  )
  began = time.perf_counter()
  with jax.set_mesh(mesh):
    compiled = sampler.lower(params, **inputs).compile()
  seconds = time.perf_counter() - began
  return Draw(config, mesh, params, inputs, compiled, seconds)


def measure(draw: Draw, flops: float) -> dict:
  """One row of the table; flops are of a network call for one clip.

  Raises:
    FloatingPointError: a draw is not finite, and its speed means nothing.
  """
  x = None

  def run(n):
    nonlocal x
    for _ in range(n):
      x = draw()
    jax.block_until_ready(x)

  seconds = timing.windows(run, warmup=1, each=1)
  if not np.isfinite(x).all():
    raise FloatingPointError('the draw holds numbers that are not finite')
  options = draw.config.sample
  batch, calls = options.batch_size, network_calls(options)
  a_call = timing.rates(
      [s / calls for s in seconds], batch=batch, flops=batch * flops,
      devices=draw.mesh.size,
  )
  draw_seconds = float(np.median(seconds))
  return {
      'parameters': state_lib.tree_size(draw.params),
      'batch': batch,
      'frames': draw.config.data.frames,
      'steps': options.num_steps,
      'calls': calls,
      **a_call,
      'ms_per_step': round(1e3 * draw_seconds / options.num_steps, 2),
      # Finished clips, at this number of steps.
      'clips_per_second': round(batch / draw_seconds, 2),
      'peak_gib': timing.gib(memory.program_bytes(draw.compiled)),
      'compile_seconds': round(draw.compile_seconds, 1),
      'devices': f'{draw.mesh.size} x {draw.mesh.devices.flat[0].device_kind}',
      'mesh': dict(draw.mesh.shape),
      'software': f'jax {jax.__version__}',
      'date': timing.today(),
  }


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the rows and at last their table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--case', choices=cases.CASES, default='base64')
  parser.add_argument(
      '--batches', type=lambda text: [int(b) for b in text.split(',')],
      default=[16, 1],
  )
  parser.add_argument('--rows', type=int, help='the first so many; or all')
  parser.add_argument('--minutes', type=float, default=8.0)
  parser.add_argument('--steps', type=int, default=16, help='of a draw')
  args = parser.parse_args(argv)
  began = time.perf_counter()
  config = make_config(args.case, args.steps)
  model = build.make_model(config, (CLASSES,))
  mesh = cases.make_mesh(1)
  params = make_weights(config, model, mesh)
  flops = functools.cache(lambda guided: call_flops(
      config, model, params, guided
  ))
  rows, longest = [], 0.0
  wanted = ordered(args.batches)[: args.rows]
  for sampler, guided, batch in wanted:
    start = time.perf_counter()
    if start - began + longest > 60 * args.minutes:
      print(f'{len(wanted) - len(rows)} rows are left out: --minutes.')
      break
    config.sample.update(
        batch_size=batch, **SAMPLERS[sampler], **GUIDANCE[guided]
    )
    row = {'case': args.case, 'sampler': sampler, 'guidance': guided}
    draw = compile_draw(config, model, params, mesh, guided)
    row |= measure(draw, flops(guided))
    rows.append(timing.emit(row))
    longest = max(longest, time.perf_counter() - start)
  timing.print_table(rows, COLUMNS)
  return rows


if __name__ == '__main__':
  main()
