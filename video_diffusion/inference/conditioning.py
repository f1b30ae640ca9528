"""What videos are conditioned on: labels or captions, given or held out."""
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError


class Conditions(NamedTuple):
  """The conditions of some videos.

  Attributes:
    num_videos: their number.
    arrays: what the model's encoder takes, by name, each [num_videos, 1, ...];
      None for an unconditional model.
    captions: one for each video; () for a model that takes no text.
  """

  num_videos: int
  arrays: dict[str, np.ndarray] | None = None
  captions: tuple[str, ...] = ()


def from_captions(
    captions: Sequence[str],
    encode: Callable[[Sequence[str]], dict[str, np.ndarray]],
) -> Conditions:
  """The conditions of videos with these captions.

  Args:
    captions: one for each video.
    encode: captions -> the arrays of each, by name.
  """
  arrays = {name: x[:, None] for name, x in encode(captions).items()}
  return Conditions(len(captions), arrays, tuple(captions))


def from_labels(
    labels: Sequence[Any], *, num_videos: int, sizes: tuple[int, ...]
) -> Conditions:
  """The conditions of videos with these labels, repeated as needed.

  Args:
    labels: for each video a tuple with the value of each label slot, -1 where a
      label is absent; a model with one slot also takes bare numbers.
    num_videos: number of videos.
    sizes: the number of values of each slot.

  Raises:
    ArgumentError: labels of another length, or out of range.
  """
  rows = []
  for given in labels:
    row = given if isinstance(given, (tuple, list, np.ndarray)) else (given,)
    good = len(row) == len(sizes) and all(
        isinstance(value, (int, np.integer)) and -1 <= value < size
        for value, size in zip(row, sizes, strict=True)
    )
    if not good:
      raise ArgumentError(
          Argument('labels'),
          f' holds {given}; each entry must be a tuple of {len(sizes)} whole '
          f'numbers from -1 to below {sizes}.',
      )
    rows.append(row)
  rows = [rows[i % len(rows)] for i in range(num_videos)]
  return Conditions(num_videos, {'labels': np.asarray(rows, np.int32)[:, None]})


@dataclasses.dataclass(frozen=True)
class Conditioner:
  """Makes the conditions of videos, for one model.

  Attributes:
    heldout: number of examples -> that many held-out ones, in turn (see
      `data.mixture.Source.example`); raises UserError where there are no data.
    encode: makes the arrays of the text encoder from captions, for a model that
      takes text. Prompts of a person come as its argument `prompts` as well, to
      be checked.
    label_sizes: number of values of each label slot, for a model that takes
      labels.
    arrays: name -> shape of one clip and dtype, for a model that takes anything
      else (see `models.conditioning`); they come from held-out examples.
  """

  heldout: Callable[[int], Iterator[dict[str, Any]]]
  encode: Callable[..., dict[str, np.ndarray]] | None = None
  label_sizes: tuple[int, ...] = ()
  arrays: Mapping[str, jax.ShapeDtypeStruct] = dataclasses.field(
      default_factory=dict
  )

  @property
  def takes(self) -> str:
    """What a person may give: 'text', 'labels' or ''."""
    return 'text' if self.encode else 'labels' if self.label_sizes else ''

  def __call__(
      self,
      num_videos: int | None = None,
      prompts: Sequence[str] | None = None,
      labels: Sequence[Any] | None = None,
  ) -> Conditions:
    """The conditions of some videos.

    Args:
      num_videos: number of videos; None takes the number of prompts or labels.
      prompts: captions, repeated as needed.
      labels: see `from_labels`. Without prompts and labels a conditional model
        takes the conditions of held-out clips.

    Raises:
      UserError: prompts or labels do not fit the model, or there are no
        held-out clips.
    """
    takes = self.takes
    if isinstance(prompts, str):
      prompts = (prompts,)
    for name, given, fits in (
        ('prompts', prompts, takes == 'text'),
        ('labels', labels, takes == 'labels'),
    ):
      if given is None:
        continue
      if not fits:
        raise ArgumentError(
            Argument(name),
            f' must not be given: the model takes {takes or "no condition"}.',
        )
      if not len(given):
        raise ArgumentError(
            Argument(name), ' is empty; it must have at least one entry.'
        )
      num_videos = num_videos or len(given)
    least = len(prompts or (1,))
    if num_videos is None or num_videos < least:
      reason = ', the number of prompts' if prompts else ''
      raise ArgumentError(
          Argument('num_videos'),
          f' is {num_videos}; it must be at least {least}{reason}.',
      )
    if prompts is not None:
      captions = [prompts[i % len(prompts)] for i in range(num_videos)]
      encode = functools.partial(self.encode, prompts=tuple(prompts))
      return from_captions(captions, encode)
    if labels is not None:
      return from_labels(
          labels, num_videos=num_videos, sizes=self.label_sizes
      )
    if not takes and not self.arrays:
      return Conditions(num_videos)
    examples = list(self.heldout(num_videos))
    if takes == 'text':
      return from_captions([e['caption'] for e in examples], self.encode)
    if not takes:
      return Conditions(num_videos, {
          name: np.stack([
              np.asarray(e[name], s.dtype).reshape(1, *s.shape)
              for e in examples
          ])
          for name, s in self.arrays.items()
      })
    rows = [np.asarray(e['labels']).ravel() for e in examples]
    return Conditions(
        num_videos, {'labels': np.asarray(rows, np.int32)[:, None]}
    )

  def like(self, others: Conditions) -> Conditions:
    """The conditions of videos that another model has sampled."""
    if self.encode:
      return from_captions(others.captions, self.encode)
    takes = self.label_sizes or self.arrays
    return others._replace(arrays=others.arrays if takes else None)
