"""Random keys: a function of (seed, stream, step), never carried state."""
import jax

STREAMS = ('init', 'train', 'evaluate', 'sample')


def stream_key(seed: int, stream: str, step: jax.Array | int = 0) -> jax.Array:
  """The random key of a stream at a step.

  Args:
    seed: of the run, or of the call.
    stream: one of STREAMS.
    step: number of the step, batch or draw within the stream.
  """
  key = jax.random.fold_in(jax.random.key(seed), STREAMS.index(stream))
  return jax.random.fold_in(key, step)
