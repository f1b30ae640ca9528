"""The train state and the pure train step."""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import rng
from video_diffusion.parallel import sharding
from video_diffusion.training import optimizer as optimizer_lib

# What conditions a clip, as batches and encoders call it.
CONDITIONS = ('labels', 'tokens', 'mask')
NUM_QUARTERS = 4  # the loss is also reported by quarter of the log-SNR range


@flax.struct.dataclass
class TrainState:
  """Everything that a checkpoint holds; step = number of batches taken."""

  step: jax.Array
  params: Any
  ema_params: Any
  opt_state: Any


def condition_of(batch: dict[str, Any]) -> dict[str, Any] | None:
  """Those arrays of a batch that condition it, None where there are none."""
  return {name: batch[name] for name in CONDITIONS if name in batch} or None


def init_params(
    model: nn.Module, batch: dict[str, jax.ShapeDtypeStruct], *, seed: int
) -> Any:
  """The first parameters; traced lazily, so only random draws are compiled.

  Args:
    model: a `ConditionalUNet`.
    batch: shapes of one batch, 'video' and perhaps a condition.
    seed: of the run.
  """
  b, f = batch['video'].shape[:2]
  condition = condition_of(batch)
  captioned = next(iter(condition.values())).shape[1] if condition else 1
  return model.lazy_init(
      rng.stream_key(seed, 'init'),
      jax.ShapeDtypeStruct(batch['video'].shape, jnp.float32),
      jax.ShapeDtypeStruct((b, f), jnp.float32),
      condition=condition,
      num_images=captioned - 1,
  )['params']


def init_state(
    params: Any, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first update; the EMA starts from the parameters."""
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      # A copy: donated buffers must not be shared within a state.
      ema_params=jax.tree.map(jnp.copy, params),
      opt_state=optimizer.init(params),
  )


def to_float(video: jax.Array) -> jax.Array:
  """uint8 in [0, 255] -> float32 in [-1, 1], x / 127.5 - 1."""
  return video.astype(jnp.float32) / 127.5 - 1.0


def quarter_of(
    logsnr: jax.Array, logsnr_min: float, logsnr_max: float
) -> jax.Array:
  """One-hot [..., 4]: which quarter of the log-SNR range, noisiest first."""
  share = (logsnr - logsnr_min) / (logsnr_max - logsnr_min)
  index = jnp.clip(share * NUM_QUARTERS, 0, NUM_QUARTERS - 1).astype(jnp.int32)
  return jax.nn.one_hot(index, NUM_QUARTERS)


def make_loss(
    model: nn.Module,
    *,
    num_images: int,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    share_noise: bool = False,
    pure_noise: float = 0.0,
    cond_drop: float = 0.0,
    train: bool = False,
) -> tuple[Callable, Callable]:
  """(draw, loss_fn), the paper's objective in two parts.

  draw(key, batch) -> batch with its noise: 'logsnr' [b, f], 'eps' of the
  video's shape and 'keep' [b], False where the condition is dropped. Every row
  stands by itself after it, so that a batch may be taken in parts.

  loss_fn(params, noised batch, key) -> (mean loss, metrics); the key is of
  dropout. The metrics hold 'quarter_sum' and 'quarter_count' [4], the sum and
  number of the frame losses in each quarter of the log-SNR range.
  """
  logsnr_max, logsnr_min = (float(logsnr_fn(jnp.float32(t))) for t in (0, 1))

  def draw(key, batch):
    t_key, eps_key, drop_key = jax.random.split(key, 3)
    b, f = batch['video'].shape[:2]
    logsnr = loss_lib.draw_logsnr(
        t_key,
        batch=b,
        num_frames=f - num_images,
        num_images=num_images,
        share=share_noise,
        pure_noise=pure_noise,
        logsnr_fn=logsnr_fn,
    )
    eps = jax.random.normal(eps_key, batch['video'].shape, jnp.float32)
    noise = {'logsnr': logsnr, 'eps': eps}
    if cond_drop:
      noise['keep'] = jax.random.bernoulli(drop_key, 1.0 - cond_drop, (b,))
    return batch | jax.tree.map(sharding.constrain_batch, noise)

  def loss_fn(params, batch, key):
    def network(z, logsnr):
      return model.apply(
          {'params': params},
          z,
          logsnr,
          condition=condition_of(batch),
          keep=batch.get('keep'),
          num_images=num_images,
          train=train,
          rngs={'dropout': key},
      )

    losses = loss_lib.frame_losses(
        network,
        x=to_float(batch['video']),
        eps=batch['eps'],
        logsnr=batch['logsnr'],
        prediction=prediction,
    )
    quarter = quarter_of(batch['logsnr'], logsnr_min, logsnr_max)
    metrics = {
        'quarter_sum': jnp.einsum(
            'bf,bfq->q', losses, quarter, precision=jax.lax.Precision.HIGHEST
        ),
        'quarter_count': quarter.sum((0, 1)),
    }
    return losses.mean(), metrics

  return draw, loss_fn


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
  """((loss, metrics), gradients) of a batch taken in equal parts, in turn."""
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
  # The quarters are sums; loss and gradients are means.
  return (loss / parts, metrics), jax.tree.map(lambda g: g / parts, grads)


def make_train_step(
    draw: Callable,
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    rate: optax.Schedule,
    ema_decay: Callable,
    seed: int,
    accumulate: int = 1,
) -> Callable:
  """A pure (state, batch) -> (state, metrics).

  An update whose loss or gradient is not finite is skipped: parameters, EMA and
  moments remain, the step counts on, 'skipped' is 1. Learning rate and EMA
  decay go by the number of updates that were applied, not by the step;
  'learning_rate' is the one that this update used.

  Args:
    draw: from `make_loss`, as loss_fn is,
    loss_fn: with train=True.
    optimizer: from `optimizer.make_optimizer`.
    rate: the learning rate of that optimizer, for the metrics.
    ema_decay: update number -> decay.
    seed: of the run; the step's randomness is its 'train' stream.
    accumulate: parts in which a batch is taken, each held in memory alone; the
      gradient is that of the whole batch, dropout apart.
  """

  def train_step(state, batch):
    noise_key, dropout_key = jax.random.split(
        rng.stream_key(seed, 'train', state.step)
    )
    (loss, metrics), grads = mean_gradients(
        loss_fn, state.params, draw(noise_key, batch), dropout_key, accumulate
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
        'learning_rate': rate(done),
        'skipped': 1 - finite.astype(jnp.int32),
    }
    return TrainState(state.step + 1, *after), metrics

  return train_step
