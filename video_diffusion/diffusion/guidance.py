"""Transforms of the denoise function: DenoiseFn -> DenoiseFn.

They compose. The order that the paper implies, from the inside out:
classifier-free, then reconstruction or super-resolution, then clipping, so that
gradients see the combined and unclipped prediction.
"""
from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from video_diffusion.diffusion import gaussian

# (z [batch, time, height, width, channels], logsnr [batch]) -> x_hat like z.
# The one thing that samplers and guidance know of a network.
DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]

CLIPPINGS = ('static', 'dynamic', 'none')


def clip(
    denoise_fn: DenoiseFn, *, method: str = 'static', percentile: float = 99.5
) -> DenoiseFn:
  """Keeps x_hat in [-1, 1], the range of the data.

  The paper does not mention it (this project's choice): without it the first
  steps of an eps model, which divide by alpha = 4.5e-5, are unusable.

  Args:
    denoise_fn: the function to clip.
    method: 'static' clips; 'dynamic' divides each video by the percentile of
      its |x_hat| where that exceeds 1, then clips (dynamic thresholding of the
      text-to-image literature); 'none' leaves x_hat as it is.
    percentile: of 'dynamic', in [0, 100].
  """
  if method not in CLIPPINGS:
    raise ValueError(f'clipping is {method!r}; it must be one of {CLIPPINGS}.')

  def clipped(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    x = denoise_fn(z, logsnr)
    if method == 'none':
      return x
    if method == 'dynamic':
      axes = tuple(range(1, x.ndim))
      bound = jnp.percentile(jnp.abs(x), percentile, axis=axes, keepdims=True)
      x = x / jnp.maximum(bound, 1.0)
    return jnp.clip(x, -1.0, 1.0)

  return clipped


def classifier_free(
    cond_fn: DenoiseFn, uncond_fn: DenoiseFn, *, weight: float | jax.Array
) -> DenoiseFn:
  """eps_tilde = (1 + w) eps(z, c) - w eps(z) (classifier-free guidance).

  In x_hat the same combination, since both share z. w = 0 is unguided: the
  conditional function itself, without a call of the other, unless w is a traced
  array.
  """
  if isinstance(weight, (int, float)) and weight == 0:
    return cond_fn

  def guided(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    return (1 + weight) * cond_fn(z, logsnr) - weight * uncond_fn(z, logsnr)

  return guided


def frame_mask(mask: jax.Array, x: jax.Array) -> jax.Array:
  """bool [batch or 1, time] -> broadcastable over x [batch, time, ...]."""
  return jnp.asarray(mask).reshape(mask.shape + (1,) * (x.ndim - 2))


def known_error(
    known: jax.Array, known_mask: jax.Array
) -> Callable[[jax.Array], jax.Array]:
  """x_hat -> || x^a - x_hat^a ||^2, summed over known frames and the batch."""

  def error(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(frame_mask(known_mask, x), known - x, 0.0) ** 2)

  return error


def low_res_error(
    low_res: jax.Array,
    downsample: Callable[[jax.Array], jax.Array],
    low_res_mask: jax.Array | None = None,
) -> Callable[[jax.Array], jax.Array]:
  """x_hat -> || x^a - D(x_hat) ||^2, summed over the batch.

  Args:
    low_res: x^a, [batch, time, low height, low width, channels].
    downsample: D, differentiable.
    low_res_mask: bool [batch or 1, time], the frames that have a low-resolution
      partner; None is all (a cascade over time gives every fourth).
  """

  def error(x: jax.Array) -> jax.Array:
    difference = low_res - downsample(x)
    if low_res_mask is not None:
      mask = frame_mask(low_res_mask, difference)
      difference = jnp.where(mask, difference, 0.0)
    return jnp.sum(difference**2)

  return error


@dataclasses.dataclass(frozen=True)
class Guided:
  """The DenoiseFn x_hat - (alpha / 2) sum_i w_i grad_z error_i(x_hat(z)).

  The gradient goes through the network, once for all terms together, which is
  how reconstruction and super-resolution guidance join in one sampler (paper
  section 3.1). Errors are sums over the batch, so each video's gradient is its
  own.

  Attributes:
    denoise_fn: the function that is guided, unclipped.
    terms: pairs of weight and error; without any, x_hat stays as it is.
    held: bool [batch or 1, time], frames whose x_hat stays as it is; None for
      none.
  """

  denoise_fn: DenoiseFn
  terms: tuple[tuple[float, Callable[[jax.Array], jax.Array]], ...] = ()
  held: jax.Array | None = None

  def __call__(self, z: jax.Array, logsnr: jax.Array) -> jax.Array:
    if not self.terms:
      return self.denoise_fn(z, logsnr)

    def total(z):
      x = self.denoise_fn(z, logsnr)
      return sum(weight * error(x) for weight, error in self.terms), x

    gradient, x = jax.grad(total, has_aux=True)(z)
    if self.held is not None:
      gradient = jnp.where(frame_mask(self.held, z), 0.0, gradient)
    alpha, _ = gaussian.alpha_sigma(gaussian.broadcast_to_rank(logsnr, z))
    return x - 0.5 * alpha * gradient


def _guided(denoise_fn, weight, error, **fields) -> Guided:
  """`denoise_fn` with one more term of guidance, if its weight is not 0."""
  if not isinstance(denoise_fn, Guided):
    denoise_fn = Guided(denoise_fn)
  term = () if weight == 0 else ((weight, error),)
  return dataclasses.replace(
      denoise_fn, terms=denoise_fn.terms + term, **fields
  )


def reconstruction(
    denoise_fn: DenoiseFn,
    *,
    known: jax.Array,
    known_mask: jax.Array,
    weight: float,
) -> Guided:
  """Reconstruction guidance, paper eq. 7.

  x_tilde^b = x_hat^b - (w_r alpha / 2) grad_{z^b} || x^a - x_hat^a ||^2, a sum
  over the pixels of all known frames of a video; x_hat^a stays as it is (the
  sampler replaces z^a).

  Args:
    denoise_fn: unclipped. If it is guided already, both gradients are taken at
      once.
    known: [batch, time, ...]; what it holds outside the mask has no effect.
    known_mask: bool [batch or 1, time], any pattern.
    weight: w_r; 1 is Bayes' rule under the paper's approximation, 0 leaves the
      known frames to replacement alone.
  """
  error = known_error(known, known_mask)
  return _guided(denoise_fn, weight, error, held=known_mask)


def with_clean_frames(
    z: jax.Array,
    logsnr: jax.Array,
    *,
    known: jax.Array,
    known_mask: jax.Array,
    logsnr_max: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """(z, log-SNR) in which known frames stand as they are, almost without noise.

  Args:
    z: [batch, time, height, width, channels].
    logsnr: [batch] or [batch, time].
    known: as of `reconstruction`.
    known_mask: as of `reconstruction`.
    logsnr_max: log-SNR of the known frames, at which sigma is all but 0.

  Returns:
    z's shape; float32 [batch, time].
  """
  levels = jnp.broadcast_to(logsnr.reshape(len(z), -1), z.shape[:2])
  return (
      jnp.where(frame_mask(known_mask, z), known, z),
      jnp.where(known_mask, logsnr_max, levels),
  )


def clean_known(
    denoise_fn: DenoiseFn,
    *,
    known: jax.Array,
    known_mask: jax.Array,
    logsnr_max: float | jax.Array,
) -> DenoiseFn:
  """Shows known frames to a network that has learned to see them clean.

  Such a network (`training.distill`) needs no reconstruction guidance.

  Args:
    denoise_fn: of the network; it takes a log-SNR for each frame.
    known: as of `reconstruction`.
    known_mask: as of `reconstruction`.
    logsnr_max: see `with_clean_frames`.
  """

  def given(z: jax.Array, logsnr: jax.Array) -> jax.Array:
    x = denoise_fn(*with_clean_frames(
        z, logsnr, known=known, known_mask=known_mask, logsnr_max=logsnr_max
    ))
    return jnp.where(frame_mask(known_mask, z), known, x)

  return given


def super_resolution(
    denoise_fn: DenoiseFn,
    *,
    low_res: jax.Array,
    weight: float,
    downsample: Callable[[jax.Array], jax.Array],
    low_res_mask: jax.Array | None = None,
) -> Guided:
  """Spatial super-resolution by guidance, paper eq. 8.

  x_tilde = x_hat - (w_r alpha / 2) grad_z || x^a - D(x_hat(z)) ||^2, a sum over
  the pixels of all frames of a video; nothing is replaced.

  Args:
    denoise_fn: unclipped, of a model at the high resolution. If it is guided
      already, both gradients are taken at once.
    low_res: x^a, [batch, time, low height, low width, channels].
    weight: w_r.
    downsample: D, differentiable: [batch, time, height, width, channels] to the
      shape of low_res; `area` and `bilinear` make such functions.
    low_res_mask: bool [batch or 1, time], the frames that have a low-resolution
      partner; None is all.
  """
  error = low_res_error(low_res, downsample, low_res_mask)
  return _guided(denoise_fn, weight, error)


def area(factor: int) -> Callable[[jax.Array], jax.Array]:
  """D: the mean over squares of factor x factor pixels."""

  def downsample(x: jax.Array) -> jax.Array:
    *lead, h, w, c = x.shape
    squares = (*lead, h // factor, factor, w // factor, factor, c)
    return x.reshape(squares).mean(axis=(-4, -2))

  return downsample


def bilinear(factor: int) -> Callable[[jax.Array], jax.Array]:
  """D: bilinear interpolation at the centres of the larger pixels."""

  def downsample(x: jax.Array) -> jax.Array:
    *lead, h, w, c = x.shape
    shape = (*lead, h // factor, w // factor, c)
    return jax.image.resize(x, shape, 'bilinear', antialias=False)

  return downsample
