"""One update of a run: noise, loss, mean gradients, optimizer, EMA.

`train.py` calls the function that `make_train_step` returns, once a step.
"""
from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import rng
from video_diffusion.models import conditioning
from video_diffusion.models import context
from video_diffusion.parallel import sharding
from video_diffusion.training import next_frames as next_frames_lib
from video_diffusion.training import optimizer as optimizer_lib
from video_diffusion.training import state as state_lib

# The loss is also reported for each of so many equal parts of the log-SNR
# range, the buckets, noisiest first.
NUM_BUCKETS = 4


def to_float(video: jax.Array) -> jax.Array:
  """uint8 in [0, 255] -> float32 in [-1, 1], x / 127.5 - 1."""
  return video.astype(jnp.float32) / 127.5 - 1.0


def logsnr_bucket(
    logsnr: jax.Array, logsnr_min: float, logsnr_max: float
) -> jax.Array:
  """One-hot [..., NUM_BUCKETS]: the bucket of each log-SNR, noisiest first."""
  share = (logsnr - logsnr_min) / (logsnr_max - logsnr_min)
  index = jnp.clip(share * NUM_BUCKETS, 0, NUM_BUCKETS - 1).astype(jnp.int32)
  return jax.nn.one_hot(index, NUM_BUCKETS)


def make_loss(
    model: conditioning.ConditionalUNet,
    *,
    num_images: int,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    share_noise: bool = False,
    pure_noise: float = 0.0,
    cond_drop: float = 0.0,
    weight_fn: Callable[[jax.Array], jax.Array] = jnp.ones_like,
    next_frames: int = 0,
    train: bool = False,
) -> tuple[Callable, Callable]:
  """The paper's objective in two functions, (draw_noise, loss_fn).

  draw_noise(key, batch) adds the random numbers of an update to a batch:
  'logsnr' [b, f], 'eps' of the video's shape and, with cond_drop, 'keep' [b],
  False where the conditioning is dropped. Each row of the result stands by
  itself, so that a batch may be taken in parts.

  loss_fn(params, batch with its noise, key) returns (weighted mean loss,
  metrics). The key is for dropout. The metrics 'bucket_sum' and 'bucket_count'
  [NUM_BUCKETS] are the sum and the number of the frame losses, unweighted, in
  each log-SNR bucket.

  Args:
    model: a `ConditionalUNet`.
    num_images: K, the frames of other videos at the end of each example.
    prediction: what the network outputs, one of `loss.PREDICTIONS`.
    logsnr_fn: the schedule, time in [0, 1] -> log-SNR.
    share_noise: gives a video and its images one log-SNR.
    pure_noise: share of the videos at t = 1.
    cond_drop: probability with which the conditioning of an example is dropped.
    weight_fn: log-SNR -> weight of a frame's loss, see `diffusion.loss.weight`.
    next_frames: J, see `next_frames.appended`. Their losses count alike, and
      are the metrics of `next_frames.metrics` as well.
    train: applies dropout.
  """
  metrics = make_metrics(logsnr_fn)
  draw_logsnr = functools.partial(
      loss_lib.draw_logsnr, share=share_noise, pure_noise=pure_noise,
      logsnr_fn=logsnr_fn,
  )
  draw_noise = make_draw_noise(
      lambda key, **sizes: {'logsnr': draw_logsnr(key, **sizes)},
      num_images=num_images, cond_drop=cond_drop, next_frames=next_frames,
  )

  def loss_fn(params, batch, key):
    losses = loss_lib.frame_losses(
        network_of(model, params, batch, num_images, key if train else None),
        x=to_float(batch['video']),
        eps=batch['eps'],
        logsnr=batch['logsnr'],
        prediction=prediction,
    )
    loss = (weight_fn(batch['logsnr']) * losses).mean()
    found = metrics(losses, batch['logsnr'])
    if next_frames:
      found |= next_frames_lib.metrics(losses[:, -next_frames:])
    return loss, found

  return draw_noise, loss_fn


def make_draw_noise(
    draw_level: Callable[..., dict[str, jax.Array]],
    *,
    num_images: int,
    cond_drop: float,
    next_frames: int,
) -> Callable:
  """Makes draw_noise of `make_loss`, for any kind of noise level.

  Args:
    draw_level: (key, batch=, num_frames=, num_images=) -> what the noise has
      for the level of each frame [b, f], by name.
    num_images: see `make_loss`, as cond_drop and next_frames.
  """

  def draw_noise(key, batch):
    level_key, eps_key, drop_key = jax.random.split(key, 3)
    b, f = batch['video'].shape[:2]
    batch = next_frames_lib.appended(
        jax.random.fold_in(drop_key, 1), batch,
        num_frames=f - num_images, next_frames=next_frames,
    )
    noise = draw_level(
        level_key, batch=b, num_frames=f - num_images,
        num_images=num_images + next_frames,
    )
    shape = batch['video'].shape
    noise['eps'] = jax.random.normal(eps_key, shape, jnp.float32)
    if cond_drop:
      noise['keep'] = jax.random.bernoulli(drop_key, 1.0 - cond_drop, (b,))
    return batch | jax.tree.map(sharding.constrain_batch, noise)

  return draw_noise


def network_of(
    model: conditioning.ConditionalUNet,
    params: Any,
    batch: dict[str, jax.Array],
    num_images: int,
    dropout_key: jax.Array | None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """(z, log-SNR) -> output, under the conditioning of a batch with its noise.

  Args:
    model: a `ConditionalUNet`.
    params: its parameters.
    batch: see `make_loss`; next frames come with the frames before them.
    num_images: K, without next frames.
    dropout_key: applies dropout; None applies none.
  """
  more = {}
  if 'places' in batch:
    num_images += batch['places'].shape[1]
    more['previous'] = context.take_previous(
        to_float(batch['video'][:, :-num_images]),
        batch['places'],
        model.context.frames,
    )
  return lambda z, logsnr: model.apply(
      {'params': params},
      z,
      logsnr,
      condition=model.condition_of(batch),
      keep=batch.get('keep'),
      num_images=num_images,
      train=dropout_key is not None,
      guidance_weight=batch.get('guidance_weight', 0.0),
      rngs=None if dropout_key is None else {'dropout': dropout_key},
      **more,
  )


def make_metrics(
    logsnr_fn: Callable[[jax.Array], jax.Array]
) -> Callable[..., dict[str, jax.Array]]:
  """Makes (losses [b, f], log-SNRs [b, f]) -> the metrics of `make_loss`.

  A third argument, bool [b, f], says which frames are known and count nowhere.
  """
  logsnr_max, logsnr_min = (float(logsnr_fn(jnp.float32(t))) for t in (0, 1))

  def metrics(losses, logsnr, known=None):
    bucket = logsnr_bucket(logsnr, logsnr_min, logsnr_max)
    if known is not None:
      bucket = jnp.where(known[..., None], 0.0, bucket)
    return {
        'bucket_sum': jnp.einsum(
            'bf,bfn->n', losses, bucket, precision=jax.lax.Precision.HIGHEST
        ),
        'bucket_count': bucket.sum((0, 1)),
    }

  return metrics


def split_batch(batch: dict[str, jax.Array], parts: int) -> dict[str, Any]:
  """[b, ...] -> [parts, b / parts, ...], each part over all devices.

  Part i takes rows i, i + parts, ...: a device keeps the rows that it has.
  """

  def split(x):
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    return sharding.constrain_batch(x, axis=1)

  return jax.tree.map(split, batch)


def mean_gradients(
    loss_fn: Callable, params: Any, batch: Any, key: jax.Array, parts: int
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
  """((loss, metrics), gradients) of a batch taken in equal parts, in turn.

  Args:
    loss_fn: (params, batch, key) -> (mean loss, metrics that are sums).
    params: tree of parameters.
    batch: arrays [b, ...].
    key: for dropout.
    parts: number of parts; it divides b.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  if parts == 1:
    return grad_fn(params, batch, key)

  def add_part(total, i_part):
    i, part = i_part
    found = grad_fn(params, part, jax.random.fold_in(key, i))
    return jax.tree.map(jnp.add, total, found), None

  batches = split_batch(batch, parts)
  first = jax.tree.map(lambda x: x[0], batches)
  zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(grad_fn, params, first, key),
  )
  ((loss, metrics), grads), _ = jax.lax.scan(
      add_part, zeros, (jnp.arange(parts), batches)
  )
  # The buckets are sums; loss and gradients are means.
  return (loss / parts, metrics), jax.tree.map(lambda g: g / parts, grads)


def make_train_step(
    draw_noise: Callable,
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    learning_rate: optax.Schedule,
    ema_decay: Callable,
    seed: int,
    accumulate: int = 1,
) -> Callable:
  """A pure function (state, batch) -> (state, metrics).

  An update whose loss or gradient is not finite is skipped: parameters, EMA and
  moments remain, the step counts on, and the metric 'skipped' is 1. Learning
  rate and EMA decay depend on the number of updates that were applied, not on
  the step. The metric 'learning_rate' is the one that this update used.

  Args:
    draw_noise: first result of `make_loss`, or of `distill.make_loss`.
    loss_fn: second result, with train=True. It also gets the teacher of a
      `StudentState`.
    optimizer: from `optimizer.make_optimizer`.
    learning_rate: the schedule of that optimizer, for the metrics.
    ema_decay: number of an update -> decay.
    seed: the run's seed; the step's randomness is its 'train' stream.
    accumulate: number of parts in which a batch is taken, one after the other,
      to save memory. The gradient is that of the whole batch; only dropout
      differs.
  """

  def train_step(state, batch):
    noise_key, dropout_key = jax.random.split(
        rng.stream_key(seed, 'train', state.step)
    )
    of_state = loss_fn
    if isinstance(state, state_lib.StudentState):
      of_state = functools.partial(loss_fn, teacher=state.teacher)
    (loss, metrics), grads = mean_gradients(
        of_state,
        state.params,
        draw_noise(noise_key, batch),
        dropout_key,
        accumulate,
    )
    grad_norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    done = optimizer_lib.updates_done(state.opt_state)
    decay = ema_decay(done)
    ema_params = jax.tree.map(
        lambda ema, p: ema + (1.0 - decay) * (p - ema), state.ema_params, params
    )
    after = (params, ema_params, opt_state)
    before = (state.params, state.ema_params, state.opt_state)
    after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, before)
    metrics |= {
        'loss': loss,
        'grad_norm': grad_norm,
        'learning_rate': learning_rate(done),
        'skipped': 1 - finite.astype(jnp.int32),
    }
    params, ema_params, opt_state = after
    return state.replace(
        step=state.step + 1,
        params=params,
        ema_params=ema_params,
        opt_state=opt_state,
    ), metrics

  return train_step
