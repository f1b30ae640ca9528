"""The optax chain, the learning rate and the EMA decay."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.training import muon

OPTIMIZERS = ('adam', 'muon')
SCHEDULES = ('constant', 'cosine')
EMA_RULES = ('constant', 'ramp')


def make_learning_rate(
    *, lr: float, warmup_steps: int, schedule: str, decay_steps: int
) -> optax.Schedule:
  """Linear warmup to `lr`, then constant (the paper) or a cosine to zero.

  Args:
    lr: the peak.
    warmup_steps: number of updates from 0 to the peak (this project's choice;
      the paper states none).
    schedule: 'constant' or 'cosine'.
    decay_steps: the update at which 'cosine' reaches zero.

  Raises:
    ArgumentError: an unknown schedule, or a cosine that ends in the warmup.
  """
  if schedule not in SCHEDULES:
    raise ArgumentError(
        Argument('schedule'),
        f' is {schedule!r}; it must be one of {SCHEDULES}.',
    )
  if schedule == 'constant':
    after = optax.constant_schedule(lr)
  elif decay_steps > warmup_steps:
    after = optax.cosine_decay_schedule(lr, decay_steps - warmup_steps)
  else:
    raise ArgumentError(
        Argument('decay_steps'),
        f' is {decay_steps}; a cosine schedule needs more than ',
        Argument('warmup_steps'), f', {warmup_steps}.',
    )
  if not warmup_steps:
    return after
  warmup = lambda count: lr * (count + 1) / warmup_steps
  return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    learning_rate: optax.Schedule,
    *,
    name: str = 'adam',
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    clip_norm: float,
) -> optax.GradientTransformation:
  """Clip of the global norm, Adam or Muon, decoupled decay, learning rate.

  `updates_done` reads the state of this chain.

  Adam and its betas are the paper's; clip 1.0 of the mean gradient, eps and
  the decoupled decay are this project's choice, and so is 'muon', which
  `muon.make_muon` describes.
  """
  adam = {'b1': beta1, 'b2': beta2, 'eps': eps}
  if name == 'muon':
    scale = muon.make_muon(**adam)
  else:
    scale = optax.scale_by_adam(**adam)
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      scale,
      optax.add_decayed_weights(weight_decay),
      optax.scale_by_learning_rate(learning_rate),
  )


def updates_done(opt_state: optax.OptState) -> jax.Array:
  """Returns how many updates the chain of `make_optimizer` has applied.

  The learning rate of the next update is that of this number. A step that was
  skipped does not count, so the number may be smaller than the step.
  """
  return opt_state[-1].count


def make_ema_decay(*, decay: float, rule: str) -> Callable:
  """The decay of the parameters' moving average at update n.

  'constant' is the paper's; 'ramp' is min(decay, (1 + n) / (10 + n)), for short
  runs, whose average would otherwise remain mostly the initial weights.

  Raises:
    ArgumentError: an unknown rule.
  """
  if rule not in EMA_RULES:
    raise ArgumentError(
        Argument('rule'), f' is {rule!r}; it must be one of {EMA_RULES}.',
    )
  if rule == 'constant':
    return lambda step: decay
  return lambda step: jnp.minimum(decay, (1.0 + step) / (10.0 + step))
