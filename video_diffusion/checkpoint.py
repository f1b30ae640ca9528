"""Checkpoints by Orbax, behind four verbs: save, restore, latest_step, close.

A checkpoint at step N means that N updates are done. It holds three items:
'state' (parameters, optimizer moments, step), 'ema' (the averaged parameters,
which sampling reads alone) and 'config' (JSON, the whole config of the run).
"""
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp


class Checkpoints:
  """The checkpoints of one run, under `directory`."""

  def __init__(self, directory: str, *, keep: int | None = None):
    """Opens, and makes, the directory.

    Args:
      directory: local path or gs:// bucket path.
      keep: how many of the newest to keep; None keeps all.
    """
    self._manager = ocp.CheckpointManager(
        epath.Path(directory).resolve(),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep),
    )

  def save(self, step: int, state: Any, config: dict[str, Any]) -> None:
    """Starts an asynchronous save of a `TrainState` and its config."""
    rest = state.replace(ema_params=None)
    self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(rest),
            ema=ocp.args.StandardSave(state.ema_params),
            config=ocp.args.JsonSave(config),
        ),
        force=True,
    )

  def restore(self, step: int, abstract_state: Any) -> Any:
    """The `TrainState` saved at `step`, laid out as `abstract_state` says.

    Args:
      step: from `latest_step`.
      abstract_state: a `TrainState` of `jax.ShapeDtypeStruct` with shardings;
        fields that are None are not read.
    """
    items = {}
    if abstract_state.params is not None:
      rest = abstract_state.replace(ema_params=None)
      items['state'] = ocp.args.StandardRestore(rest)
    items['ema'] = ocp.args.StandardRestore(abstract_state.ema_params)
    restored = self._manager.restore(step, args=ocp.args.Composite(**items))
    state = restored['state'] if 'state' in items else abstract_state
    return state.replace(ema_params=restored['ema'])

  def latest_step(self) -> int | None:
    """The step of the newest complete checkpoint, None without one."""
    return self._manager.latest_step()

  def close(self) -> None:
    """Waits for a save in flight."""
    self._manager.wait_until_finished()
    self._manager.close()


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
  """Shapes, dtypes and one sharding in place of a tree's arrays."""
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
