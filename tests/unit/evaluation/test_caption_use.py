import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import models
from video_diffusion.api import model as model_lib
from video_diffusion.data import shapes
from video_diffusion.evaluation import caption_use
from video_diffusion.inference import conditioning

SOURCE = shapes.MovingShapes(
    split='test', seed=0, num_examples=100, num_frames=4, height=8, width=8,
    radius=0.25, speed=0.08,
)


def test_a_wrong_word_is_wrong_in_its_column_alone():
  label = np.array([[2, 5, 6], [0, 0, 1]])
  assert caption_use.wrong(label, 'shape').tolist() == [[0, 5, 6], [1, 0, 1]]
  assert caption_use.wrong(label, 'colour').tolist() == [[2, 0, 6], [0, 1, 1]]
  opposite = caption_use.wrong(label, 'direction')
  assert opposite.tolist() == [[2, 5, 2], [0, 0, 5]]


def test_clips_are_of_one_shape():
  videos, labels = caption_use.single_shapes(SOURCE, 6, frames=4)
  assert videos.shape == (6, 4, 8, 8, 3) and labels.shape == (6, 3)
  assert np.min(videos) == -1 and np.max(videos) == 1 and labels.min() >= 0


class Colours:
  """A network whose error depends on the colour of the caption alone."""

  encoder = None

  def apply(self, variables, z, logsnr, condition=None):
    # The parameters are the right colours. A prediction of eps is 0 for them,
    # and 1 for other colours.
    colour = condition['labels'][:, 0, 1]
    miss = jnp.where(colour == variables['params'], 0.0, 1.0)
    return jnp.zeros_like(z) + miss.reshape(-1, 1, 1, 1, 1)


def test_only_the_word_that_a_network_uses_changes_the_error():
  model = models.make()
  model.config.diffusion.prediction = 'eps'
  labels = caption_use.single_shapes(SOURCE, 6, frames=4)[1]
  encode = lambda captions, prompts=(): {'labels': np.stack([
      shapes.parse_caption(caption).ravel() for caption in captions
  ])}
  model = model_lib.Model(
      model.config, Colours(), lambda: (jnp.asarray(labels[:, 1]), 1),
      conditioning.Conditioner(None, encode=encode), model.mesh,
  )
  rows = list(caption_use.rows(model, SOURCE, 6, (-2.0, 0.0)))
  assert [row['logsnr'] for row in rows] == [-2.0, 0.0]
  for row in rows:
    # eps - 1 has twice the mean square of eps, which is 1.
    assert row['colour'] == pytest.approx(1, abs=0.3)
    assert row['shape'] == row['direction'] == 0.0
    # x - x_hat is (sigma / alpha) times the error of eps.
    assert row['error'] == pytest.approx(np.exp(-row['logsnr']), rel=0.15)
