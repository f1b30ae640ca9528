"""What the train loop does after a step, on which all processes agree."""
import enum
import signal
import time

import jax

from video_diffusion.training import preemption
from video_diffusion.training import progress


class Action(enum.IntEnum):
  """What a process wants of the loop; all do what the largest says."""

  GO_ON = 0
  STOP = 1  # end as at the last step
  QUIT = 2  # Ctrl-C: save, and leave
  RESTART = 3  # SIGTERM: save, and leave to be started again


def wanted(
    watch: preemption.Preemption, *, began: float, max_minutes: float
) -> Action:
  """What this process wants of the loop after a step.

  Args:
    watch: knows which signal has come.
    began: time.time() at the start.
    max_minutes: minutes from then on after which a run stops; 0 is no limit.
  """
  if watch.requested == signal.SIGTERM:
    return Action.RESTART
  if watch.requested == signal.SIGINT:
    return Action.QUIT
  late = max_minutes and time.time() - began > 60 * max_minutes
  return Action.STOP if late else Action.GO_ON


def read(
    pending: list[tuple[dict[str, jax.Array], jax.Array]],
    window: progress.Window,
    *,
    leave: int,
) -> Action:
  """Takes steps off `pending` until `leave` are left, all where it is to end.

  Args:
    pending: (metrics, largest action that a process wants) of the newest steps.
    window: takes the metrics.
    leave: number of steps that need not be waited for.

  Returns:
    What all processes have agreed on.

  Raises:
    progress.TooManySkipsError: see `progress.Window.add`.
  """
  action = Action.GO_ON
  while len(pending) > (0 if action else leave):
    metrics, vote = pending.pop(0)
    window.add(metrics)
    action = max(action, Action(int(vote)))
  return action
