"""How near conditional samples come to the exact posterior, in closed form.

  python -m benchmarks.conditional

A linear-Gaussian world (tests/support/gaussian_truth.py): three frames,
covariance 0.6 off the diagonal and 1 on it, the first frame known to be 1; then
E[x^b | x^a] = 0.6. The exact denoiser, the ancestral sampler with gamma 0;
means and covariances by recursion in 64 bits, not by drawing.
"""
import numpy as np

from tests.support import gaussian_truth
from video_diffusion.training import writers

STEPS = (16, 32, 64, 128, 256, 512, 1024)
LEVELS = (4.0, 6.0, 8.0, 10.0)


def main() -> None:
  """Prints both tables."""
  truth, known, mask = gaussian_truth.CONDITION.values()
  mean, cov = gaussian_truth.posterior(truth, known, mask)
  guided = [
      (f'guidance, w_r = {weight:g}',
       gaussian_truth.guided(truth, known, mask, weight))
      for weight in (1.0, 2.0, 5.0)
  ]
  errors, moments = [], []
  for name, denoise_fn in (
      ('replacement', truth.denoise_fn),
      *guided,
      ('exact E[x^b | x^a, z^b]',
       gaussian_truth.exact_conditional(truth, known, mask)),
  ):
    row = []
    for steps in STEPS:
      m, c = gaussian_truth.conditional_recursion(
          truth, known, mask, denoise_fn, num_steps=steps
      )
      row.append(f'{np.abs(m[1:] - mean).max():.3f}')
      if steps == 256:
        moments.append([name, *(f'{v:.3f}' for v in (m[1], c[1, 1], c[1, 2]))])
    errors.append([name, *row])
  exact = [f'{v:.3f}' for v in (mean[0], cov[0, 0], cov[0, 1])]
  moments.append(['the exact posterior', *exact])
  print(writers.table(['error of the mean, steps', *map(str, STEPS)], errors))
  print()
  print(writers.table(['256 steps', 'mean', 'variance', 'covariance'], moments))
  slopes = ', '.join(f'{s:.3f}' for s in gaussian_truth.approach(LEVELS))
  print(
      '\nd log |x_tilde^b - E[x^b | x^a, z^b]| / d logsnr between '
      f'{", ".join(f"{level:g}" for level in LEVELS)}: {slopes}'
  )


if __name__ == '__main__':
  main()
