"""The train state and the pure train step."""
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from video_diffusion.diffusion import loss as loss_lib

# Randomness is a function of (seed, stream, step), never carried state.
STREAMS = ('init', 'train', 'evaluate', 'sample')
NUM_QUARTERS = 4  # the loss is also reported by quarter of the log-SNR range


@flax.struct.dataclass
class TrainState:
  """Everything that a checkpoint holds; step = number of updates done."""

  step: jax.Array
  params: Any
  ema_params: Any
  opt_state: Any


def stream_key(seed: int, stream: str, step: jax.Array | int = 0) -> jax.Array:
  """The random key of a stream at a step."""
  key = jax.random.fold_in(jax.random.key(seed), STREAMS.index(stream))
  return jax.random.fold_in(key, step)


def init_params(
    model: nn.Module, batch: dict[str, jax.ShapeDtypeStruct], *, seed: int
) -> Any:
  """The first parameters; traced lazily, so only random draws are compiled.

  Args:
    model: a `ConditionalUNet`.
    batch: shapes of one batch, 'video' and perhaps 'labels'.
    seed: of the run.
  """
  b, f = batch['video'].shape[:2]
  return model.lazy_init(
      stream_key(seed, 'init'),
      jax.ShapeDtypeStruct(batch['video'].shape, jnp.float32),
      jax.ShapeDtypeStruct((b, f), jnp.float32),
      labels=batch.get('labels'),
      num_images=batch['labels'].shape[1] - 1 if 'labels' in batch else 0,
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


def make_loss_fn(
    model: nn.Module,
    *,
    num_images: int,
    prediction: str,
    logsnr_fn: Callable[[jax.Array], jax.Array],
    share_noise: bool = False,
    cond_drop: float = 0.0,
    train: bool = False,
) -> Callable:
  """(params, batch, key) -> (mean loss, metrics); the paper's objective.

  The metrics hold 'quarter_sum' and 'quarter_count' [4], the sum and number of
  the frame losses in each quarter of the log-SNR range.
  """
  logsnr_max, logsnr_min = (float(logsnr_fn(jnp.float32(t))) for t in (0, 1))

  def loss_fn(params, batch, key):
    t_key, eps_key, drop_key, dropout_key = jax.random.split(key, 4)
    x = to_float(batch['video'])
    b, f = x.shape[:2]
    logsnr = loss_lib.draw_logsnr(
        t_key,
        batch=b,
        num_frames=f - num_images,
        num_images=num_images,
        share=share_noise,
        logsnr_fn=logsnr_fn,
    )
    keep = None
    if cond_drop:
      keep = jax.random.bernoulli(drop_key, 1.0 - cond_drop, (b,))

    def network(z, logsnr):
      return model.apply(
          {'params': params},
          z,
          logsnr,
          labels=batch.get('labels'),
          keep=keep,
          num_images=num_images,
          train=train,
          rngs={'dropout': dropout_key},
      )

    losses = loss_lib.frame_losses(
        network,
        x=x,
        eps=jax.random.normal(eps_key, x.shape, jnp.float32),
        logsnr=logsnr,
        prediction=prediction,
    )
    quarter = quarter_of(logsnr, logsnr_min, logsnr_max)
    metrics = {
        'quarter_sum': jnp.einsum('bf,bfq->q', losses, quarter),
        'quarter_count': quarter.sum((0, 1)),
    }
    return losses.mean(), metrics

  return loss_fn


def make_train_step(
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    rate: optax.Schedule,
    ema_decay: Callable,
    seed: int,
) -> Callable:
  """A pure (state, batch) -> (state, metrics).

  Args:
    loss_fn: from `make_loss_fn` with train=True.
    optimizer: the optax chain.
    rate: the learning rate, for the metrics.
    ema_decay: update number -> decay.
    seed: of the run; the step's randomness is its 'train' stream.
  """

  def train_step(state, batch):
    key = stream_key(seed, 'train', state.step)
    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params, batch, key
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = ema_decay(state.step)
    ema_params = jax.tree.map(
        lambda ema, p: ema + (1.0 - decay) * (p - ema), state.ema_params, params
    )
    metrics |= {
        'loss': loss,
        'grad_norm': optax.tree.norm(grads),
        'learning_rate': rate(state.step),
    }
    state = TrainState(state.step + 1, params, ema_params, opt_state)
    return state, metrics

  return train_step
