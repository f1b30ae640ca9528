"""The training loss: draw t and eps, diffuse, square, weigh."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import gaussian
from video_diffusion.diffusion import schedules

PREDICTIONS = ('eps', 'v', 'x')
WEIGHTINGS = ('none', 'min_snr', 'sigmoid')
MIN_SNR = 5.0  # gamma of Hang et al. (2023)


def target(
    *, x: jax.Array, eps: jax.Array, logsnr: jax.Array, prediction: str
) -> jax.Array:
  """What the network is trained to output.

  'eps' is the noise; 'v' is alpha eps - sigma x (Progressive Distillation, used
  by the paper's BAIR and Kinetics models; MSE in v is this project's choice).
  'x' is the video itself, which no model of the paper predicts.
  """
  if prediction == 'eps':
    return eps
  if prediction == 'x':
    return x
  alpha, sigma = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, x))
  return alpha * eps - sigma * x


def x_hat(
    *, z: jax.Array, output: jax.Array, logsnr: jax.Array, prediction: str
) -> jax.Array:
  """The denoised video from a network output of the given prediction."""
  output = output.astype(jnp.float32)
  if prediction == 'eps':
    return gaussian.x_from_eps(z=z, eps=output, logsnr=logsnr)
  if prediction == 'x':
    return output
  return gaussian.x_from_v(z=z, v=output, logsnr=logsnr)


def weight(
    logsnr: jax.Array,
    *,
    prediction: str,
    weighting: str,
    bias: float = 0.0,
    shift: float = 0.0,
) -> jax.Array:
  """Weight of the squared error of `prediction` at a log-SNR, of its shape.

  'none' is 1, as in the paper: the squared error of whatever is predicted. With
  'x' all levels then count by the error of x_hat, whereas 'eps' weights it by
  SNR, and 'v' by 1 + SNR. The others are written for the error of x_hat, which
  is that of x, that of eps over SNR, and that of v over 1 + SNR:

  - 'min_snr' weights it by min(SNR, 5) (Hang et al. 2023, arXiv 2303.09556).
  - 'sigmoid' weights it by -dlambda/dt sigmoid(lambda - bias) (Hoogeboom et al.
    2024, arXiv 2410.19324, after Kingma & Gao 2023), where the cosine schedule
    has -dlambda/dt proportional to cosh((lambda - shift) / 2).

  Args:
    logsnr: any shape.
    prediction: what the network outputs, one of PREDICTIONS.
    weighting: one of WEIGHTINGS.
    bias: of 'sigmoid', a log-SNR.
    shift: of the schedule, see `schedules.cosine_logsnr`.
  """
  if weighting == 'none':
    return jnp.ones_like(logsnr)
  ratio = log_error_ratio(logsnr, prediction)
  if weighting == 'min_snr':
    return jnp.exp(ratio + jnp.minimum(logsnr, jnp.log(MIN_SNR)))
  # cosh by its logarithm, which does not overflow at the ends.
  half = jnp.abs(logsnr - shift) / 2
  log_cosh = half + jnp.log1p(jnp.exp(-2 * half)) - jnp.log(2.0)
  return jnp.exp(ratio + log_cosh + jax.nn.log_sigmoid(logsnr - bias))


def log_error_ratio(logsnr: jax.Array, prediction: str) -> jax.Array:
  """log of the squared error of x_hat over that of the prediction."""
  return {
      'eps': -logsnr,
      'v': -jax.nn.softplus(logsnr),
      'x': jnp.zeros_like(logsnr),
  }[prediction]


def draw_logsnr(
    key: jax.Array,
    *,
    batch: int,
    num_images: int,
    num_frames: int,
    share: bool = False,
    pure_noise: float = 0.0,
    logsnr_fn: Callable[[jax.Array], jax.Array] = schedules.cosine_logsnr,
) -> jax.Array:
  """Log-SNRs of continuous times t ~ U[0, 1], float32 [batch, T + K].

  The T video frames of an example share one t; every appended image has its
  own, or with `share` the video's (the paper is silent; own is this project's
  choice). A part `pure_noise` of the videos, drawn at random, has t = 1
  instead: there the network learns what a condition says by itself, of a motion
  above all, before it can see anything (0 in the paper).
  """
  t = jax.random.uniform(key, (batch, 1 + num_images))
  if pure_noise:
    blind_key = jax.random.fold_in(key, 1)
    blind = jax.random.bernoulli(blind_key, pure_noise, (batch,))
    t = t.at[:, 0].set(jnp.where(blind, 1.0, t[:, 0]))
  return to_frames(logsnr_fn(t), num_frames=num_frames, share=share)


def to_frames(
    values: jax.Array, *, num_frames: int, share: bool
) -> jax.Array:
  """Values of a video and its K images -> of each frame, [batch, T + K].

  Args:
    values: [batch, 1 + K], that of the video first.
    num_frames: T.
    share: gives the images the value of the video.
  """
  video, images = values[:, :1], values[:, 1:]
  if share:
    return jnp.repeat(video, num_frames + images.shape[1], axis=1)
  return jnp.concatenate(
      [jnp.repeat(video, num_frames, axis=1), images], axis=1
  )


def frame_losses(
    network: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    x: jax.Array,
    eps: jax.Array,
    logsnr: jax.Array,
    prediction: str,
) -> jax.Array:
  """Squared error per frame: mean over pixels and channels (paper eq. 1).

  Args:
    network: (z, logsnr) -> output of z's shape.
    x: clean frames [batch, T + K, height, width, channels] in [-1, 1].
    eps: standard normal noise of x's shape.
    logsnr: [batch, T + K].
    prediction: one of PREDICTIONS.

  Returns:
    float32 [batch, T + K]. The training loss is its mean: all T + K frames
    weigh the same (this project's choice).
  """
  z = gaussian.diffuse(x=x, eps=eps, logsnr=logsnr)
  output = network(z, logsnr).astype(jnp.float32)
  want = target(x=x, eps=eps, logsnr=logsnr, prediction=prediction)
  return jnp.mean((output - want) ** 2, axis=(-3, -2, -1))
