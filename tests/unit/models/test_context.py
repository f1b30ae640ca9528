import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import gaussian_truth
from video_diffusion.models import conditioning
from video_diffusion.models import context
from video_diffusion.models import unet3d

HEIGHT, WIDTH = 4, 6
THETA = np.array([[0.83, -0.31, 0.117], [0.257, 0.91, -0.153]])


def image():
  return np.random.default_rng(0).uniform(-1, 1, (HEIGHT, WIDTH, 3))


def move(frame, theta):
  grid = context.affine_grid(jnp.asarray(theta), *frame.shape[:2])
  return context.grid_sample(frame, grid)


def previous(num_next=1, count=3, batch=2, missing=0):
  """Random frames; `missing` of the oldest are not there, but noise."""
  frames = np.random.default_rng(1).uniform(
      -1, 1, (batch, num_next, count, HEIGHT, WIDTH, 3)
  ).astype(np.float32)
  mask = np.broadcast_to(np.arange(count) >= missing, (1, num_next, count))
  return context.Previous(jnp.asarray(frames), jnp.asarray(mask))


def test_the_identity_moves_nothing_at_all():
  rows, columns = np.indices((HEIGHT, WIDTH))
  grid = context.affine_grid(context.IDENTITY, HEIGHT, WIDTH)
  np.testing.assert_array_equal(grid, np.stack([columns, rows], axis=-1))
  frame = image().astype(np.float32)
  np.testing.assert_array_equal(move(frame, context.IDENTITY), frame)


@pytest.mark.parametrize('theta, where', [
    # Taken from two pixels to the right, and beyond the edge from its pixel.
    ([[1, 0, 4 / WIDTH], [0, 1, 0]], lambda y, x: (y, min(x + 2, WIDTH - 1))),
    ([[1, 0, 0], [0, 1, -2 / HEIGHT]], lambda y, x: (max(y - 1, 0), x)),
    ([[-1, 0, 0], [0, -1, 0]], lambda y, x: (HEIGHT - 1 - y, WIDTH - 1 - x)),
    ([[0, 0, 99], [0, 0, -99]], lambda y, x: (0, WIDTH - 1)),
])
def test_affine_maps_that_are_known(theta, where):
  frame = image().astype(np.float32)
  want = [
      [frame[where(y, x)] for x in range(WIDTH)] for y in range(HEIGHT)
  ]
  got = move(frame, np.array(theta, np.float32))
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_between_pixels_their_values_are_weighted_by_area():
  frame = image().astype(np.float32)
  got = context.grid_sample(frame, jnp.array([1.25, 2.5]))
  left, right = frame[2:4, 1].mean(0), frame[2:4, 2].mean(0)
  np.testing.assert_allclose(got, 0.75 * left + 0.25 * right, rtol=1e-5)


def test_gradients_of_grid_sampling_are_finite_differences():
  """In float64, of the frame, of the places and of the affine map."""
  weights = np.random.default_rng(2).standard_normal((HEIGHT, WIDTH, 3))
  step = 1e-6
  with gaussian_truth.float64():
    image_64 = jnp.asarray(image())
    grid = np.asarray(context.affine_grid(jnp.asarray(THETA), HEIGHT, WIDTH))
    # Steps that cross a pixel would meet another slope.
    assert np.abs(grid - np.round(grid)).min() > 10 * step
    total = lambda frame, grid: (
        jnp.sum(weights * context.grid_sample(frame, grid))
    )
    moved = lambda theta: jnp.sum(weights * move(image_64, theta))
    for function, x in (
        (lambda frame: total(frame, grid), image_64),
        (lambda grid: total(image_64, grid), grid),
        (moved, THETA),
    ):
      x = jnp.asarray(x)
      got = jax.grad(function)(x)
      directions = jnp.eye(x.size).reshape(-1, *x.shape)
      want = jax.vmap(lambda d, x=x, function=function: (
          function(x + step * d) - function(x - step * d)
      ) / (2 * step))(directions)
      assert got.dtype == jnp.float64 and jnp.abs(got).max() > 0.1
      np.testing.assert_allclose(got.ravel(), want, atol=1e-8)


def test_weights_are_a_softmax_over_the_frames_that_are_there(random_params):
  vectors = jax.random.normal(jax.random.key(0), (2, 1, 4, 9))
  network = context.TemporalTransformer(5)
  for missing in range(4):
    mask = jnp.arange(4).reshape(1, 1, 4) >= missing
    params = random_params(network, vectors, mask)
    weights = network.apply(params, vectors, mask)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert np.all((weights > 0) == mask)
  np.testing.assert_array_equal(weights, np.eye(4)[None, 3:].repeat(2, 0))
  # By their features, and by how far back they are.
  mask = jnp.ones((1, 1, 4), bool)
  like = jnp.broadcast_to(vectors[:, :, -1:], vectors.shape)
  got, alike = (network.apply(params, v, mask) for v in (vectors, like))
  assert np.ptp(got) > 0.01 and np.ptp(alike) > 0.01
  del params['params']['distance']
  params['params']['distance'] = jnp.zeros((4, 5))
  np.testing.assert_allclose(network.apply(params, like, mask), 0.25, rtol=1e-5)


def initial(network, *args):
  """Its first parameters, of the initialisers."""
  return jax.jit(network.init)(jax.random.key(0), *args)


def test_a_context_starts_as_the_weighted_frames_themselves():
  """Not moved; of one frame, before or alone, it is that frame."""
  network = context.AlignedContext(3, 4)
  params = initial(network, previous())
  one = previous(missing=2)
  channels = network.apply(params, one)
  np.testing.assert_array_equal(channels[..., :3], one.frames[:, :, -1])
  np.testing.assert_array_equal(channels[..., 3], 1.0)
  frames = previous().frames
  channels = network.apply(params, previous())[..., :3]
  columns = frames.reshape(2, 3, -1).swapaxes(1, 2)
  for video, got in zip(columns, channels.reshape(2, -1), strict=True):
    weights, *_ = np.linalg.lstsq(video, got)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(video @ weights, got, atol=1e-5)

  def error(params):
    return jnp.sum((network.apply(params, one)[..., :3] - 0.5) ** 2)

  gradient = jax.grad(error)(params)['params']['spatial']['affine']
  assert np.all(np.abs(gradient['bias']) > 1e-3)


def test_what_stands_in_place_of_missing_frames_has_no_effect(random_params):
  network = context.AlignedContext(3, 4)
  x = previous(missing=1)
  params = random_params(network, x)
  other = x._replace(frames=x.frames.at[:, :, 0].set(9.0))
  before = network.apply(params, x)
  np.testing.assert_array_equal(network.apply(params, other), before)
  last = x._replace(frames=x.frames.at[:, :, 1].set(0.0))
  assert np.any(network.apply(params, last) != before)
  # A moved frame is none of those that were weighted.
  assert np.abs(before[..., :3] - x.frames[:, :, -1]).max() > 1e-2


def test_the_frames_before_some_places():
  video = jnp.arange(2 * 5.0).reshape(2, 5, 1, 1, 1)
  places = jnp.array([[1, 4], [3, 2]])
  frames, mask = context.take_previous(video, places, 3)
  np.testing.assert_array_equal(
      mask, [[[0, 0, 1], [1, 1, 1]], [[1, 1, 1], [0, 1, 1]]]
  )
  np.testing.assert_array_equal(
      np.where(mask, frames[..., 0, 0, 0], -1),
      [[[-1, -1, 0], [1, 2, 3]], [[5, 6, 7], [-1, 5, 6]]],
  )


@pytest.mark.parametrize('heads', unet3d.HEADS)
def test_next_frames_of_the_network(random_params, heads):
  """They see the frames before and their video's label; others see neither.

  A next frame alone, as in sampling, is what it is among the frames of a
  training example.
  """
  network = conditioning.ConditionalUNet(
      unet3d.UNet3D(
          base_channels=4, channel_mults=(1,), num_blocks=1,
          attention_resolutions=(), head_dim=4, emb_dim=8, heads=heads,
      ),
      conditioning.LabelEncoder(4, (3,)),
      context=context.AlignedContext(3, 2),
  )
  frames, images, num_next = 3, 1, 2
  total = frames + images + num_next
  z = jax.random.normal(jax.random.key(0), (2, total, HEIGHT, WIDTH, 3))
  logsnr = jnp.linspace(-3.0, 3.0, 2 * total).reshape(2, total)
  labels, before = jnp.array([[[0], [1]], [[2], [0]]]), previous(num_next)
  params = random_params(
      network, z, logsnr, condition={'labels': labels},
      num_images=images + num_next, previous=before,
  )

  @jax.jit
  def apply(labels, before, z=z):
    return network.apply(
        params, z, logsnr[:, -z.shape[1] :], condition={'labels': labels},
        num_images=min(z.shape[1], images + num_next), previous=before,
    )

  want = apply(labels, before)
  changed = lambda got: np.any(got != want, axis=(0, 2, 3, 4)).tolist()
  other = before._replace(frames=before.frames.at[:, 1, 2].add(0.5))
  assert changed(apply(labels, other)) == [False] * 5 + [True]
  assert changed(apply(labels.at[:, 1].set(2), before)) == [
      i == frames for i in range(total)
  ]
  assert changed(apply(labels.at[:, 0].set(1), before)) == [
      i != frames for i in range(total)
  ]
  alone = context.Previous(before.frames[:, 1:], before.mask[:, 1:])
  got = apply(labels[:, :1], alone, z[:, -1:])
  np.testing.assert_allclose(got, want[:, -1:], atol=2e-5)
  # Without a context the video and the image are as they were.
  got = network.apply(
      params, z[:, :-num_next], logsnr[:, :-num_next],
      condition={'labels': labels}, num_images=images,
  )
  np.testing.assert_allclose(got, want[:, :-num_next], atol=2e-5)
