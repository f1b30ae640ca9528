"""Features of samples and of real clips, and the distances between them.

A score alone says little. Beside each distance stand, from the same features,
the distance of real clips to other real clips (the floor), and of real clips
with their frames shuffled, or with one frame in place of all: a metric that
does not see these does not see time.
"""
from collections.abc import Callable, Mapping
import dataclasses

from etils import epath
import numpy as np

from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import report
from video_diffusion.metrics import bootstrap

DRAWS = 100  # of a bootstrap interval
CURVE_DRAWS = 20  # of the interval of each point of a curve
FEWEST = 16  # clips of the first point of a curve
Progress = Callable[[str], Callable[[int, int], None] | None]


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

  def floor(self, extractor: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Features of two sets of real clips that share none.

    None where there are fewer than four real clips, of which no two sets of at
    least two can be made.
    """
    features = self.features(self.real_name, extractor)
    if self.sets.others is not None:
      return features, self.features('others', extractor)
    half = len(features) // 2
    if half < 2:
      return None
    return features[:half], features[half : 2 * half]

  def controls(self, distance, extractor: str, title: str) -> report.Table:
    """A table of the distances of real clips: the floor, and two controls.

    Args:
      distance: (features, features) -> number.
      extractor: name of the extractor.
      title: name of the distance.
    """
    real = self.features(self.real_name, extractor)
    floor = self.floor(extractor)
    rows = [
        [
            'real against other real clips (the floor)',
            distance(*floor) if floor else None, len(floor[0]) if floor else 0,
        ],
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
