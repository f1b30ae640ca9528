"""Muon: momentum whose matrices are made orthogonal (Jordan et al., 2024).

optax.contrib.muon does the arithmetic, one array at a time. A U-Net has many
arrays: thousands of small products a step, compiled one by one. Here all
matrices of one size are one stack.
"""
import collections
import math

import jax
import jax.numpy as jnp
import optax
import optax.contrib

MOMENTUM = 0.95
# The root mean square of Adam's updates (Liu et al., 2502.16982), so that one
# learning rate serves both.
RMS = 0.2


def make_muon(**adam: float) -> optax.GradientTransformation:
  """Muon for kernels of at least two axes, Adam for everything else.

  Both have Nesterov's momentum. As in `optax.scale_by_adam`, the learning rate
  and the sign are left to what follows.

  Args:
    **adam: b1, b2 and eps, as of `optax.scale_by_adam`.
  """
  return optax.partition(
      {
          'muon': optax.chain(
              optax.trace(MOMENTUM, nesterov=True), _make_orthogonal()
          ),
          'adam': optax.scale_by_adam(**adam, nesterov=True),
      },
      lambda params: jax.tree_util.tree_map_with_path(
          lambda path, leaf: 'muon' if _inputs(path, leaf) else 'adam', params
      ),
  )


def _inputs(path, leaf) -> int:
  """How many of a kernel's axes are inputs, 0 for what is no matrix."""
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  if not name.endswith('kernel') or leaf.ndim < 2:
    return 0
  # Queries, keys and values have several axes of outputs, what follows the
  # heads several of inputs, as have convolutions.
  return 1 if 'qkv' in name.split('/') else leaf.ndim - 1


def _make_orthogonal() -> optax.GradientTransformation:
  """Takes kernels alone, and moves their singular values close to one."""
  newton_schulz = optax.contrib.scale_by_muon(
      beta=0.0, nesterov=False,
      weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 2),
  )

  def update(updates, state, params=None):
    del params
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
    leaves = [leaf for _, leaf in paths_and_leaves]
    groups = collections.defaultdict(list)
    for i, (path, leaf) in enumerate(paths_and_leaves):
      rows = math.prod(leaf.shape[: _inputs(path, leaf)])
      shape = rows, leaf.size // rows
      groups[min(shape), max(shape), leaf.dtype].append((i, shape))
    for (low, high, _), members in groups.items():
      # A matrix and its transpose become orthogonal alike.
      turn = lambda x, shape, low=low: x if shape[0] == low else x.T
      stack = jnp.stack([
          turn(leaves[i].reshape(shape), shape) for i, shape in members
      ])
      stack, _ = newton_schulz.update(stack, newton_schulz.init(stack))
      stack *= RMS * math.sqrt(high)
      for (i, shape), matrix in zip(members, stack, strict=True):
        leaves[i] = turn(matrix, shape).reshape(leaves[i].shape)
    return jax.tree.unflatten(treedef, leaves), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
