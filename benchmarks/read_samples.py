"""How often sampled clips of moving_shapes show what their captions say.

  python -m benchmarks.read_samples WORKDIR/samples/step_N_seed_M [...]

For clips that `--mode=sample` wrote, of a cascade too: prints the shares of
clips whose colours, shapes, directions, and all of these on the same object,
are those of the caption: of all clips, of those with one and with two objects,
and for their first and last 16 frames. `path`, in pixels, says how far shapes
stray from a straight path, over the clips without an empty frame, of which
`empty` have one. Several folders, as of several seeds, are read as one. Writes
alignment.json into the first. The clips are scored in
`video_diffusion/evaluation/read_samples.py`.
"""
import argparse
import json
import sys

from etils import epath

from benchmarks import timing
from video_diffusion.errors import UserError
from video_diffusion.evaluation import read_samples


def read(*folders: str) -> list[dict]:
  """Prints a row for each part of the clips, and writes alignment.json.

  Raises:
    UserError: see `evaluation.read_samples.read`.
  """
  content = read_samples.read(folders) | {'date': timing.today()}
  rows = content['rows']
  path = epath.Path(content['folders'][0]) / 'alignment.json'
  path.write_text(json.dumps(content, indent=1))
  timing.print_table(
      [{name: f'{value:.3f}' if isinstance(value, float) else value
        for name, value in row.items()} for row in rows],
      {'': 'part'} | {name: name for name in list(rows[0])[1:]},
  )
  return rows


def main(argv: list[str] | None = None) -> None:
  """Reads the folders of the command line."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('folders', nargs='+')
  args = parser.parse_args(argv)
  try:
    read(*args.folders)
  except UserError as error:
    sys.exit(f'read_samples: {error}')


if __name__ == '__main__':
  main()
