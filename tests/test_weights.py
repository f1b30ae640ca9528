import jax
import jax.numpy as jnp
import numpy as np
import pytest

from video_diffusion import weights

PARAMS = {
    'a': {'kernel': np.linspace(-3, 3, 600).reshape(20, 30).astype(np.float32)},
    'b': np.arange(7.0, dtype=np.float32),
    'c': {'d': np.ones((5, 5), np.float32), 'e': np.zeros((1,), np.float32)},
}


def target(params=PARAMS):
  return jax.eval_shape(lambda: params)


@pytest.mark.parametrize(
    'dtype, tolerance', [('float32', 0), ('bfloat16', 4e-3)]
)
def test_round_trip(tmp_path, dtype, tolerance):
  weights.save(PARAMS, tmp_path, step=12, dtype=jnp.dtype(dtype))
  assert len(list(tmp_path.iterdir())) == weights.NUM_FILES
  got, step = weights.load(tmp_path, target())
  assert step == 12
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), got, PARAMS
  )
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(got))


def test_the_digest_tells_every_change(tmp_path):
  digests = {weights.digest(PARAMS)}
  assert weights.digest(dict(reversed(PARAMS.items()))) in digests
  changed = PARAMS['b'].copy()
  changed[3] = np.nextafter(changed[3], 9)
  digests.add(weights.digest(PARAMS | {'b': changed}))
  digests.add(weights.digest(PARAMS | {'b': PARAMS['b'].reshape(1, 7)}))
  digests.add(weights.digest(PARAMS | {'b': PARAMS['b'].astype(np.int32)}))
  assert len(digests) == 4


def test_what_is_missing_or_of_another_shape_is_named(tmp_path):
  weights.save(PARAMS, tmp_path, step=1, dtype=jnp.float32)
  with pytest.raises(ValueError, match="'x'"):
    weights.load(tmp_path, target(PARAMS | {'x': np.zeros(3)}))
  with pytest.raises(ValueError, match=r"'b' of shape \(7,\)"):
    weights.load(tmp_path, target(PARAMS | {'b': np.zeros(8)}))
  next(tmp_path.glob('ema-0-*')).unlink()
  with pytest.raises(ValueError, match='3 files'):
    weights.load(tmp_path, target())
