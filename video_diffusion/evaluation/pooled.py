"""Moments of features that several processes have computed."""
import jax
from jax.sharding import Mesh
import numpy as np

from video_diffusion.metrics import moments
from video_diffusion.parallel import collectives


def over_processes(own: moments.Moments, mesh: Mesh) -> moments.Moments:
  """The moments of the features of all processes, the same in each of them.

  Processes may have added unlike numbers of batches, of unlike sizes, or none.
  Every process must call this, with features of one length.

  The float64 arrays travel as the bits of two uint32, one process after
  another, so that JAX's default of 32 bits rounds nothing. A device holds one
  array of d^2 numbers at a time.

  Args:
    own: what this process has added.
    mesh: all devices.
  """
  if jax.process_count() == 1:
    return own
  bits = own.to_array().view(np.uint32)
  parts = []
  for process in range(jax.process_count()):
    mine = process == jax.process_index()
    # A sum to which one process alone gives more than zeros.
    part = collectives.total(bits if mine else np.zeros_like(bits), mesh)
    parts.append(
        moments.Moments.from_array(np.ascontiguousarray(part).view(np.float64))
    )
  return moments.merged(parts)
