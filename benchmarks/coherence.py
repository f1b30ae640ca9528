"""Whether sampled clips hold together: digits and shapes that stay the same.

  python -m benchmarks.coherence WORKDIR/samples/step_N_seed_M [...]
      [--data_path DIR] [--data_dir DIR]

For clips of Moving-MNIST or moving_shapes that `--mode=sample` wrote: prints
the figures of the evaluators `digits` or `coherence`, which docs/evaluation.md
defines, beside those of as many real held-out clips and of clips whose frames
are unrelated. Several folders, as of several seeds, are read as one.
--data_path and --data_dir are the fields data.path and data.dir; Moving-MNIST
needs the folder of MNIST's images and labels as --data_path. Writes
coherence.json into the first folder. The clips are measured in
`video_diffusion/evaluation/read_coherence.py`.
"""
import argparse
import json
import sys

from etils import epath

from benchmarks import timing
from video_diffusion.errors import UserError
from video_diffusion.evaluation import read_coherence


def main(argv: list[str] | None = None) -> dict[str, dict]:
  """Prints a row for each set of clips, and writes coherence.json."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('folders', nargs='+')
  parser.add_argument('--data_path')
  parser.add_argument('--data_dir')
  args = parser.parse_args(argv)
  given = {'data.path': args.data_path, 'data.dir': args.data_dir}
  try:
    found = read_coherence.read(
        args.folders, {name: value for name, value in given.items() if value}
    )
  except UserError as error:
    sys.exit(f'coherence: {error}')
  path = epath.Path(args.folders[0]).expanduser() / 'coherence.json'
  path.write_text(json.dumps(found | {'date': timing.today()}, indent=1))
  timing.print_table(
      [{'clips': name} | {
          key: None if value is None else f'{value:.4f}'
          for key, value in values.items()
      } for name, values in found.items()],
      {'': 'clips'} | {name: name for name in found['samples']},
  )
  return found


if __name__ == '__main__':
  main()
