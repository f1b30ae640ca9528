import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion.diffusion import schedules


@pytest.mark.parametrize(
    't, want',
    [
        (0.0, 20.0),
        (0.25, 1.76261877),
        (0.5, 0.0),
        (255 / 256, -10.17253517),
        (1.0, -20.0),
    ],
)
def test_known_values_in_float32(t, want):
  got = schedules.cosine_logsnr(jnp.float32(t))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_equals_the_plain_formula_in_float64():
  t = np.linspace(0, 1, 1001)
  b = np.arctan(np.exp(-10.0))
  a = np.arctan(np.exp(10.0)) - b
  want = -2 * np.log(np.tan(a * t + b))
  got = np.asarray(schedules.cosine_logsnr(jnp.asarray(t, jnp.float32)))
  # The slope is 9e4 at both ends: one float32 step of t is 5e-3 there.
  middle = (t > 0.01) & (t < 0.99)
  np.testing.assert_allclose(got[middle], want[middle], atol=2e-4)
  np.testing.assert_allclose(got[[0, -1]], want[[0, -1]], rtol=1e-6)


def test_asymmetric_range_and_gradient():
  fn = lambda t: schedules.cosine_logsnr(t, logsnr_min=-15.0, logsnr_max=9.0)
  np.testing.assert_allclose(fn(jnp.array([0.0, 1.0])), [9.0, -15.0], rtol=1e-6)
  slope = jax.vmap(jax.grad(fn))(jnp.linspace(0.0, 1.0, 101))
  assert np.all(np.isfinite(slope)) and np.all(slope < 0)


@pytest.mark.parametrize('shift', [-4.0, 2.5])
def test_a_shift_moves_the_middle_and_leaves_the_ends(shift):
  t = jnp.linspace(0.0, 1.0, 101)
  got = schedules.cosine_logsnr(t, shift=shift)
  np.testing.assert_allclose(got[jnp.array([0, -1])], [20.0, -20.0], rtol=1e-6)
  assert np.all(np.diff(got) < 0)
  # In the middle the angle's ends, e^-8 and less from 0 and pi/2, do not show.
  want = shift + schedules.cosine_logsnr(t)
  np.testing.assert_allclose(got[20:81], want[20:81], atol=3e-3)
  np.testing.assert_allclose(got[50], shift, atol=1e-3)
