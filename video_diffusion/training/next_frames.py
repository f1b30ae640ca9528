"""Training on next frames, for models that extend a video frame by frame."""
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

  They are denoised like images, each at a noise level of its own, but from the
  clean frames before them in the video (`models.context`). Which frames they
  are is drawn anew each time.

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
