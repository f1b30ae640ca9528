"""The real clips that samples are scored against, by a protocol."""
from collections.abc import Callable

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import scorer as scorer_lib

NAMES = {'train': 'training clips', 'test': 'held-out clips'}  # of the splits


class RealSets:
  """The sets of real clips of a protocol.

  Attributes:
    compared: name of a set -> the clips that samples are compared with.
    reference: clips of the last split, of which samples may know frames.
    others: see `scorer.Sets`.
  """

  def __init__(
      self,
      source_of: Callable[[str], mixture_lib.Source],
      options: score_options.Options,
      *,
      frames: int,
      frameskips: tuple[int, ...] = (1,),
  ):
    """Chooses the clips.

    Args:
      source_of: name of a split, 'train' or 'test' -> its clips.
      options: how to score.
      frames: number of frames of a clip.
      frameskips: distances of frames that are drawn from.
    """
    self._source_of, self._seed = source_of, options.seed
    self._window = {'frames': frames, 'frameskips': tuple(frameskips)}
    protocol = options.resolved()
    count = protocol.num_real or protocol.num_samples
    replacement = protocol.replacement
    clips = {
        split: self.clips(split, count, replacement=replacement)
        for split in protocol.real_splits
    }
    split, self.reference = list(clips.items())[-1]
    self.others = None
    if replacement:
      # The clips that are compared are others than those that are continued.
      clips[split] = self.clips(
          split, count, replacement=True, seed=options.seed + 1
      )
    elif self.reference.num_clips >= 2 * len(self.reference):
      self.others = self.clips(split, count, first=len(self.reference))
    self.compared = {NAMES[name]: real for name, real in clips.items()}

  def clips(self, split: str, count: int, **fields) -> clip_sets.RealClips:
    """Clips of a split; no more than there are, unless drawn anew each time.

    Args:
      split: 'train' or 'test'.
      count: number of clips.
      **fields: of `clip_sets.RealClips`.
    """
    source = self._source_of(split)
    if not fields.get('replacement'):
      count = min(count, mixture_lib.as_mixture(source).num_examples)
    return clip_sets.RealClips(
        source, split=split, count=count,
        **self._window, **{'seed': self._seed, **fields},
    )

  def sets(self, samples: clip_sets.ClipSet) -> scorer_lib.Sets:
    """What is compared, for samples."""
    return scorer_lib.Sets(samples, self.compared, self.others)

  def describe(self) -> dict[str, str | bool]:
    """What the protocol block of a report says of the clips compared with."""
    return {
        **{
            f'{name} compared with': f'{len(real)} of {real.num_clips}, '
            f'{real.distinct} of them distinct'
            for name, real in self.compared.items()
        },
        'data fingerprint': self.reference.identity['fingerprint']
        or 'clips made on the fly have none',
    }
