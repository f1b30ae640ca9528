"""Scores of samples that another program has written.

  python -m benchmarks.scores SAMPLES --config NAME [--out DIR] [--coherence]
      [--config.FIELD=VALUE ...]

SAMPLES is a folder of .npz files with 'video', uint8 [n, frames, height, width,
3], or of videos. All of them are scored against as many held-out clips of the
data of a config, as `--mode=evaluate` scores the samples of a run with
eval.evaluators 'scores' and this config: FVD, KVD, flicker, the floor and the
controls, by the eval fields. The flicker and the spread of ink stand beside, as
`benchmarks.causes` has them; --coherence adds the figures of digits or of
shapes (`benchmarks.coherence`).

DIR, by default SAMPLES/scores, gets report.json, report.html, and the printed
figures as scores.json. A call that was stopped continues where it was.
"""
import argparse
import functools
import json
import sys

from etils import epath

from benchmarks import cases as cases_lib
from benchmarks import causes
from benchmarks import timing
import video_diffusion
from video_diffusion.config import inputs
from video_diffusion.errors import UserError
from video_diffusion.errors import naming
from video_diffusion.evaluation import bars
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import evaluators
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import read_coherence
from video_diffusion.evaluation import report as report_lib
from video_diffusion.evaluation import report_page
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import score_run
from video_diffusion.filesystem import files
from video_diffusion.training import writers


def score(samples: str, out: epath.Path, config, *, coherence: bool) -> dict:
  """Scores a folder of samples, and writes the files of DIR.

  Args:
    samples: the folder.
    out: folder of the files.
    config: of a run with such data.
    coherence: whether digits or shapes are read.

  Returns:
    'scores', the name of a score -> its value; 'ink' and, where asked for,
    'coherence': the figures of 'samples', of 'real' held-out clips and of
    'unrelated' frames.

  Raises:
    UserError: samples or fields that do not fit, or there are no data.
  """
  source_of = functools.cache(
      lambda split: inputs.make_source(config, split)
  )
  options = evaluators.options_of(config)
  if options.num_samples:
    raise UserError(
        f'eval.num_samples is {options.num_samples}, but all clips of SAMPLES '
        'are scored; leave it out.'
    )
  frames = options.frames or config.data.frames
  with naming(lambda name: f'eval.{name}'):
    score_options.check(options, frames)
    clips = folder_clips.FolderClips(samples, 'SAMPLES', frames=frames)
    report = score_run.score_clips(
        clips, source_of, options, score_options.make_extractors(options), out,
        bars.bar, frameskips=tuple(config.data.frameskips),
        program='benchmarks.scores',
    )
  report_page.write(out, report, fps=config.sample.fps)
  for table in report.tables:
    cells = [[report_lib.number(cell) for cell in row] for row in table.rows]
    print(f'\n{table.title}\n{writers.table([*table.columns], cells)}')
  videos = clips.read(0, len(clips))
  config.eval.num_clips = len(clips)
  beside = beside_real.BesideReal('ink', source_of('test'), causes.figures)
  found = {
      'scores': score_run.values(report),
      'ink': {'samples': causes.figures(videos)}
      | beside_real.by_kind(beside.real(config)),
  }
  if coherence:
    found['coherence'] = read_coherence.measure(videos, config)
  files.write(
      out / 'scores.json',
      json.dumps(found | {'date': timing.today()}, indent=1),
  )
  return found


def parse(argv: list[str] | None = None):
  """(arguments, the config with the fields that they name).

  Raises:
    UserError: there is no such config, field or argument.
  """
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('samples')
  parser.add_argument('--config', required=True)
  parser.add_argument('--out')
  parser.add_argument('--coherence', action='store_true')
  args, fields = parser.parse_known_args(argv)
  config = video_diffusion.get_config(args.config)
  cases_lib.set_fields(config, fields)
  return args, config


def main(argv: list[str] | None = None) -> dict:
  """Scores, and prints the tables."""
  try:
    args, config = parse(argv)
    samples = files.expand(args.samples, 'SAMPLES')
    out = epath.Path(files.expand(args.out or f'{samples}/scores', '--out'))
    found = score(samples, out, config, coherence=args.coherence)
  except UserError as error:
    sys.exit(f'scores: {error}')
  for title, rows in found.items():
    rows = {'samples': rows} if title == 'scores' else rows
    print(f'\n{evaluators.as_table(title, rows)}')
  return found


if __name__ == '__main__':
  main()
