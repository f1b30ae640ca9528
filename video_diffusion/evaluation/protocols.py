"""Protocols by which videos are scored, by name.

A score without its protocol says little: the number of samples, what they are
compared with and whether known frames count move an FVD by more than most
methods do. Every report prints the protocol beside the score.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What is sampled and what it is compared with.

  Attributes:
    num_samples: number of samples.
    real_splits: splits of the data that the samples are compared with, each by
      itself: 'train' or 'test'.
    num_real: number of real clips of a split. 0 takes as many as there are
      samples.
    known_frames: first frames of a real clip of the last split, which the model
      is given. Sample i continues real clip i, and known frames count in all
      scores. 0 samples from noise alone.
    samples_per_clip: number of samples that continue the same real clip.
    replacement: the real clips are drawn with replacement, and those that are
      compared are others than those that give the known frames. Otherwise the
      samples continue the very clips that they are compared with.
    metrics: names of `scores.METRICS`.
  """

  num_samples: int
  real_splits: tuple[str, ...] = ('test',)
  num_real: int = 0
  known_frames: int = 0
  samples_per_clip: int = 1
  replacement: bool = False
  metrics: tuple[str, ...] = ('fvd', 'kvd', 'flicker')


PROTOCOLS = {
    # This project's own: samples of any run against its held-out clips.
    'heldout': Protocol(2_048),
    # The paper's table 1: 10,000 samples under C3D features. The paper does not
    # name its reference clips; these are those of training, as in the public
    # code of TGAN-v2.
    'ucf101': Protocol(
        10_000, ('train',), metrics=('c3d', 'fvd', 'kvd', 'flicker')
    ),
    # The paper's table 2: 100 samples for each of the 256 evaluation videos.
    'bair_1to15': Protocol(
        25_600, num_real=256, known_frames=1, samples_per_clip=100
    ),
    # The paper's table 3: samples and ground truth are the same sub-sequences,
    # drawn without replacement.
    'kinetics600_5to11': Protocol(
        50_000, known_frames=5, metrics=('fvd', 'i3d_is', 'kvd', 'flicker')
    ),
    # As the paper's last sentence on it has it: with replacement, and another
    # seed for the ground truth.
    'kinetics600_5to11_replacement': Protocol(
        50_000, known_frames=5, replacement=True,
        metrics=('fvd', 'i3d_is', 'kvd', 'flicker'),
    ),
    # The paper's tables 4 to 6: pairs of scores against both splits.
    'text': Protocol(
        4_096, ('train', 'test'), metrics=('fvd', 'frames', 'kvd', 'flicker')
    ),
    # A folder of videos against another.
    'videos': Protocol(0),
}
