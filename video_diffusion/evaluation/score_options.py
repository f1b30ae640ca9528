"""How videos are scored: the options of a call, and their check."""
import dataclasses

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.evaluation import extractors as extractors_lib
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import features as features_lib
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import frames as frames_lib
from video_diffusion.evaluation import protocols
from video_diffusion.evaluation import scores

I3D = {'fvd', 'kvd', 'i3d_is'}  # metrics of its features


@dataclasses.dataclass(frozen=True)
class Options:
  """How videos are scored.

  Attributes:
    protocol: name of a protocol.
    metrics: names of metrics; () takes those of the protocol.
    num_samples: number of samples; 0 takes that of the protocol.
    frames: number of frames of a clip; 0 takes that of a clip of the run, or 16
      for folders.
    seed: seed of samples, real clips and intervals.
    resize: how frames are resized for the I3D; see `features`.
    i3d: path to the weights of the I3D; '' finds the installed ones.
    c3d: path to the weights of the C3D.
    c3d_mean: path to the mean clip of the C3D's training data.
    inception: path to the weights of the Inception network of frames; '' lets
      torch-fidelity fetch them.
  """

  protocol: str = 'heldout'
  metrics: tuple[str, ...] = ()
  num_samples: int = 0
  frames: int = 0
  seed: int = 0
  resize: str = 'reference'
  i3d: str = ''
  c3d: str = ''
  c3d_mean: str = ''
  inception: str = ''

  def resolved(self) -> protocols.Protocol:
    """The protocol, with what the options say.

    Raises:
      ArgumentError: there is no such protocol or metric.
    """
    if self.protocol not in protocols.PROTOCOLS:
      raise ArgumentError(
          Argument('protocol'), f' is {self.protocol!r}; it must be one of '
          f'{", ".join(protocols.PROTOCOLS)}.',
      )
    for name in self.metrics:
      if name not in scores.METRICS:
        raise ArgumentError(
            Argument('metrics'), f' holds {name!r}; there are '
            f'{", ".join(scores.METRICS)}.',
        )
    protocol = protocols.PROTOCOLS[self.protocol]
    return dataclasses.replace(
        protocol,
        metrics=tuple(self.metrics) or protocol.metrics,
        num_samples=self.num_samples or protocol.num_samples,
    )


def make_extractors(options: Options) -> dict[str, feature_files.Extractor]:
  """The networks that the metrics need, with their weights.

  They keep what they compile: make them once for all scores of a process.

  Raises:
    UserError: weights are missing or wrong.
  """
  protocol = options.resolved()
  made = {'flicker': extractors_lib.Flicker()}
  if I3D & {*protocol.metrics}:
    made['i3d'] = features_lib.I3DFeatures(
        options.i3d or None, resize=options.resize
    )
  if 'c3d' in protocol.metrics:
    made['c3d'] = extractors_lib.C3D(options.c3d, options.c3d_mean)
  if 'frames' in protocol.metrics:
    frames_lib.require()
  return made


def check(options: Options, frames: int) -> None:
  """Checks that options fit, before anything is sampled or read.

  Args:
    options: how to score.
    frames: number of frames of a clip, unless the options say another.

  Raises:
    UserError: clips are too short, or there is no such protocol or metric.
  """
  protocol, frames = options.resolved(), options.frames or frames
  if frames < folder_clips.MIN_FRAMES and I3D & {*protocol.metrics}:
    raise ArgumentError(
        Argument('frames'), f': clips of {frames} frames cannot be scored, '
        f'since the I3D network needs at least {folder_clips.MIN_FRAMES}; set '
        'it, or leave fvd, kvd and i3d_is out of ', Argument('metrics'), '.',
    )
  if protocol.known_frames >= frames:
    raise ArgumentError(
        Argument('protocol'), f' {options.protocol!r} gives the model '
        f'{protocol.known_frames} frames, of clips of {frames}; take a model '
        'of longer clips, or another protocol.',
    )
