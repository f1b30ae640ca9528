"""How often clips show what their captions say: alignment by guidance weight.

  python -m benchmarks.alignment WORKDIR OUT [--weights 0,1,2,4,5]
      [--clips 256] [--sampler ancestral] [--steps 128]

WORKDIR is a run of configs/moving_shapes.py:text or :text_accelerator, or a
folder of what such a run exported: config.json, tokenizer.model and weights/;
the path of weights/, or of a file in it, does as well. Each row draws --clips
clips of the test split's captions, under one weight w of classifier-free
guidance (1 + w is what other papers print), once of pairs of colour and shape
that were seen in training and once of those held out; the same captions and the
same noise for every w. Real clips of the same captions stand above. The columns
are those of `video_diffusion/evaluation/alignment.py`, where clips are sampled
and scored.

Writes to OUT alignment.json, with the protocol, and w_<w>.gif for each weight:
16 clips with their prompts, the first eight of seen and of held-out pairs.
Needs no TensorFlow.
"""
import argparse
import json

from etils import epath
import jax
import numpy as np

from benchmarks import timing
from video_diffusion import media
from video_diffusion.api import load
from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import weights as weights_lib
from video_diffusion.config import inputs
from video_diffusion.errors import UserError
from video_diffusion.evaluation import alignment
from video_diffusion.filesystem import files
from video_diffusion.training import state as state_lib
from video_diffusion.training import writers

SHOWN = 16  # clips of a GIF
COLUMNS = alignment.COLUMNS


def run_folder(path: str) -> epath.Path:
  """The run that a path names: its folder, its weights/ or a file therein."""
  path = epath.Path(files.expand(path, 'WORKDIR', bucket=True))
  if path.is_file():
    path = path.parent
  return path.parent if path.name == weights_lib.FOLDER else path


def positive(text: str) -> int:
  """A flag's whole number from 1 on."""
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'is {text}; at least 1')
  return value


def numbers(text: str) -> list[float]:
  """A flag's numbers, with commas between them."""
  return [float(x) for x in text.split(',')]


def restore(
    path: str, overrides: dict, parser: argparse.ArgumentParser
) -> model_lib.Model:
  """The model of the run that a path names, of moving_shapes with captions."""
  run_dir = run_folder(path)
  try:
    model = load.load(run_dir, overrides)
  except UserError as error:
    parser.error(str(error))
  if model.config.data.name != 'moving_shapes' or not model.config.text.encoder:
    parser.error(f'{run_dir} holds no run of moving_shapes with captions')
  return model


def protocol(run: model_lib.Model) -> dict:
  """Which weights were read, by what, and when."""
  return {
      'step': run.step,
      'parameters': state_lib.tree_size(run.params),
      'weights_sha256': weights_lib.digest(run.params),
      'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'software': f'jax {jax.__version__}',
      'date': timing.today(),
  }


def main(argv: list[str] | None = None) -> list[dict]:
  """Prints the table and writes OUT."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('workdir')
  parser.add_argument('out')
  parser.add_argument(
      '--weights', type=numbers, default=[0.0, 1.0, 2.0, 4.0, 5.0]
  )
  parser.add_argument(
      '--clips', type=positive, default=256, help='of each row'
  )
  parser.add_argument('--batch', type=int, help='clips sampled at once')
  parser.add_argument('--sampler', help='by default those of the run')
  parser.add_argument('--steps', type=int)
  parser.add_argument('--gamma', type=float)
  parser.add_argument('--seed', type=int)
  args = parser.parse_args(argv)
  given = {'num_videos': args.clips, 'batch_size': args.batch,
           'sampler': args.sampler, 'num_steps': args.steps,
           'gamma': args.gamma, 'seed': args.seed}
  overrides = {
      f'sample.{name}': value
      for name, value in given.items()
      if value is not None
  }
  out = epath.Path(args.out)
  # The held-out clips' captions of the run are drawn anew below.
  model = restore(args.workdir, overrides, parser)
  config, options = model.config, model.config.sample
  source = inputs.make_source(config, 'test')
  scores = alignment.make_scores(
      source, args.clips, frames=config.data.frames,
      frameskips=config.data.frameskips,
  )
  rows, shown = [], {weight: [] for weight in args.weights}
  for row in alignment.rows(model, scores, args.weights):
    rows.append({'pairs': row.pairs, 'weight': row.weight, **row.columns})
    if row.weight is None:
      continue
    rows[-1]['seconds'] = round(row.seconds, 1)
    print(json.dumps(rows[-1]), flush=True)
    first = SHOWN // len(scores)
    shown[row.weight] += zip(
        row.videos[:first], row.captions[:first], strict=True
    )
  out.mkdir(parents=True, exist_ok=True)
  for weight, pairs in shown.items():
    videos, captions = zip(*pairs, strict=True)
    grid = media.grid(media.with_texts(np.stack(videos), captions))
    media.write_gif(out / f'w_{weight:g}.gif', grid, fps=options.fps)
  content = {'rows': rows, 'protocol': protocol(model) | {
      'clips': args.clips,
      'images': config.data.images,
      'sampler': options.sampler,
      'steps': options.num_steps,
      'gamma': options.gamma,
      'seed': options.seed,
      'heldout_pairs': list(config.data.heldout_pairs),
  }}
  (out / 'alignment.json').write_text(json.dumps(content, indent=1))
  print(as_table(rows))
  return rows


def as_table(rows: list[dict]) -> str:
  """A row for each weight and kind of pairs, real clips first."""
  cells = []
  for row in rows:
    pairs, w = row['pairs'], row['weight']
    if w is None:
      names = [f'{pairs}, real clips', '', '']
    else:
      names = [pairs, f'{w:g}', f'{1 + w:g}']
    cells.append([*names, *(f'{row[column]:.3f}' for column in COLUMNS)])
  return writers.table(['pairs', 'w', '1 + w', *COLUMNS], cells)


if __name__ == '__main__':
  main()
