"""FID and IS of single frames, by torch-fidelity and its Inception network.

torch-fidelity owns the network, its weights, the resize and the formulas, so
that the figures compare with those of the literature on images. It fetches the
weights when it first runs.
"""
from collections.abc import Iterable
import os
from typing import Any, NamedTuple
import urllib.error

import numpy as np

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files


class FrameScores(NamedTuple):
  """Scores of frames.

  Attributes:
    fid: the Frechet Inception Distance; None without a reference.
    is_mean: mean of the Inception Score over the splits.
    is_std: standard deviation over the splits, by their number.
  """

  fid: float | None
  is_mean: float
  is_std: float


def frame_scores(
    samples: Iterable[np.ndarray],
    reference: Iterable[np.ndarray] | None,
    *,
    frames: str = 'all',
    splits: int = 10,
    batch_size: int = 64,
    extractor: str | None = None,
    weights: str | None = None,
    cuda: bool | None = None,
) -> FrameScores:
  """FID of the samples against the reference, and IS of the samples.

  Video Diffusion Models reports 'avg' and 'first' scores and does not say how
  frames are averaged. Here 'all' is one score of the frames of all clips
  together, not the mean of a score for each time.

  Args:
    samples: generated videos, as an array or as batches of any size; uint8 [n,
      time, height, width, 3], or one video without the batch axis. Their frames
      are held in memory until the scores are taken.
    reference: real videos, likewise; height and width need not be those of the
      samples. None takes no FID.
    frames: 'all', or 'first' of each video.
    splits: parts of the Inception Score, from 1 to the number of frames; the
      paper reports 1 and 10.
    batch_size: frames that the network sees at a time.
    extractor: name of a network registered with torch-fidelity; None is its
      Inception.
    weights: file of the network's weights; None lets torch-fidelity fetch them.
      torch unpickles the file, which may run whatever it holds: take it from
      where you trust.
    cuda: whether torch uses a GPU; None uses one where torch finds one.

  Raises:
    ArgumentError: an argument is out of its range, there is no such file of
      weights, or videos are not uint8 of those axes, of unlike sizes or too
      few.
    UserError: torch-fidelity does not import, or its weights cannot be fetched.
  """
  if frames not in ('all', 'first'):
    raise ArgumentError(
        Argument('frames'), f" is {frames!r}; it must be 'all' or 'first'."
    )
  if weights is not None:
    weights = files.expand(weights, Argument('weights'))
    if not os.path.isfile(weights):
      raise ArgumentError(
          Argument('weights'), f' is {weights!r}, where there is no file.'
      )
  torch, torch_fidelity = _import()
  shown = frames_of(samples, frames, name='samples')
  count = sum(map(len, shown))
  if not 1 <= splits <= count:
    raise ArgumentError(
        Argument('splits'), f' is {splits}; it must be from 1 to the {count} '
        'frames of ', Argument('samples'), '.',
    )
  inputs: dict[str, Any] = {'input1': _dataset(torch, shown)}
  if reference is not None:
    real = frames_of(reference, frames, name='reference')
    inputs['input2'] = _dataset(torch, real)
  try:
    found = torch_fidelity.calculate_metrics(
        **inputs,
        fid=reference is not None,
        isc=True,
        isc_splits=splits,
        batch_size=batch_size,
        feature_extractor=extractor,
        feature_extractor_weights_path=weights,
        cuda=torch.cuda.is_available() if cuda is None else cuda,
        # No worker processes: a fork beside JAX's threads may hang.
        save_cpu_ram=True,
        verbose=False,
    )
  except urllib.error.URLError as error:
    raise UserError(
        'torch-fidelity cannot fetch the weights of its Inception network '
        f'({error.reason}); copy the file to this machine and name it in '
        'weights.'
    ) from error
  fid = found.get(torch_fidelity.KEY_METRIC_FID)
  return FrameScores(
      None if fid is None else float(fid),
      float(found[torch_fidelity.KEY_METRIC_ISC_MEAN]),
      float(found[torch_fidelity.KEY_METRIC_ISC_STD]),
  )


def frames_of(
    videos: Iterable[np.ndarray], frames: str, *, name: str = 'videos'
) -> list[np.ndarray]:
  """The frames of all videos, as a list of uint8 [k, height, width, 3].

  Args:
    videos: as the samples of `frame_scores`.
    frames: 'all' or 'first'.
    name: of the argument, for an error.

  Raises:
    ArgumentError: a batch is not uint8 of those axes, frames have unlike sizes,
      or there are fewer than two.
  """
  found = []
  for batch in videos:
    batch = np.asarray(batch)
    if batch.ndim == 4:
      batch = batch[None]
    if batch.dtype != np.uint8 or batch.ndim != 5 or batch.shape[-1] != 3:
      raise ArgumentError(
          Argument(name), f' has {batch.dtype} of shape {batch.shape}; videos '
          'must be uint8 [n, time, height, width, 3].',
      )
    if frames == 'first':
      batch = batch[:, :1].copy()  # The others need not stay in memory.
    found.append(batch.reshape(-1, *batch.shape[2:]))
    if found[-1].shape[1:] != found[0].shape[1:]:
      raise ArgumentError(
          Argument(name), f' has frames of {found[0].shape[1:3]} and of '
          f'{found[-1].shape[1:3]} pixels; all must be of one size.',
      )
  count = sum(map(len, found))
  if count < 2:
    raise ArgumentError(
        Argument(name), f' has {count} frames; there must be at least two.'
    )
  return found


def require() -> None:
  """Requires that frames can be scored here.

  Raises:
    UserError: torch-fidelity does not import.
  """
  _import()


def _import():
  """(torch, torch_fidelity), or a sentence about what is missing."""
  try:
    import torch
    import torch_fidelity
  # RuntimeError: torchvision, beside a torch that it was not built for.
  except (ImportError, RuntimeError) as error:
    raise UserError(
        f'Scores of frames need torch-fidelity, which does not import ({error})'
        "; install it by pip install 'video_diffusion[frames]'."
    ) from error
  return torch, torch_fidelity


def _dataset(torch, shown):
  """Frames as torch-fidelity takes them: uint8 [3, height, width] by index."""
  starts = np.cumsum([0, *map(len, shown)])

  class Frames(torch.utils.data.Dataset):

    def __len__(self):
      return int(starts[-1])

    def __getitem__(self, i):
      if not 0 <= i < len(self):
        raise IndexError(i)
      block = int(np.searchsorted(starts, i, 'right')) - 1
      frame = shown[block][i - starts[block]]
      return torch.from_numpy(np.moveaxis(frame, -1, 0).copy())

  return Frames()
