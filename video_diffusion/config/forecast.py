"""What a training will take: memory and time, from the compiled train step."""
import math
import os
import time
from typing import Any

from absl import logging
from etils import epath
import jax
import ml_collections

from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import inputs
from video_diffusion.config import text_inputs
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import state as state_lib
from video_diffusion.training import writers

FIELD = 'log.forecast_steps'
# A core of a CPU does about so much in 20 seconds. A step that takes longer is
# not that of a machine that trains.
MAX_CPU_FLOPS = 2e11
SLOW = 10.0  # seconds; of steps that take longer, one is measured


class NoForecastError(UserError):
  """No forecast can be made here, whatever the batch; it says why."""


def start_devices(config: ml_collections.ConfigDict) -> str:
  """Starts JAX on the devices that train, or on the CPU where it must not.

  Returns:
    Why no forecast can be made; '' where it can.
  """
  if not config.log.forecast_steps:
    why = f'{FIELD} is 0'
  elif config.mesh.processes > 1:
    why = (
        f'mesh.processes is {config.mesh.processes}, and a single process '
        'inspects'
    )
  else:
    try:
      jax.devices()
      return ''
    except RuntimeError as error:
      why = f'no device can be used ({str(error).splitlines()[0]})'
  jax.config.update('jax_platforms', 'cpu')
  return why


def make(
    config: ml_collections.ConfigDict,
    run_dir: epath.Path,
    source,
    *,
    clips_per_second: float,
) -> dict[str, Any]:
  """Compiles the train step, and measures it on a few real batches.

  It writes nothing. All arrays of the training are allocated on the way.

  Args:
    config: of the run.
    run_dir: folder of the run, which may have a tokenizer.
    source: the clips to train on.
    clips_per_second: how fast they are loaded.

  Returns:
    Memory in bytes a device ('memory_bytes' of 'memory_limit_bytes', which is
    None where the device does not tell), 'flops_per_step', 'ms_per_step' and
    'hours' for all of 'steps', by the slower of training and loading.

  Raises:
    NoForecastError: training cannot start here, for another reason than its
      size.
    UserError: state or batch do not fit into a device.
  """
  try:
    validate.check(config, 'train')
    text = text_inputs.open_text(config, run_dir, source)
    network = build.make_model(config, inputs.label_sizes(source))
    inputs.require_arrays(config, network, source)
    learning_rate, optimizer = build_step.make_optimizer(config)
    mesh = build.make_mesh(config)
  except UserError as error:
    raise NoForecastError(str(error)) from error
  shapes = build.batch_shapes(config, network)
  init, abstract = build_step.abstract_state(
      config, network, optimizer, shapes, mesh
  )
  too_large = lambda need: build_step.state_too_large(config, need)
  compile_lib.check_state(abstract, too_large)
  logging.info(
      'Compiling the train step, to measure %d steps of it and to say what the '
      'training will take; --config.%s=0 leaves this out.',
      config.log.forecast_steps, FIELD,
  )
  began = time.perf_counter()
  train_step, flops = build_step.compile_step(
      config, network, optimizer, learning_rate, abstract, shapes, mesh,
      check_flops=_check_flops,
  )
  compile_seconds = time.perf_counter() - began
  sizes = _memory(train_step)
  _check_host(sizes['memory_bytes'])
  with memory.explained(too_large):
    layout = jax.tree.map(lambda x: x.sharding, abstract)
    state = jax.block_until_ready(jax.jit(init, out_shardings=layout)())
  batches = inputs.make_batches(
      config, source, start=0, stop=config.log.forecast_steps + 1, encode=text
  )
  batches = [network.inputs_of(batch) for batch in batches]
  with memory.explained(
      lambda need: build_step.batch_too_large(config, abstract, mesh, need)
  ):
    seconds, measured = _measure(train_step, state, batches, mesh)
  slower = max(seconds, config.batch_size / clips_per_second)
  return {
      'device': jax.devices()[0].device_kind,
      'devices': jax.device_count(),
      'parameters': state_lib.tree_size(abstract.params),
      **sizes,
      'compile_seconds': compile_seconds,
      # JSON has no NaN, which stands for FLOPs that could not be counted.
      'flops_per_step': None if math.isnan(flops) else flops,
      'steps_measured': measured,
      'ms_per_step': 1000 * seconds,
      'input_ms_per_step': 1000 * config.batch_size / clips_per_second,
      'steps': config.train.steps,
      'hours': slower * config.train.steps / 3600,
  }


def _check_flops(flops):
  """Raises NoForecastError for a step that a CPU should not be busy with."""
  if jax.default_backend() == 'cpu':
    if flops > MAX_CPU_FLOPS * (os.cpu_count() or 1):
      raise NoForecastError(
          f'a step is {flops:.2g} FLOP, too much for this CPU; inspect on the '
          'machine that will train.'
      )


def _check_host(needed):
  """Raises NoForecastError where the memory of a CPU's machine is too small."""
  there = memory.host_available() if jax.default_backend() == 'cpu' else None
  if needed and there and needed * jax.device_count() > there:
    raise NoForecastError(
        f'the train step takes {memory.gib(needed * jax.device_count())}, and '
        f'{memory.gib(there)} of memory are free here; inspect on the machine '
        'that will train, or with a smaller batch_size.'
    )


def _memory(compiled):
  """Bytes of one device that the train step needs; None where not known."""
  analysis = compiled.memory_analysis()
  return {
      'memory_bytes': memory.program_bytes(compiled),
      'argument_bytes': analysis and analysis.argument_size_in_bytes,
      'temporary_bytes': analysis and analysis.temp_size_in_bytes,
      'memory_limit_bytes': memory.limit(),
  }


def _measure(train_step, state, batches, mesh):
  """(seconds a step, steps measured), after one that is not measured."""
  began = time.perf_counter()
  first, *rest = batches
  state, metrics = train_step(state, collectives.global_batch(first, mesh))
  jax.block_until_ready(metrics)
  if time.perf_counter() - began > SLOW:
    rest = rest[:1]
  began = time.perf_counter()
  for batch in rest:
    state, metrics = train_step(state, collectives.global_batch(batch, mesh))
  jax.block_until_ready((state, metrics))
  return (time.perf_counter() - began) / len(rest), len(rest)


def as_text(forecast: dict[str, Any]) -> str:
  """A forecast as a table, for the log."""
  size = lambda name: memory.gib(forecast[name]) if forecast[name] else '-'
  limit = forecast['memory_limit_bytes']
  waits = forecast['input_ms_per_step'] > forecast['ms_per_step']
  flops = forecast['flops_per_step']
  rows = [
      ('devices', f'{forecast["devices"]} {forecast["device"]}'),
      ('parameters', f'{forecast["parameters"]:,}'),
      ('memory a device', size('memory_bytes') + (
          f' of {memory.gib(limit)}' if limit else ''
      )),
      ('  state and batch', size('argument_bytes')),
      ('  temporaries', size('temporary_bytes')),
      ('FLOP a step', f'{flops:.3g}' if flops else '-'),
      ('a step', f'{forecast["ms_per_step"]:.3g} ms'),
      ('loading its batch', f'{forecast["input_ms_per_step"]:.3g} ms'),
      (f'{forecast["steps"]:,} steps', writers.duration(
          3600 * forecast['hours']
      ) + (', by the loading of the data' if waits else '')),
  ]
  lines = writers.table(['forecast', ''], list(map(list, rows)))
  return '\n'.join(line.rstrip() for line in lines.splitlines())
