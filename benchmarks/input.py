"""Input rate and memory over many batches, of any config.

  python -m benchmarks.input --config=configs/moving_shapes.py --batches=10000

Draws batches as training does and drops them; prints, ten times on the way, the
rate since the last line and the memory held by this process and its workers.
"""
import argparse
import time

import jax

from benchmarks import cases
from video_diffusion import inspect
from video_diffusion.config import config_files
from video_diffusion.config import inputs
from video_diffusion.config import validate


def parse(argv: list[str] | None = None):
  """(arguments, the config with the fields that they set)."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
      allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, help='as of --config of main')
  parser.add_argument('--batches', type=int, default=10_000, help='at least 10')
  parser.add_argument('--start', type=int, default=0, help='the first step')
  args, fields = parser.parse_known_args(argv)
  if args.batches < 10:
    parser.error('--batches must be at least 10')
  config = config_files.get_config(args.config).lock()
  cases.set_fields(config, fields)
  return args, config


def main(argv: list[str] | None = None) -> None:
  """Prints the table."""
  args, config = parse(argv)
  start = args.start
  jax.config.update('jax_platforms', 'cpu')
  validate.check(config, 'inspect')
  source = inputs.make_source(config, 'train')
  began = time.perf_counter()
  batches = inputs.make_batches(
      config, source, start=start, stop=start + args.batches
  )
  next(batches)
  first = time.perf_counter() - began
  print(f'first batch, of step {start}, after {first:.3f} s')
  print(f'{"batches":>8} {"clips/s":>9} {"memory (MiB)":>13}')
  every = args.batches // 10
  began, n = time.perf_counter(), 0
  for i, _ in enumerate(batches, start=2):
    n += 1
    if i % every == 0:
      rate = n * config.batch_size / (time.perf_counter() - began)
      memory = inspect.resident_bytes() / 2**20
      print(f'{i:8d} {rate:9.1f} {memory:13.1f}', flush=True)
      began, n = time.perf_counter(), 0


if __name__ == '__main__':
  main()
