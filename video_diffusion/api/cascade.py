"""The cascade of two models."""
from collections.abc import Callable, Sequence
import math
from typing import Any

from etils import epath
import ml_collections
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.diffusion import extension
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.inference import rollout


class Cascade:
  """The paper's two models: sparse and small, then dense and large (fig. 2).

  Attributes:
    base: samples frames `stride` apart.
    refiner: samples all frames, at its own size.
  """

  def __init__(
      self,
      base: model_lib.Model,
      refiner: model_lib.Model,
      stride: int | None = None,
  ):
    """Joins two models.

    Args:
      base: the first model.
      refiner: the second model.
      stride: distance of the base's frames, in frames of the refiner. None
        takes what the data of the runs say, else the base run's sample.stride.

    Raises:
      UserError: the models do not fit.
    """
    self.base, self.refiner = base, refiner
    data = base.config.data, refiner.config.data
    if stride is None:
      stride = _ratio(*data) or base.config.sample.stride
    self._stride = stride
    (h, w), (height, width) = base.size, refiner.size
    self._upscale = height // h
    if (height, width) != (self._upscale * h, self._upscale * w):
      raise ArgumentError(
          Argument('refiner'), f' is a model of {height}x{width}, no whole '
          f'multiple of {h}x{w}.',
      )
    check_stride(stride, *data)
    takes, given = refiner.conditioner, base.conditioner
    if takes.encode and not given.encode:
      raise ArgumentError(
          Argument('refiner'), ' is a model that takes text, and the base '
          'takes none.',
      )
    if takes.label_sizes and takes.label_sizes != given.label_sizes:
      raise ArgumentError(
          Argument('refiner'), ' is a model that takes labels, and the base '
          'takes none or others.',
      )

  def sample(
      self,
      *,
      num_videos: int | None = None,
      prompts: Sequence[str] | None = None,
      labels: Sequence[Any] | None = None,
      frames: int | None = None,
      overlap: int | None = None,
      seed: int = 0,
      batch_size: int | None = None,
      progress: Callable[[int, int], None] | None = None,
      resume_dir: epath.PathLike | None = None,
      **settings: Any,
  ) -> np.ndarray:
    """Samples videos from noise; see `Model.sample`.

    Args:
      num_videos: see `Model.conditions`, of the base.
      prompts: see `Model.conditions`.
      labels: see `Model.conditions`.
      frames: frames of a video; None takes all that the base reaches.
      overlap: known frames of a block of the refiner; None takes those of its
        run, or 1.
      seed: see `Model.sample`.
      batch_size: see `Model.sample`.
      progress: see `Model.sample`.
      resume_dir: see `Model.sample`.
      **settings: further arguments of `Model.sample`, for both models.

    Returns:
      uint8 [n, frames, height, width, 3], of the refiner's size.
    """
    base, refiner = self.base, self.refiner
    with model_lib.plan_arguments():
      plan = extension.cascade(
          frames or base.frames * self._stride,
          base_frames=base.frames,
          stride=self._stride,
          block_frames=refiner.frames,
          overlap=overlap or refiner.config.sample.overlap or 1,
      )
    conditions = base.conditions(num_videos, prompts, labels)
    batches = base.batches(conditions.num_videos, batch_size)
    stages = []
    for i, (model, seen, upscale) in enumerate((
        (base, conditions, 1),
        (refiner, refiner.conditioner.like(conditions), self._upscale),
    )):
      stages.append(model.stage(
          model.with_settings(**settings), seen, batches, upscale=upscale,
          block_frames=next(len(b.frames) for b in plan.blocks if b.model == i),
      ))
    return rollout.run(
        plan, stages, batches, seed=seed, resume_dir=resume_dir,
        progress=progress,
    )


def cascade(
    base: model_lib.Model,
    refiner: model_lib.Model,
    stride: int | None = None,
) -> Cascade:
  """The cascade of two models; see `Cascade`."""
  return Cascade(base, refiner, stride)


def _distances(base, refiner) -> tuple[list[float], list[float]] | None:
  """How far apart the frames of both runs may lie, in frames or in seconds.

  None where those of one run are counted and those of the other timed
  (data.fps), which cannot be compared.
  """
  rates = [data.get('fps', 0.0) for data in (base, refiner)]
  if bool(rates[0]) != bool(rates[1]):
    return None
  return tuple(
      [skip / (rate or 1) for skip in data.frameskips]
      for data, rate in zip((base, refiner), rates, strict=True)
  )


def _ratio(base, refiner) -> int | None:
  """The stride that the data of two runs say; None where they do not."""
  distances = _distances(base, refiner)
  if distances is None:
    return None
  ratio = distances[0][0] / distances[1][0]
  return round(ratio) if math.isclose(ratio, round(ratio)) else None


def check_stride(
    stride: int,
    base: ml_collections.ConfigDict,
    refiner: ml_collections.ConfigDict,
) -> None:
  """Requires that the base's frames lie `stride` of the refiner's apart.

  Args:
    stride: frames of the refiner between two of the base.
    base: config.data of the run that samples first.
    refiner: config.data of the run that refines. Where the frames of one of
      the two are counted and those of the other timed (data.fps), they cannot
      be compared, and any stride will do.

  Raises:
    ArgumentError: they lie otherwise.
  """
  distances = _distances(base, refiner)
  if distances is None:
    return
  sparse, dense = distances
  if any(math.isclose(s, stride * d) for s in sparse for d in dense):
    return
  unit = ' seconds' if base.get('fps', 0.0) else ''
  words = lambda distances: ' or '.join(f'{d:g}' for d in distances) + unit
  raise ArgumentError(
      Argument('stride'), f' is {stride}, but the first model samples frames '
      f'{words(sparse)} apart and the refiner frames {words(dense)} apart '
      '(data.frameskips); set it to their ratio.',
  )
