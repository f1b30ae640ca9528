"""Scores of a set of clips against real ones, with what they are worth.

A score alone says little. Beside each distance stand, from the same features,
the distance of real clips to other real clips (the floor), and of real clips
with their frames shuffled, or with one frame in place of all: a metric that
does not see these does not see time.
"""
from collections.abc import Callable, Mapping
import dataclasses

from etils import epath
import numpy as np

from video_diffusion.errors import UserError
from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import frames as frame_lib
from video_diffusion.evaluation import report
from video_diffusion.metrics import bootstrap
from video_diffusion.metrics import frechet
from video_diffusion.metrics import inception_score
from video_diffusion.metrics import kvd

DRAWS = 100  # of a bootstrap interval
CURVE_DRAWS = 20  # of the interval of each point of a curve
CLASSES = 101  # of UCF101, the last features of the C3D
FEWEST = 16  # clips of the first point of a curve
Progress = Callable[[str], Callable[[int, int], None] | None]
_LOWER = 'lower is better'


@dataclasses.dataclass(frozen=True)
class Sets:
  """What is compared.

  Attributes:
    samples: the clips that are scored.
    real: name of a set of real clips -> the set. The last is the one of the
      floor and of the controls.
    others: further real clips, which none of the last set is among; None takes
      the two halves of that set for the floor.
  """

  samples: clip_sets.ClipSet
  real: Mapping[str, clip_sets.ClipSet]
  others: clip_sets.ClipSet | None = None


@dataclasses.dataclass(frozen=True)
class Found:
  """What a metric adds to a report."""

  scores: tuple[report.Score, ...] = ()
  tables: tuple[report.Table, ...] = ()
  curves: tuple[report.Curve, ...] = ()


class Scorer:
  """Scores sets of clips by name of the metric.

  Attributes:
    sets: what is compared.
    real_name: name of the last real set.
    seed: seed of the resampling.
    inception: path to the weights of the Inception network of frames, or ''.
  """

  def __init__(
      self,
      sets: Sets,
      extractors: Mapping[str, feature_files.Extractor],
      folder: epath.PathLike,
      *,
      seed: int = 0,
      inception: str = '',
      progress: Progress = lambda title: None,
  ):
    """Prepares the scores; nothing is computed yet.

    Args:
      sets: what is compared.
      extractors: 'i3d', 'c3d' and 'flicker', those that are needed.
      folder: keeps features, for a call that is interrupted.
      seed: seed of the resampling of bootstrap intervals.
      inception: path to the weights of the Inception network of frames; ''
        lets torch-fidelity fetch them.
      progress: title of a set of features -> what is called with (clips done,
        clips in all), or None.
    """
    self.sets, self.seed, self.inception = sets, seed, inception
    self._extractors, self._folder = extractors, folder
    self._progress = progress
    self._features = {}
    self.real_name, self._real = list(sets.real.items())[-1]

  def score(self, metrics: tuple[str, ...]) -> Found:
    """What the metrics say, in their order.

    Args:
      metrics: names of METRICS.
    """
    found = [METRICS[name](self) for name in metrics]
    return Found(*(
        sum((getattr(f, field.name) for f in found), ())
        for field in dataclasses.fields(Found)
    ))

  def features(self, name: str, extractor: str) -> np.ndarray:
    """The features of a set.

    Args:
      name: 'samples', 'others', a name of `Sets.real`, or 'shuffled' or
        'repeated', which alter the clips of the last real set.
      extractor: name of the extractor.
    """
    if (name, extractor) in self._features:
      return self._features[name, extractor]
    clips = {
        'samples': self.sets.samples,
        'others': self.sets.others,
        **self.sets.real,
        'shuffled': clip_sets.shuffled_frames(self._real),
        'repeated': clip_sets.repeated_frame(self._real),
    }[name]
    found = feature_files.features(
        clips, self._extractors[extractor], self._folder,
        self._progress(f'{extractor} of {name}'),
    )
    self._features[name, extractor] = found
    return found

  def floor(self, extractor: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of two sets of real clips that share none."""
    features = self.features(self.real_name, extractor)
    if self.sets.others is not None:
      return features, self.features('others', extractor)
    half = len(features) // 2
    if half < 2:
      raise UserError(
          f'the set {self.real_name!r} has {len(features)} clips; the floor '
          'of a score needs at least 4.'
      )
    return features[:half], features[half : 2 * half]

  def controls(self, distance, extractor: str, title: str) -> report.Table:
    """A table of the distances of real clips: the floor, and two controls.

    Args:
      distance: (features, features) -> number.
      extractor: name of the extractor.
      title: name of the distance.
    """
    real = self.features(self.real_name, extractor)
    a, b = self.floor(extractor)
    rows = [
        ['real against other real clips (the floor)', distance(a, b), len(a)],
        [
            'real with frames shuffled',
            distance(self.features('shuffled', extractor), real), len(real),
        ],
        [
            'real with one frame repeated',
            distance(self.features('repeated', extractor), real), len(real),
        ],
    ]
    return report.Table(
        f'{title} of real clips', ['clips', title, 'number of each'], rows,
        'The floor is the best that any samples could reach with this number '
        'of clips. A metric that sees time is far above it in the other rows.',
    )

  def interval(self, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a Frechet distance, about its value.

    A resampled set holds fewer different clips, which makes the distance
    larger. The interval is moved by the mean of that.
    """
    found = bootstrap.frechet_interval(a, b, draws=DRAWS, seed=self.seed)
    return found.low - found.bias, found.high - found.bias

  def over_counts(self, a: np.ndarray, b: np.ndarray) -> list[report.Point]:
    """(n, distance, low, high) of the first n of `a`, for n up to all."""
    counts = [len(a) >> shift for shift in range(FEWEST.bit_length())]
    counts = [n for n in reversed(counts) if n >= FEWEST] or [len(a)]
    return [
        (n, found.value, found.low - found.bias, found.high - found.bias)
        for n, found in bootstrap.fvd_over_counts(
            a, b, counts, draws=CURVE_DRAWS, seed=self.seed
        )
    ]

  def distances(
      self, distance, extractor: str, title: str, note: str, **interval
  ) -> list[report.Score]:
    """The distance of the samples to each real set.

    Args:
      distance: (features, features) -> number.
      extractor: name of the extractor.
      title: name of the distance.
      note: ends the note of the score.
      **interval: `interval`, (features, features) -> (low, high).
    """
    samples = self.features('samples', extractor)
    scores = []
    for name, clips in self.sets.real.items():
      real = self.features(name, extractor)
      ends = interval['interval'](samples, real) if interval else (None, None)
      scores.append(report.Score(
          title if len(self.sets.real) == 1 else f'{title} ({name})',
          distance(samples, real), *ends,
          f'{len(samples)} samples against {len(clips)} clips of {name}; '
          f'{note}',
      ))
    return scores


def frechet_of(a: np.ndarray, b: np.ndarray) -> float:
  """The Frechet distance of two sets of features [n, d]."""
  return frechet.frechet_distance(
      *frechet.mean_and_covariance(a), *frechet.mean_and_covariance(b)
  )


def _fvd(scorer: Scorer) -> Found:
  scores = scorer.distances(
      frechet_of, 'i3d', 'FVD', _LOWER, interval=scorer.interval
  )
  table = scorer.controls(frechet_of, 'i3d', 'FVD')
  real = scorer.features(scorer.real_name, 'i3d')
  series = {
      'samples': scorer.over_counts(scorer.features('samples', 'i3d'), real),
      'other real clips': scorer.over_counts(*scorer.floor('i3d')[::-1]),
  }
  curve = report.Curve(
      'FVD over the number of samples', 'samples', 'FVD', series, log_x=True,
      note='A few samples give an FVD that is too high. All real clips are '
      'taken throughout. Bands are 95 % bootstrap intervals.',
  )
  return Found(tuple(scores), (table,), (curve,))


def _kvd(scorer: Scorer) -> Found:
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


def _i3d_is(scorer: Scorer) -> Found:
  return Found(tuple(_inception(scorer, 'i3d', 'IS (I3D)', slice(None))))


def _c3d(scorer: Scorer) -> Found:
  hidden = slice(0, -CLASSES)
  distance = lambda a, b: frechet_of(a[:, hidden], b[:, hidden])
  scores = scorer.distances(distance, 'c3d', 'FID (C3D)', _LOWER)
  scores += _inception(
      scorer, 'c3d', 'IS (C3D)', slice(-CLASSES, None)
  )
  return Found(tuple(scores))


def _frames(scorer: Scorer) -> Found:
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


def _flicker(scorer: Scorer) -> Found:
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
