"""What an evaluator is: one object that measures a model."""
from collections.abc import Callable, Iterator
import dataclasses
from typing import Protocol

from etils import epath

from video_diffusion.api import model as model_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline

FOLDER = 'evaluation'  # of a run, which holds reports


@dataclasses.dataclass(frozen=True)
class Run:
  """What evaluators are made of.

  Attributes:
    model: model of the run, perhaps without weights so far.
    source: held-out clips.
    encode: makes the arrays of captions, for a run with text.
    source_of: name of a split, 'train' or 'test' -> its clips.
    folder: folder for reports, and for what an interrupted call goes on from.
    num_samples: number of samples that are scored; 0 takes that of the config.
    keep: whether samples stay on disk.
  """

  model: model_lib.Model
  source: mixture_lib.Source
  encode: pipeline.Encode | None
  source_of: Callable[[str], mixture_lib.Source]
  folder: epath.Path
  num_samples: int = 0
  keep: bool = False


class Evaluator(Protocol):
  """Measures a model.

  It is made once, of a `Run`, and keeps what it compiles.

  Attributes:
    key: where evaluation.json has its values.
    prefix: begins the names of its curves; no other evaluator has it.
    raw: training also gives it the raw weights, not only their EMA.
  """

  key: str
  prefix: str
  raw: bool

  def __call__(
      self, model: model_lib.Model
  ) -> Iterator[tuple[str, float | None]]:
    """Yields (name, value); None where there is no value."""
