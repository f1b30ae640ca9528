"""Input rate and memory over many batches, of any config.

  python -m benchmarks.input --config=configs/moving_shapes.py --batches=10000

Draws batches as training does and drops them; prints, ten times on the way, the
rate since the last line and the memory held by this process and its workers.
"""
import time

from absl import app
from absl import flags
import jax
from ml_collections import config_flags

from video_diffusion import inspect
from video_diffusion.config import inputs
from video_diffusion.config import validate

_CONFIG = config_flags.DEFINE_config_file('config', None, lock_config=True)
_BATCHES = flags.DEFINE_integer('batches', 10_000, 'To draw.', lower_bound=10)
_START = flags.DEFINE_integer('start', 0, 'The first step.', lower_bound=0)


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  jax.config.update('jax_platforms', 'cpu')
  config, start = _CONFIG.value, _START.value
  validate.check(config, 'inspect')
  source = inputs.make_source(config, 'train')
  began = time.perf_counter()
  batches = inputs.make_batches(
      config, source, start=start, stop=start + _BATCHES.value
  )
  next(batches)
  first = time.perf_counter() - began
  print(f'first batch, of step {start}, after {first:.3f} s')
  print(f'{"batches":>8} {"clips/s":>9} {"memory (MiB)":>13}')
  every = _BATCHES.value // 10
  began, n = time.perf_counter(), 0
  for i, _ in enumerate(batches, start=2):
    n += 1
    if i % every == 0:
      rate = n * config.batch_size / (time.perf_counter() - began)
      memory = inspect.resident_bytes() / 2**20
      print(f'{i:8d} {rate:9.1f} {memory:13.1f}', flush=True)
      began, n = time.perf_counter(), 0


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main)
