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
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.evaluation import chunk_files
from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import extractors as extractors_lib
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import protocols
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
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
) -> report.Report:
  """Samples from a model, and scores the samples.

  Args:
    model: the model, with the weights of a step.
    source_of: name of a split, 'train' or 'test' -> its clips.
    options: how to score.
    folder: keeps samples and features.
    progress: see `scorer_lib.Scorer`.

  Raises:
    UserError: an option does not fit, or weights of a metric are missing.
  """
  protocol = options.resolved()
  extractors = score_options.make_extractors(options, protocol)
  frames = options.frames or model.frames
  clips = {
      split: _real_clips(model, source_of(split), split, protocol, options)
      for split in protocol.real_splits
  }
  (split, reference), seed = list(clips.items())[-1], options.seed
  if protocol.replacement:
    # The clips that are compared are others than those that are continued.
    seed += 1
    clips[split] = _real_clips(
        model, source_of(split), split, protocol, options, seed=seed
    )
  others = None
  if not protocol.replacement and (
      reference.num_clips >= 2 * len(reference)
  ):
    others = _real_clips(
        model, source_of(split), split, protocol, options,
        first=len(reference),
    )
  wanted = sample_sets.SampleSet(
      model, reference, protocol.num_samples, frames, protocol.known_frames,
      protocol.samples_per_clip, options.seed,
  )
  samples = wanted.generate(folder, progress('samples'))
  names = {'train': 'training clips', 'test': 'held-out clips'}
  sets = scorer_lib.Sets(
      samples, {names[name]: real for name, real in clips.items()}, others
  )
  scorer = scorer_lib.Scorer(
      sets, extractors, folder, seed=options.seed,
      inception=options.inception, progress=progress,
  )
  found = scores.score(scorer, protocol.metrics)
  shown = range(min(SHOWN, len(samples)))
  panels = [report.Clips('Samples and real clips', [
      {f'sample {i}': samples.read(i, i + 1)[0],
       f'real clip {i}': reference.read(i, i + 1)[0]}
      for i in shown if i < len(reference)
  ])]
  panels.append(_nearest(
      samples, shown, source_of('train'), model, options, folder, progress,
  ))
  block = {
      'protocol': options.protocol,
      'samples': len(samples),
      'frames of a clip': frames,
      'known frames, which count': protocol.known_frames,
      'samples of each real clip': protocol.samples_per_clip,
      **{
          f'{names[name]} compared with': f'{len(real)} of {real.num_clips}, '
          f'{real.distinct} of them distinct'
          for name, real in clips.items()
      },
      'real clips drawn with replacement': protocol.replacement,
      'size of a frame': f'{model.size[1]}x{model.size[0]}',
      'checkpoint step': model.step,
      'sampling settings': str(model.settings),
      'identity of the samples': chunk_files.digest(wanted.identity),
      'config SHA-256 (first 16 digits)': chunk_files.digest(
          {'config': model.config.to_json_best_effort()}
      ),
      'data fingerprint': reference.identity['fingerprint']
      or 'clips made on the fly have none',
  }
  return _report(
      f'Step {model.step}: {options.protocol}', found, options, protocol,
      extractors, block, panels,
  )


def score_folders(
    samples: folder_clips.FolderClips,
    reference: folder_clips.FolderClips,
    options: score_options.Options,
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
) -> report.Report:
  """Scores a folder of videos against another.

  Args:
    samples: videos that are scored.
    reference: real videos.
    options: how to score.
    folder: keeps features.
    progress: see `scorer_lib.Scorer`.

  Raises:
    UserError: the videos of the folders have several sizes, or weights of a
      metric are missing.
  """
  protocol = options.resolved()
  folder_clips.require_same_size(samples, reference)
  extractors = score_options.make_extractors(options, protocol)
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


def values(found: report.Report) -> dict[str, float | None]:
  """The scores as curves have them: 'fvd', 'fvd_training_clips', ..."""
  return {
      re.sub(r'\W+', '_', score.name.lower()).strip('_'): score.value
      for score in found.scores
  }


def _real_clips(
    model, source, split, protocol, options, *, first=0, seed=None
):
  """Real clips of a split, by the protocol."""
  available = mixture_lib.as_mixture(source).num_examples
  count = protocol.num_real or protocol.num_samples
  return clip_sets.RealClips(
      source, split=split,
      count=count if protocol.replacement else min(count, available),
      frames=options.frames or model.frames,
      frameskips=tuple(model.config.data.frameskips), first=first,
      seed=options.seed if seed is None else seed,
      replacement=protocol.replacement,
  )


def _nearest(samples, shown, source, model, options, folder, progress):
  """The training clips that are nearest to some samples."""
  available = mixture_lib.as_mixture(source).num_examples
  train = clip_sets.RealClips(
      source, split='train', count=min(NEAREST, available),
      frames=options.frames or model.frames,
      frameskips=tuple(model.config.data.frameskips), seed=options.seed,
  )
  features = feature_files.features(
      train, extractors_lib.Thumbnails(), folder,
      progress('thumbnails of training clips'),
  )
  groups = []
  for i in shown:
    video = samples.read(i, i + 1)
    gaps = features - extractors_lib.Thumbnails()(video)
    distances = np.sqrt(np.square(gaps).mean(1))
    best = int(distances.argmin())
    groups.append({
        f'sample {i}': video[0],
        f'nearest training clip, {distances[best]:.3f} away':
            train.read(best, best + 1)[0],
    })
  return report.Clips(
      'Nearest training clips', groups,
      f'The nearest of {len(train)} training clips, by the root mean square '
      'difference of their frames shrunk to 8x8 pixels, in units of the whole '
      'range of a pixel.',
  )


def _report(
    title: str,
    found: scores.Found,
    options: score_options.Options,
    protocol: protocols.Protocol,
    extractors: Mapping[str, feature_files.Extractor],
    block: dict[str, Any],
    panels: list[report.Clips],
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
      'command': 'python -m video_diffusion.main '
      + shlex.join(sys.argv[1:]),
      'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'JAX': jax.__version__,
      'date': datetime.date.today().isoformat(),
  }
  return report.Report(
      title, found.scores, block, found.tables, found.curves, panels
  )
