"""Training on next frames, for models that extend a video frame by frame."""
from typing import Any

import jax
import jax.numpy as jnp

from video_diffusion.parallel import sharding


def appended(
    key: jax.Array,
    batch: dict[str, jax.Array],
    *,
    num_frames: int,
    next_frames: int,
) -> dict[str, jax.Array]:
  """A batch whose examples end with J frames of their own video.

  They are denoised like images, each at a noise level of its own (or, with
  images_share_noise, at that of the video), but from the clean frames before
  them in the video (`models.context`). Which frames they are is drawn anew each
  time.

  Args:
    key: of the draw.
    batch: see `step.make_loss`.
    num_frames: T, the frames of the video.
    next_frames: J; 0 leaves the batch as it is.

  Returns:
    The batch with 'video' [b, T + K + J, ...] and 'places' [b, J], where these
    frames are in the video, from 1 to T - 1.
  """
  if not next_frames:
    return batch
  video = batch['video']
  places = jax.random.randint(key, (len(video), next_frames), 1, num_frames)
  own = jax.vmap(lambda video, places: video[places])(video, places)
  more = {'video': jnp.concatenate([video, own], axis=1), 'places': places}
  return batch | jax.tree.map(sharding.constrain_batch, more)


def metrics(losses: jax.Array) -> dict[str, jax.Array]:
  """'next_sum' and 'next_count' of the losses of next frames, unweighted."""
  count = jnp.full((), losses.size, jnp.float32)
  return {'next_sum': losses.sum(), 'next_count': count}


def mean_loss(metrics: list[dict[str, Any]]) -> dict[str, float]:
  """{'loss_next': ...} of all that `metrics` has found; {} without any."""
  sums, counts = (
      sum(float(found[name]) for found in metrics if name in found)
      for name in ('next_sum', 'next_count')
  )
  return {'loss_next': sums / counts} if counts else {}
