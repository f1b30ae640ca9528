"""Known frames on few steps: what guidance loses, and what students can learn.

  python -m benchmarks.few_steps [--weight 9]

Everything is in closed form, in float64 and without a network: four frames of
one pixel, x ~ N(0, C) with C_ij = 0.3 * 0.9^|i - j|, of which the first two are
known. The teacher is the exact denoiser E[x | z] in 64 steps of DDIM. The
student of N steps is the exact one: each of its steps is 64 / N of the
teacher's. A sampler is affine in Gaussian noise, so that the mean and the
standard deviation of the two sampled frames follow by recursion. Rows are
  posterior         x given the known frames, which no sampler here knows
  teacher           reconstruction guidance with the weight, in 64 steps
  student, N steps  the same guidance on the student's step, a gradient through
                    what stands for its network
  learned           students of any number of steps that have learned guidance
                    from known frames which they see clean, as
                    distill.reconstruction_weight has it; all sample alike
"""
import argparse

import numpy as np

from video_diffusion.training import writers

FRAMES, STEPS = 4, 64
KNOWN = np.array([0.6, 0.5])  # the first frames
PRIOR = 0.3 * 0.9 ** np.abs(np.arange(FRAMES)[:, None] - np.arange(FRAMES))
A, B = slice(0, len(KNOWN)), slice(len(KNOWN), FRAMES)
LOGSNR = 20.0  # at both ends of the cosine schedule


def scales(step: int, num_steps: int) -> tuple[float, float]:
  """(alpha, sigma) at the time step / num_steps; (1, 0) at 0, as samplers end.
  """
  if not step:
    return 1.0, 0.0
  low = np.arctan(np.exp(-LOGSNR / 2))
  angle = low + step / num_steps * (np.pi / 2 - 2 * low)
  return np.cos(angle), np.sin(angle)


def teacher(step: int) -> np.ndarray:
  """X [T, T] of E[x | z] = X z at a step of STEPS."""
  alpha, sigma = scales(step, STEPS)
  return alpha * PRIOR @ np.linalg.inv(
      alpha**2 * PRIOR + sigma**2 * np.eye(FRAMES)
  )


def student(step: int, num_steps: int) -> np.ndarray:
  """X of the exact student, whose step is STEPS / num_steps of the teacher's.
  """
  each = STEPS // num_steps
  product = np.eye(FRAMES)
  for i in range(each * step, each * (step - 1), -1):
    (alpha, sigma), (alpha_s, sigma_s) = scales(i, STEPS), scales(i - 1, STEPS)
    x = teacher(i)
    product = (
        alpha_s * x + sigma_s / sigma * (np.eye(FRAMES) - alpha * x)
    ) @ product
  alpha, sigma = scales(step, num_steps)
  alpha_s, sigma_s = scales(step - 1, num_steps)
  ratio = sigma_s / sigma
  return (product - ratio * np.eye(FRAMES)) / (alpha_s - ratio * alpha)


def sample(
    num_steps: int, weight: float, *, learned: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """(mean, standard deviation) of the frames B, sampled by DDIM.

  Args:
    num_steps: of the student; STEPS is the teacher.
    weight: w_r of paper eq. 7.
    learned: whether x_hat is what a student learns of the guided teacher: its
      mean over the noise of the known frames.
  """
  mean, cov = np.zeros(FRAMES)[B], np.eye(FRAMES)[B, B]
  for step in range(num_steps, 0, -1):
    (alpha, sigma), (alpha_s, sigma_s) = (
        scales(i, num_steps) for i in (step, step - 1)
    )
    x = teacher(step) if num_steps == STEPS else student(step, num_steps)
    # P z^b + Q z^a + c is x_hat^b + w alpha (d x_hat^a / d z^b)^T (x^a -
    # x_hat^a), and after the step z_s^b.
    back = weight * alpha * x[A, B].T
    p, q = x[B, B] - back @ x[A, B], x[B, A] - back @ x[A, A]
    c = back @ KNOWN
    ratio = sigma_s / sigma
    gain = alpha_s - ratio * alpha
    p, q, c = gain * p + ratio * np.eye(len(p)), gain * q, gain * c
    mean = p @ mean + q @ (alpha * KNOWN) + c
    noise = 0.0 if learned else sigma**2 * q @ q.T
    cov = p @ cov @ p.T + noise
  return mean, np.sqrt(np.diag(cov))


def posterior() -> tuple[np.ndarray, np.ndarray]:
  """(mean, standard deviation) of the frames B given the known ones."""
  gain = PRIOR[B, A] @ np.linalg.inv(PRIOR[A, A])
  return gain @ KNOWN, np.sqrt(np.diag(PRIOR[B, B] - gain @ PRIOR[A, B]))


def main(argv: list[str] | None = None) -> dict:
  """Prints the table; returns row -> (mean, standard deviation)."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--weight', type=float, default=9.0)
  args = parser.parse_args(argv)
  rows = {
      'posterior': posterior(),
      f'teacher, {STEPS} steps': sample(STEPS, args.weight),
      **{
          f'student, {n} steps': sample(n, args.weight) for n in (16, 8, 4, 2)
      },
      'learned': sample(STEPS, args.weight, learned=True),
  }
  print(writers.table(
      ['', *(f'{what} of frame {i + 1}' for what in ('mean', 'deviation')
             for i in range(B.start, B.stop))],
      [[name, *(f'{x:.3f}' for x in np.concatenate(row))]
       for name, row in rows.items()],
  ))
  return rows


if __name__ == '__main__':
  main()
