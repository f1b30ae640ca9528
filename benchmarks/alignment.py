"""How often clips show what their captions say: alignment by guidance weight.

  python -m benchmarks.alignment WORKDIR OUT [--weights 0,1,2,4,5]
      [--clips 256] [--sampler ancestral] [--steps 128]

WORKDIR is a run of configs/moving_shapes.py:text or :text_accelerator, or a
folder of what such a run exported: config.json, tokenizer.model and weights/;
the path of weights/, or of a file in it, does as well. Each row draws --clips
clips of the test split's captions, under one weight w of classifier-free
guidance (1 + w is what other papers print), once of pairs of colour and shape
that were seen in training and once of those held out, and reads them by
`metrics.shapes_reader`; the same captions and the same noise for every w. Real
clips of the same captions stand above, the most that the reader allows.

Two columns are of the frames alone. `palette`: of the pixels that are not
background, the share near a palette colour. `frames`: the Frechet distance, of
all frames shrunk to 8x8 by area (192 numbers in [0, 1] each), to those of other
real clips of the same pairs, --clips of them: an FID whose network is a mean.

Writes to OUT alignment.json, with the protocol, and w_<w>.gif for each weight:
16 clips with their prompts, the first eight of seen and of held-out pairs.
Needs no TensorFlow.
"""
import argparse
from collections.abc import Iterator
import dataclasses
import functools
import itertools
import json
import time

from etils import epath
import jax
import numpy as np

from benchmarks import timing
from video_diffusion import media
from video_diffusion.api import load
from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import weights as weights_lib
from video_diffusion.config import inputs
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.inference import conditioning
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.metrics import frechet
from video_diffusion.metrics import shapes_reader
from video_diffusion.metrics import shapes_score
from video_diffusion.training import state as state_lib
from video_diffusion.training import writers

SHOWN = 16  # clips of a GIF
COLUMNS = ('colour', 'shape', 'motion', 'all', 'palette', 'frames')
SMALL = 8  # side of the frames whose distribution is compared


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


def real_clips(source, config, first: int = 0) -> Iterator[dict]:
  """The clips of a source, from the `first` on, without end."""
  rng = np.random.default_rng(0)
  data = config.data
  for i in itertools.count(first):
    yield source.example(i, rng, data.frames, data.frameskips)


def frame_statistics(videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and covariance of the frames, shrunk and flat."""
  n, t, h, w, c = videos.shape
  small = videos.reshape(
      n * t, SMALL, h // SMALL, SMALL, w // SMALL, c
  ).mean((2, 4)) / 255.0
  return frechet.mean_and_covariance(small.reshape(n * t, -1))


class Scores:
  """All columns of a table, of clips with some captions."""

  def __init__(self, source, clips: list[dict], others: list[dict]):
    """Of the captions of `clips`; frames are compared with those of `others`.
    """
    self._reader = make_reader(source)
    self._wanted = np.stack([clip['labels'] for clip in clips])
    self._frames = frame_statistics(
        np.stack([clip['video'] for clip in others])
    )

  def __call__(self, videos: np.ndarray) -> dict[str, float]:
    """uint8 [n, t, h, w, 3], in the order of the captions -> the columns."""
    figures = shapes_score.shape_figures(
        videos, np.array(list(shapes.PALETTE.values())), shapes.BACKGROUND
    )
    return {
        **shapes_reader.match_shares(self._reader(videos), self._wanted),
        'palette': figures['palette'],
        'frames': frechet.frechet_distance(
            *frame_statistics(videos), *self._frames
        ),
    }


def make_reader(source: shapes.MovingShapes) -> shapes_reader.ShapesReader:
  """A reader of the clips of a source, and of what models draw like them."""
  return shapes_reader.ShapesReader(
      source.mask,
      num_shapes=len(shapes.SHAPES),
      palette=np.array(list(shapes.PALETTE.values())),
      background=shapes.BACKGROUND,
      directions=np.array(list(shapes.DIRECTIONS.values())),
  )


def sample(
    model: model_lib.Model,
    conditions: conditioning.Conditions,
    weight: float,
) -> np.ndarray:
  """uint8 [n, frames, height, width, 3], by one program for all weights."""
  batches = model.batches(conditions.num_videos)
  stage = model.stage(
      model.settings, conditions, batches, block_frames=model.frames
  )
  stage = stage._replace(sample_block=functools.partial(
      stage.sample_block, weight=np.float32(weight)
  ))
  plan = sampling_plan.generate(
      model.frames, block_frames=model.frames, overlap=1
  )
  return rollout.run(plan, [stage], batches, seed=model.config.sample.seed)


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
  parser.add_argument('--batch', type=int, help='clips drawn at once')
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
  rows, shown = [], {weight: [] for weight in args.weights}
  kinds = ('seen', 'heldout') if config.data.heldout_pairs else ('seen',)
  for pairs in kinds:
    source = dataclasses.replace(
        inputs.make_source(config, 'test'), pairs=pairs
    )
    clips, others = (
        list(itertools.islice(real_clips(source, config, first), args.clips))
        for first in (0, args.clips)
    )
    scores = Scores(source, clips, others)
    real = scores(np.stack([clip['video'] for clip in clips]))
    rows.append({'pairs': pairs, 'weight': None, **real})
    captions = [clip['caption'] for clip in clips]
    conditions = model.conditions(prompts=captions)
    for weight in args.weights:
      began = time.time()
      videos = sample(model, conditions, weight)
      seconds = round(time.time() - began, 1)
      row = {'pairs': pairs, 'weight': weight, **scores(videos)}
      rows.append(row | {'seconds': seconds})
      print(json.dumps(rows[-1]), flush=True)
      first = zip(videos, conditions.captions, strict=True)
      shown[weight] += itertools.islice(first, SHOWN // len(kinds))
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
