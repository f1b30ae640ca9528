"""How much clips change from frame to frame, and clips that bound it.

All of these figures are this project's own. A clip is uint8 [time, height,
width, 3] with at least two frames.
"""
import numpy as np

# Luma of ITU-R BT.601, of the gamma-coded values as they stand in the file.
REC_601 = (0.299, 0.587, 0.114)


def luma(videos: np.ndarray) -> np.ndarray:
  """float64 [n, time] in [0, 255]: the mean Rec. 601 luma of every frame.

  Args:
    videos: uint8 [n, time, height, width, 3].

  Raises:
    ValueError: videos has another dtype or shape.
  """
  return _checked(videos).mean((2, 3), dtype=np.float64) @ np.array(REC_601)


def ink(videos: np.ndarray) -> np.ndarray:
  """float64 [n, time]: the sum of all pixels and channels of every frame.

  Of light figures on black, as moving digits are, it is how much of them shows.

  Args:
    videos: uint8 [n, time, height, width, 3].

  Raises:
    ValueError: videos has another dtype or shape.
  """
  return _checked(videos).sum((2, 3, 4), dtype=np.float64)


def change(series: np.ndarray) -> np.ndarray:
  """float64 [n]: the mean over time of |series(t + 1) - series(t)|.

  Args:
    series: real numbers [n, time], or vectors [n, time, d], for instance
      features of the frames, whose change is the Euclidean length. At least two
      of time.

  Raises:
    ValueError: series has another number of axes or less than two of time.
  """
  series = np.asarray(series, np.float64)
  if series.ndim not in (2, 3) or series.shape[1] < 2:
    raise ValueError(
        f'series has the shape {series.shape}; it must be [n, time] or [n, '
        'time, d], with at least two of time.'
    )
  steps = np.diff(series, axis=1)
  sizes = np.abs(steps) if steps.ndim == 2 else np.linalg.norm(steps, axis=2)
  return sizes.mean(1)


def relative_change(series: np.ndarray) -> np.ndarray:
  """float64 [n]: `change` over the size of the clip's mean.

  The mean is that over time; of vectors, its Euclidean length. A clip that does
  not change has 0 also where its mean is 0, and one that does has infinity.

  Args:
    series: as of `change`.

  Raises:
    ValueError: as of `change`.
  """
  found = change(series)
  mean = np.asarray(series, np.float64).mean(1)
  size = np.abs(mean) if mean.ndim == 1 else np.linalg.norm(mean, axis=1)
  return np.divide(
      found, size, out=np.where(found > 0, np.inf, 0.0), where=size > 0
  )


def flicker(videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Change of the mean luma: (absolute, relative), float64 [n] each.

  The absolute figure is in units of the 255 steps of a pixel. The relative one
  is over the clip's own mean luma, so that dark clips compare with bright ones.

  Args:
    videos: uint8 [n, time, height, width, 3].

  Raises:
    ValueError: videos has another dtype or shape, or one frame alone.
  """
  series = luma(videos)
  return change(series), relative_change(series)


def ink_flicker(videos: np.ndarray) -> np.ndarray:
  """float64 [n]: mean |ink(t + 1) - ink(t)| over the clip's mean ink.

  Args:
    videos: uint8 [n, time, height, width, 3].

  Raises:
    ValueError: as of `flicker`.
  """
  return relative_change(ink(videos))


def ink_spread(videos: np.ndarray) -> float:
  """The standard deviation, over clips, of a clip's mean ink.

  It is in white pixels, each of which has the ink 3 * 255.

  Args:
    videos: uint8 [n, time, height, width, 3].

  Raises:
    ValueError: as of `ink`.
  """
  return float((ink(videos).mean(1) / (3 * 255)).std())


def shuffled_frames(videos: np.ndarray, seed: int) -> np.ndarray:
  """A control: the frames of each clip in a random order of its own.

  A score of motion must tell it from the clips; one of single frames cannot.

  Args:
    videos: uint8 [n, time, height, width, 3]; any [n, time, ...] will do.
    seed: of the orders.
  """
  rng = np.random.default_rng(seed)
  orders = [rng.permutation(videos.shape[1]) for _ in videos]
  return np.stack([
      clip[order] for clip, order in zip(videos, orders, strict=True)
  ]) if len(videos) else videos.copy()


def unrelated_frames(videos: np.ndarray, seed: int) -> np.ndarray:
  """A control: clips whose frames are of different clips.

  Each frame of the clips comes once, at the place in time that it had: no score
  of single frames can tell them from the clips.

  Args:
    videos: uint8 [n, time, height, width, 3]; any [n, time, ...] will do.
    seed: of the choice.
  """
  rng = np.random.default_rng(seed)
  return np.stack([
      frames[rng.permutation(len(frames))] for frames in videos.swapaxes(0, 1)
  ], 1) if videos.shape[1] else videos.copy()


def repeated_frame(
    videos: np.ndarray, *, frame: int | None = None, seed: int = 0
) -> np.ndarray:
  """A control: clips that stand still on one of their own frames.

  Args:
    videos: uint8 [n, time, height, width, 3]; any [n, time, ...] will do.
    frame: which one, as an index; None draws one for each clip.
    seed: of the draw.

  Raises:
    ValueError: the clips have no such frame.
  """
  n, time = videos.shape[:2]
  if frame is None:
    frames = np.random.default_rng(seed).integers(0, time, n)
  elif -time <= frame < time:
    frames = np.full(n, frame)
  else:
    raise ValueError(f'frame is {frame}; the clips have {time} frames.')
  return np.repeat(videos[np.arange(n), frames][:, None], time, axis=1)


def _checked(videos):
  videos = np.asarray(videos)
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
        f'videos is {videos.dtype} of shape {videos.shape}; it must be uint8 '
        '[n, time, height, width, 3].'
    )
  return videos
