import jax.numpy as jnp
import numpy as np

from video_diffusion.diffusion import guidance


def test_clip():
  denoise = guidance.clip(lambda z, logsnr: z + logsnr[0])
  got = denoise(jnp.array([-3.0, -0.5, 0.5, 3.0]), jnp.array([0.25]))
  np.testing.assert_allclose(got, [-1.0, -0.25, 0.75, 1.0])
