"""Progress by sampling step: it changes no bit, and can end a call."""
import jax
import numpy as np
import pytest

from tests.support import models


class Enough(Exception):
  """Ends a call."""


@pytest.mark.parametrize(
    'sampler', ['ancestral', 'ddim', 'dpmpp_2m', 'annealed_langevin'],
)
def test_steps_are_told_and_change_no_bit(sampler):
  model = models.make(num_steps=5, label_sizes=(3,), guidance_weight=1.0)
  call = dict(labels=[1], frames=6, sampler=sampler, seed=3)
  told = []
  followed = model.sample(**call, on_step=lambda *step: told.append(step))
  np.testing.assert_array_equal(followed, model.sample(**call))
  assert told == [(n, 10) for n in (0, 1, 2, 3, 5, 5, 6, 7, 8, 10)]


def test_steps_of_a_given_video_are_told_too():
  model = models.make(num_steps=4, frames=4)
  video = np.full((3, 8, 8, 3), 9, np.uint8)
  for method, more in (
      (model.extend, {'frames': 4}), (model.interpolate, {'factor': 2})
  ):
    told = []
    followed = method(video, **more, on_step=lambda *step: told.append(step))  # noqa: B023
    np.testing.assert_array_equal(followed, method(video, **more))
    assert told[0][0] == 0 and told[-1][0] == told[-1][1]


def test_an_exception_ends_the_call_and_nothing_else():
  model = models.make(num_steps=50)
  told = []

  def on_step(done, total):
    told.append(done)
    if done == 3:
      raise Enough

  with pytest.raises(Enough):
    model.sample(on_step=on_step)
  assert told == [0, 1, 2, 3]
  jax.effects_barrier()  # what the process does at its end
  told.clear()
  with pytest.raises(Enough):
    model.sample(on_step=on_step)
  assert models.programs(model) == [1]
  np.testing.assert_array_equal(
      model.sample(on_step=lambda *_: None), model.sample()
  )


def test_without_it_the_program_has_no_callback():
  model = models.make()
  model.sample()
  (sampler,) = model._samplers.values()
  text = lambda **call: sampler.lower(
      model.params, jax.random.key(0), None, **call
  ).as_text()
  assert 'callback' in text(call=np.int32(0))
  assert 'callback' not in text()
