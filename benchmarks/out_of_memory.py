"""What a user sees of batches and states that do not fit into a device.

  XLA_PYTHON_CLIENT_MEM_FRACTION=.1 python -m benchmarks.out_of_memory

Trains on a batch that does not fit, on the one that the sentence about it names
and on one a fifth larger; then draws and evaluates batches that do not fit. The
fraction makes any GPU small enough. It needs no data and writes no files.
"""
import functools
import time
from unittest import mock

import jax
import numpy as np

from benchmarks import cases
from benchmarks import timing
from video_diffusion.api import model as model_lib
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import heldout_loss
from video_diffusion.inference import conditioning
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import compile as compile_lib
from video_diffusion.training import state as state_lib


def show(what, run):
  """Prints the sentence in which a call ends."""
  began = time.perf_counter()
  try:
    run()
  except UserError as error:
    print(f'{what}: {error}')
  except Exception as error:  # pylint: disable=broad-except
    print(f'{what}: NOT EXPLAINED: {type(error).__name__}: {error}'[:2000])
  else:
    print(f'{what}: it fits.')
  print(f'  after {time.perf_counter() - began:.0f} s', flush=True)


class Trial:
  """A train step of one batch, compiled whether it fits or not."""

  def __init__(self, config):
    self.config, self.mesh = config, cases.make_mesh(1)
    model = build.make_model(config)
    learning_rate, optimizer = build_step.make_optimizer(config)
    self.shapes = build.batch_shapes(config, model)
    _, self.abstract = build_step.abstract_state(
        config, model, optimizer, self.shapes, self.mesh
    )
    with memory.explained(self.sentence), mock.patch.object(
        memory, 'limit', lambda: None
    ):
      self.step, _ = build_step.compile_step(
          config, model, optimizer, learning_rate, self.abstract, self.shapes,
          self.mesh,
      )
    print(f'  batch {config.batch_size}: '
          f'{memory.gib(memory.program_bytes(self.step))}', flush=True)

  def sentence(self, need):
    return build_step.batch_too_large(
        self.config, self.abstract, self.mesh, need
    )

  def check(self):
    compile_lib.check_batch(self.step, self.sentence)

  def run(self):
    """As the train loop does; the device itself refuses."""
    state = cases.random_tree(self.abstract)
    batch = collectives.global_batch(
        {'video': np.zeros(self.shapes['video'].shape, np.uint8)}, self.mesh
    )
    with memory.explained(self.sentence):
      _, metrics = self.step(state, batch)
      jax.block_until_ready(metrics)

  def largest(self):
    """What the sentence names."""
    state, params = self.abstract, self.abstract.params
    need = memory.Need(
        memory.program_bytes(self.step), memory.limit(),
        memory.tree_bytes(state) + memory.tree_bytes(params),
    )
    batch = self.config.batch_size
    return memory.largest(batch, need, range(1, batch))


def oom_config(batch):
  """Of 16 frames of 64x64, and few blocks, so that it compiles soon."""
  config = cases.case_config('smoke', batch=batch)
  config.update_from_flattened_dict({
      'data.frames': 16, 'data.height': 64, 'data.width': 64,
      'model.base_channels': 64, 'model.channel_mults': (1, 2),
      'model.num_blocks': 1, 'model.attention_resolutions': (32,),
      'model.head_dim': 64, 'model.dtype': 'bfloat16',
  })
  return config


def sample_too_large(config, size):
  """Draws and evaluates a batch of `size` clips."""
  config.sample.batch_size = config.sample.num_videos = size
  config.sample.num_steps = 2
  config.eval.batch_size = config.eval.num_clips = size
  model = build.make_model(config)
  mesh = cases.make_mesh(1)
  shapes = build.batch_shapes(config, model)
  params = cases.random_tree(sharding.abstract(
      jax.eval_shape(lambda: state_lib.init_params(
          model, shapes, num_images=config.data.images, seed=0
      )),
      mesh,
  ))
  network, model = model, model_lib.Model(
      config, model, lambda: (params, 0),
      conditioning.Conditioner(lambda count: iter(())), mesh,
  )

  def sample():
    with naming(lambda name: f'sample.{name}'):
      model.sample(num_videos=size)

  show('sampling', sample)
  batch = {'video': np.zeros(
      (size, config.data.frames, config.data.height, config.data.width, 3),
      np.uint8,
  )}
  step = heldout_loss.make_eval_step(
      network, prediction=config.diffusion.prediction,
      logsnr_fn=build.make_logsnr_fn(config), mesh=mesh,
  )

  def evaluate():
    with naming(lambda name: f'eval.{name}'):
      heldout_loss.mean_losses(
          step, params, [batch], batch_size=size, num_clips=size, mesh=mesh
      )

  show('evaluation', evaluate)


def main():
  device = jax.devices()[0]
  if memory.limit() is None:
    raise SystemExit(f'{device.device_kind} does not tell how much it has.')
  print(
      f'{timing.today()}, {device.device_kind}, jax {jax.__version__}, memory '
      f'{memory.gib(memory.limit())}', flush=True,
  )
  trial = Trial(oom_config(256))
  show('batch 256, as compiled', trial.check)
  show('batch 256, when run', trial.run)
  if largest := trial.largest():
    for size in (largest, int(1.2 * largest)):
      trial = Trial(oom_config(size))
      show(f'batch {size}, as compiled', trial.check)
      show(f'batch {size}, when run', trial.run)
  large = cases.case_config('kinetics', batch=8)
  large.model.base_channels = 2048
  network = build.make_model(large)
  _, optimizer = build_step.make_optimizer(large)
  _, abstract = build_step.abstract_state(
      large, network, optimizer,
      build.batch_shapes(large, network), cases.make_mesh(1),
  )
  show('state of a network of 2,048 channels',
       lambda: compile_lib.check_state(
           abstract, functools.partial(build_step.state_too_large, large)))
  for size in (512, 2048):
    sample_too_large(oom_config(8), size)


if __name__ == '__main__':
  main()
