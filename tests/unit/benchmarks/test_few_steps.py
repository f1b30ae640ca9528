import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import few_steps
from tests.support import gaussian_truth
from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import sampling

SHAPE = (20_000, few_steps.FRAMES, 1, 1, 1)
TRUTH = gaussian_truth.Truth(np.zeros(few_steps.FRAMES), few_steps.PRIOR)


def test_the_recursion_is_the_sampler_of_the_package(monkeypatch):
  """Few steps of the exact denoiser under guidance, sampled many times."""
  monkeypatch.setattr(few_steps, 'STEPS', 4)
  mask = jnp.arange(few_steps.FRAMES)[None] < len(few_steps.KNOWN)
  known = jnp.zeros(SHAPE).at[:, few_steps.A, 0, 0, 0].set(few_steps.KNOWN)
  guided = guidance.reconstruction(
      TRUTH.denoise_fn, known=known, known_mask=mask, weight=3.0
  )
  x = np.asarray(jax.jit(lambda key: sampling.sample(
      key, guided, shape=SHAPE, num_steps=4, sampler='ddim', known=known,
      known_mask=mask,
  ))(jax.random.key(0))).reshape(SHAPE[:2])[:, few_steps.B]
  mean, deviation = few_steps.sample(4, 3.0)
  error = deviation / SHAPE[0] ** 0.5
  assert np.all(np.abs(x.mean(0) - mean) < 4 * error)
  assert np.all(np.abs(x.std(0) - deviation) < 4 * error)


def test_without_known_frames_a_student_samples_as_its_teacher():
  """The product of its steps is that of the teacher's."""
  samples = []
  for num_steps in (few_steps.STEPS, 4):
    product = np.eye(few_steps.FRAMES)
    for step in range(num_steps, 0, -1):
      (alpha, sigma), (alpha_s, sigma_s) = (
          few_steps.scales(i, num_steps) for i in (step, step - 1)
      )
      x = few_steps.student(step, num_steps)
      product = (
          alpha_s * x
          + sigma_s / sigma * (np.eye(few_steps.FRAMES) - alpha * x)
      ) @ product
    samples.append(product)
  np.testing.assert_allclose(*samples, atol=1e-9)


def test_guidance_loses_on_few_steps_what_students_can_learn(capsys):
  rows = few_steps.main([])
  mean, deviation = rows['teacher, 64 steps']
  learned = rows['learned']
  np.testing.assert_allclose(learned[0], mean, atol=1e-9)
  assert np.all(learned[1] <= deviation)
  wider = [rows[f'student, {n} steps'][1] / deviation for n in (16, 8, 4, 2)]
  assert np.all(np.diff(wider, axis=0) > 0) and np.all(wider[-1] > 2)
  assert 'student, 2 steps' in capsys.readouterr().out
