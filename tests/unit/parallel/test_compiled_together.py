import jax
import jax.numpy as jnp

from video_diffusion.parallel import distributed


def test_a_function_waits_once_after_its_compile(monkeypatch):
  traced, waited = [], []

  @jax.jit
  def double(x, i):
    traced.append(1)
    return 2 * x + i

  # At the barrier the program is there, and has not run.
  monkeypatch.setattr(
      distributed, 'wait_for_all', lambda name: waited.append(
          (name, len(traced))
      )
  )
  call = distributed.compiled_together(double, 'doubling')
  assert not traced and not waited
  for i in range(3):
    assert call(jnp.float32(3), i) == 6 + i
  assert waited == [('doubling', 1)] and len(traced) == 1


def test_one_process_does_not_wait():
  distributed.wait_for_all('nobody else')
