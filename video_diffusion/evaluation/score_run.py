"""Scores of samples of a model, or of a folder, by a protocol: the report."""
from collections.abc import Callable, Mapping
import dataclasses
import datetime
import re
import shlex
import sys
from typing import Any

from etils import epath
import jax

from video_diffusion.api import model as model_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.evaluation import chunk_files
from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import nearest_clips
from video_diffusion.evaluation import protocols
from video_diffusion.evaluation import real_sets
from video_diffusion.evaluation import report
from video_diffusion.evaluation import sample_sets
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import scorer as scorer_lib
from video_diffusion.evaluation import scores

SHOWN = 8  # clips that play in the page
NEAREST = 4_096  # training clips among which the nearest are looked for


def score_run(
    model: model_lib.Model,
    source_of: Callable[[str], mixture_lib.Source],
    options: score_options.Options,
    extractors: Mapping[str, feature_files.Extractor],
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
) -> report.Report:
  """Samples from a model, and scores the samples.

  Args:
    model: the model, with the weights of a step.
    source_of: name of a split, 'train' or 'test' -> its clips.
    options: how to score.
    extractors: from `score_options.make_extractors`.
    folder: keeps samples and features.
    progress: see `scorer_lib.Scorer`.

  Raises:
    UserError: an option does not fit.
  """
  protocol = options.resolved()
  frames = options.frames or model.frames
  real = real_sets.RealSets(
      source_of, options, frames=frames,
      frameskips=tuple(model.config.data.frameskips),
  )
  wanted = sample_sets.SampleSet(
      model, real.reference, protocol.num_samples, frames,
      protocol.known_frames, protocol.samples_per_clip, options.seed,
  )
  samples = wanted.generate(folder, progress('samples'))
  found, panels = _against_real(
      samples, real, options, extractors, folder, progress
  )
  block = {
      'protocol': options.protocol,
      'samples': len(samples),
      'frames of a clip': frames,
      'known frames, which count': protocol.known_frames,
      'samples of each real clip': protocol.samples_per_clip,
      'real clips drawn with replacement': protocol.replacement,
      **real.describe(),
      'size of a frame': f'{model.size[1]}x{model.size[0]}',
      'checkpoint step': model.step,
      'sampling settings': str(model.settings),
      'identity of the samples': chunk_files.digest(wanted.identity),
      'config SHA-256 (first 16 digits)': chunk_files.digest(
          {'config': model.config.to_json_best_effort()}
      ),
  }
  return _report(
      f'Step {model.step}: {options.protocol}', found, options, protocol,
      extractors, block, panels,
  )


def score_clips(
    samples: folder_clips.FolderClips,
    source_of: Callable[[str], mixture_lib.Source],
    options: score_options.Options,
    extractors: Mapping[str, feature_files.Extractor],
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
    *,
    frameskips: tuple[int, ...] = (1,),
    program: str,
) -> report.Report:
  """Scores samples of another program as those of a run are scored.

  Args:
    samples: the samples; all of them count.
    source_of: name of a split, 'train' or 'test' -> its clips.
    options: how to score.
    extractors: from `score_options.make_extractors`.
    folder: keeps features.
    progress: see `scorer_lib.Scorer`.
    frameskips: distances of the frames of real clips.
    program: module that the command of the report names.

  Raises:
    UserError: an option does not fit, or the samples have another size.
  """
  options = dataclasses.replace(options, num_samples=len(samples))
  protocol = options.resolved()
  if protocol.known_frames:
    raise ArgumentError(
        Argument('protocol'), f' {options.protocol!r} gives the model '
        f'{protocol.known_frames} frames, which files of samples do not name; '
        "take 'heldout'.",
    )
  real = real_sets.RealSets(
      source_of, options, frames=samples.identity['frames'],
      frameskips=frameskips,
  )
  size = real.reference.read(0, 1).shape[2:4]
  if size != samples.size:
    raise UserError(
        f'the samples are {samples.size[1]}x{samples.size[0]}, but the clips '
        f'of the data are {size[1]}x{size[0]}; bring them to one size, or the '
        'difference in sharpness would count.'
    )
  found, panels = _against_real(
      samples, real, options, extractors, folder, progress
  )
  block = {
      'protocol': options.protocol,
      'frames of a clip': samples.identity['frames'],
      **{
          f'samples: {key}': value
          for key, value in folder_clips.describe(samples).items()
      },
      **real.describe(),
  }
  return _report(
      f'Samples of files: {options.protocol}', found, options, protocol,
      extractors, block, panels, program,
  )


def score_folders(
    samples: folder_clips.FolderClips,
    reference: folder_clips.FolderClips,
    options: score_options.Options,
    extractors: Mapping[str, feature_files.Extractor],
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
) -> report.Report:
  """Scores a folder of videos against another.

  Args:
    samples: videos that are scored.
    reference: real videos.
    options: how to score.
    extractors: from `score_options.make_extractors`.
    folder: keeps features.
    progress: see `scorer_lib.Scorer`.

  Raises:
    UserError: the videos of the folders have several sizes.
  """
  protocol = options.resolved()
  folder_clips.require_same_size(samples, reference)
  sets = scorer_lib.Sets(samples, {'the reference': reference})
  scorer = scorer_lib.Scorer(
      sets, extractors, folder, seed=options.seed,
      inception=options.inception, progress=progress,
  )
  found = scores.score(scorer, protocol.metrics)
  shown = range(min(SHOWN, len(samples), len(reference)))
  panels = [report.Clips('Samples and reference', [
      {f'sample {i}': samples.read(i, i + 1)[0],
       f'reference {i}': reference.read(i, i + 1)[0]}
      for i in shown
  ])]
  block = {'protocol': options.protocol}
  for name, clips in (('samples', samples), ('reference', reference)):
    block |= {
        f'{name}: {key}': value
        for key, value in folder_clips.describe(clips).items()
    }
  skipped = [
      [name, item['file'], item['reason']]
      for name, clips in (('samples', samples), ('reference', reference))
      for item in clips.skipped
  ]
  if skipped:
    found = dataclasses.replace(found, tables=(*found.tables, report.Table(
        'Files that are not counted', ['folder', 'file', 'reason'], skipped
    )))
  return _report(
      'Samples against a reference', found, options, protocol, extractors,
      block, panels,
  )


def _against_real(
    samples: clip_sets.ClipSet,
    real: real_sets.RealSets,
    options: score_options.Options,
    extractors: Mapping[str, feature_files.Extractor],
    folder: epath.Path,
    progress: scorer_lib.Progress,
) -> tuple[scores.Found, list[report.Clips]]:
  """The scores of samples, and the clips that a report shows."""
  scorer = scorer_lib.Scorer(
      real.sets(samples), extractors, folder, seed=options.seed,
      inception=options.inception, progress=progress,
  )
  found = scores.score(scorer, options.resolved().metrics)
  shown = range(min(SHOWN, len(samples), len(real.reference)))
  panel = report.Clips('Samples and real clips', [
      {f'sample {i}': samples.read(i, i + 1)[0],
       f'real clip {i}': real.reference.read(i, i + 1)[0]}
      for i in shown
  ])
  table, nearest = nearest_clips.find(
      samples, real.clips('test', nearest_clips.COMPARED),
      real.clips('train', NEAREST), folder, progress, shown=SHOWN,
  )
  found = dataclasses.replace(found, tables=(*found.tables, table))
  return found, [panel, nearest]


def values(found: report.Report) -> dict[str, float | None]:
  """The scores as curves have them: 'fvd', 'fvd_training_clips', ..."""
  return {
      re.sub(r'\W+', '_', score.name.lower()).strip('_'): score.value
      for score in found.scores
  }


def _report(
    title: str,
    found: scores.Found,
    options: score_options.Options,
    protocol: protocols.Protocol,
    extractors: Mapping[str, feature_files.Extractor],
    block: dict[str, Any],
    panels: list[report.Clips],
    program: str = 'video_diffusion.main',
) -> report.Report:
  """The report with what every one has in its protocol block."""
  own = protocols.PROTOCOLS[options.protocol]
  if own.num_samples and protocol.num_samples != own.num_samples:
    block['samples by the protocol, of which this is a part'] = (
        own.num_samples
    )
  for name, extractor in extractors.items():
    block[f'network {name}'] = extractor.description
  block |= {
      'seed': options.seed,
      'command': f'python -m {program} {shlex.join(sys.argv[1:])}',
      'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'JAX': jax.__version__,
      'date': datetime.date.today().isoformat(),
  }
  return report.Report(
      title, found.scores, block, found.tables, found.curves, panels
  )
