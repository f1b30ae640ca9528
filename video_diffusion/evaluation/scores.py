"""Scores by name: what each metric says of samples, for a report."""
import dataclasses

from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import frames as frame_lib
from video_diffusion.evaluation import fvd as fvd_lib
from video_diffusion.evaluation import report
from video_diffusion.evaluation import scorer as scorer_lib
from video_diffusion.metrics import inception_score
from video_diffusion.metrics import kvd

CLASSES = 101  # of UCF101, the last features of the C3D
_LOWER = 'lower is better'


@dataclasses.dataclass(frozen=True)
class Found:
  """What a metric adds to a report."""

  scores: tuple[report.Score, ...] = ()
  tables: tuple[report.Table, ...] = ()
  curves: tuple[report.Curve, ...] = ()


def _fvd(scorer: scorer_lib.Scorer) -> Found:
  scores = scorer.distances(
      fvd_lib.fvd, 'i3d', 'FVD', _LOWER, interval=scorer.interval
  )
  table = scorer.controls(fvd_lib.fvd, 'i3d', 'FVD')
  real = scorer.features(scorer.real_name, 'i3d')
  series = {
      'samples': scorer.over_counts(scorer.features('samples', 'i3d'), real),
  }
  if floor := scorer.floor('i3d'):
    series['other real clips'] = scorer.over_counts(*floor[::-1])
  curve = report.Curve(
      'FVD over the number of samples', 'samples', 'FVD', series, log_x=True,
      note='A few samples give an FVD that is too high. All real clips are '
      'taken throughout. Bands are 95 % bootstrap intervals.',
  )
  return Found(tuple(scores), (table,), (curve,))


def _kvd(scorer: scorer_lib.Scorer) -> Found:
  scores = scorer.distances(
      kvd.kernel_distance, 'i3d', 'KVD',
      f'unbiased squared MMD, may be below zero; {_LOWER}',
  )
  table = scorer.controls(kvd.kernel_distance, 'i3d', 'KVD')
  return Found(tuple(scores), (table,))


def _inception(scorer, extractor, title, classes):
  """Inception scores of the samples and of the last real set."""
  scores = []
  for name in ('samples', scorer.real_name):
    logits = scorer.features(name, extractor)[:, classes]
    splits = min(10, len(logits))
    mean, spread = inception_score.inception_score(logits, splits=splits)
    scores.append(report.Score(
        f'{title} of {"samples" if name == "samples" else "real clips"}', mean,
        note=f'{len(logits)} clips in {splits} splits, whose standard '
        f'deviation is {spread:.3g}; higher is better',
    ))
  return scores


def _i3d_is(scorer: scorer_lib.Scorer) -> Found:
  return Found(tuple(_inception(scorer, 'i3d', 'IS (I3D)', slice(None))))


def _c3d(scorer: scorer_lib.Scorer) -> Found:
  hidden = slice(0, -CLASSES)
  distance = lambda a, b: fvd_lib.fvd(a[:, hidden], b[:, hidden])
  scores = scorer.distances(distance, 'c3d', 'FID (C3D)', _LOWER)
  scores += _inception(
      scorer, 'c3d', 'IS (C3D)', slice(-CLASSES, None)
  )
  return Found(tuple(scores))


def _frames(scorer: scorer_lib.Scorer) -> Found:
  """Frame scores of torch-fidelity: of all frames, and of the first alone."""
  scores = []
  batches = lambda clips: (
      clips.read(i, min(i + feature_files.CHUNK, len(clips)))
      for i in range(0, len(clips), feature_files.CHUNK)
  )
  for frames, word in (('all', 'avg'), ('first', 'first')):
    for name, clips in scorer.sets.real.items():
      found = frame_lib.frame_scores(
          batches(scorer.sets.samples), batches(clips), frames=frames,
          splits=min(10, len(scorer.sets.samples)),
          weights=scorer.inception or None,
      )
      title = f'FID-{word}'
      scores.append(report.Score(
          title if len(scorer.sets.real) == 1 else f'{title} ({name})',
          found.fid,
          note=f'torch-fidelity, {frames} frames against those of {name}; '
          f'{_LOWER}',
      ))
    scores.append(report.Score(
        f'IS-{word}', found.is_mean,
        note=f'torch-fidelity, {frames} frames; the standard deviation over '
        f'splits is {found.is_std:.3g}; higher is better',
    ))
  return Found(tuple(scores))


def _flicker(scorer: scorer_lib.Scorer) -> Found:
  columns = ['clips', *FLICKER]
  rows, means = [], {}
  for name in ('samples', *scorer.sets.real):
    values = scorer.features(name, 'flicker')
    means[name] = values.mean(0)
    rows.append([name, *means[name].tolist()])
  samples, real = means['samples'], means[scorer.real_name]
  scores = [
      report.Score(
          f'Flicker of {name}', float(a / b) if b else None,
          note='that of the samples as a multiple of that of real clips; near '
          '1 is better',
      )
      for name, a, b in zip(FLICKER, samples, real, strict=True)
  ]
  table = report.Table(
      'Flicker: mean change from frame to frame', columns, rows,
      'The luminance is the mean of a frame, relative to that of its clip. A '
      'thumbnail is a frame shrunk to 8x8 pixels.',
  )
  return Found(tuple(scores), (table,))


FLICKER = ('luminance', 'thumbnails')  # the features of the extractor 'flicker'
METRICS = {
    'fvd': _fvd, 'kvd': _kvd, 'i3d_is': _i3d_is, 'c3d': _c3d,
    'frames': _frames, 'flicker': _flicker,
}


def score(scorer: scorer_lib.Scorer, metrics: tuple[str, ...]) -> Found:
  """What metrics say, in their order.

  Args:
    scorer: knows what is compared.
    metrics: names of METRICS.
  """
  found = [METRICS[name](scorer) for name in metrics]
  return Found(*(
      sum((getattr(f, field.name) for f in found), ())
      for field in dataclasses.fields(Found)
  ))
