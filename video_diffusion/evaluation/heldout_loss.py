"""The loss of held-out clips, also by log-SNR bucket, on fixed seeds."""
from collections.abc import Callable, Iterable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import rng
from video_diffusion.errors import Argument
from video_diffusion.parallel import collectives
from video_diffusion.parallel import memory
from video_diffusion.parallel import sharding
from video_diffusion.training import next_frames as next_frames_lib
from video_diffusion.training import step as step_lib

SEED = 0  # seed of times and noise, whatever the run's seed is


def make_eval_step(
    network,
    *,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    mesh: jax.sharding.Mesh,
    next_frames: int = 0,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
) -> Callable:
  """(params, batch, number of the batch) -> loss, bucket sums and counts.

  Args:
    network: a `ConditionalUNet`.
    prediction: what the network outputs, one of `loss.PREDICTIONS`.
    logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
    mesh: all devices.
    next_frames: number of next frames of each clip, for a network with a
      context; their loss is apart.
    weight_fn: log-SNR -> weight of a frame's loss, but for the buckets.
  """
  make_loss = functools.partial(
      step_lib.make_loss, network, num_images=0, prediction=prediction,
      logsnr_fn=logsnr_fn, weight_fn=weight_fn,
  )
  draw_noise, loss_fn = make_loss()
  draw_more, loss_of_more = make_loss(next_frames=next_frames)

  def eval_step(params, batch, i):
    key = rng.stream_key(SEED, 'evaluate', i)
    loss, metrics = loss_fn(params, draw_noise(key, batch), key)
    if next_frames:
      _, more = loss_of_more(params, draw_more(key, batch), key)
      metrics = more | metrics
    return metrics | {'loss': loss}

  return jax.jit(eval_step, out_shardings=sharding.replicated(mesh))


def mean_losses(
    eval_step: Callable,
    params: Any,
    batches: Iterable[dict[str, np.ndarray]],
    *,
    batch_size: int,
    num_clips: int,
    mesh: jax.sharding.Mesh,
) -> dict[str, float | None]:
  """The mean loss of all clips, and that of each log-SNR bucket.

  Args:
    eval_step: from `make_eval_step`.
    params: weights of the network.
    batches: this process's part of each batch of clips.
    batch_size: clips of a batch, over all devices.
    num_clips: clips of all batches, a multiple of batch_size.
    mesh: all devices.

  Returns:
    'loss', then 'loss_bucket_0', the noisiest, to 'loss_bucket_3'; None for a
    bucket that no clip fell into. Then 'loss_next' of next frames, if any.

  Raises:
    ArgumentError: batch_size is too large for the memory of a device.
  """
  devices = sharding.batch_devices(mesh)
  too_large = functools.partial(
      memory.batch_too_large, Argument('batch_size'), batch_size,
      allowed=[
          n for n in range(devices, batch_size, devices) if num_clips % n == 0
      ],
  )
  results = []
  with jax.set_mesh(mesh), memory.explained(too_large):
    for i, batch in enumerate(batches):
      batch = collectives.global_batch(batch, mesh)
      results.append(eval_step(params, batch, i))
    results = jax.device_get(results)
  sums = np.sum([r['bucket_sum'] for r in results], axis=0)
  counts = np.sum([r['bucket_count'] for r in results], axis=0)
  losses = {'loss': float(np.mean([r['loss'] for r in results]))}
  for i in range(step_lib.NUM_BUCKETS):
    # A bucket that no clip fell into has no loss, not a loss of zero.
    mean = float(sums[i] / counts[i]) if counts[i] else None
    losses[f'loss_bucket_{i}'] = mean
  return losses | next_frames_lib.mean_loss(results)
