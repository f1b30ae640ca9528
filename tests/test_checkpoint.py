import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from video_diffusion import checkpoint
from video_diffusion import partitioning
from video_diffusion import train_state


def make_state(value):
  params = {'a': jnp.full((4, 2), value), 'b': {'c': jnp.arange(3.0)}}
  state = train_state.init_state(params, optax.adam(1e-3))
  return state.replace(
      step=jnp.int32(value), ema_params=jax.tree.map(lambda p: p + 1, params)
  )


def abstract():
  return partitioning.abstract(
      jax.eval_shape(lambda: make_state(0)), partitioning.make_mesh()
  )


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_save_restore_latest_keep(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
  assert checkpoints.latest_step() is None
  for step in (3, 5, 8):
    checkpoints.save(step, make_state(step), {'seed': step})
  checkpoints.close()
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
  assert checkpoints.latest_step() == 8
  equal(checkpoints.restore(8, abstract()), make_state(8))
  equal(checkpoints.restore(5, abstract()), make_state(5))
  with pytest.raises(FileNotFoundError):
    checkpoints.restore(3, abstract())
  checkpoints.close()


def test_the_ema_alone_can_be_read(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(4), {})
  target = train_state.TrainState(None, None, abstract().ema_params, None)
  got = checkpoints.restore(1, target)
  assert got.params is None
  equal(got.ema_params, make_state(4).ema_params)
  checkpoints.close()


def test_an_unfinished_checkpoint_is_not_the_latest(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, make_state(1), {})
  checkpoints.close()
  # What a killed save leaves: a directory under a temporary name.
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step() == 1
  equal(checkpoints.restore(1, abstract()), make_state(1))
  checkpoints.close()
