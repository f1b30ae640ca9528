"""Checkpoints by Orbax, behind four verbs: save, restore, latest_step, close.

A checkpoint at step N means that N updates are done. It holds four items:
'state' (parameters, optimizer moments, step), 'ema' (the averaged parameters,
which sampling reads alone), 'config' (JSON, the whole config of the run) and
'digests' (JSON, of every array): what Orbax reads from a file of arrays it does
not check, and a byte that has changed there would go unnoticed.
"""
from collections.abc import Callable, Collection
import contextlib
import errno
import os
import threading
from typing import Any

from absl import logging
from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from video_diffusion import errors
from video_diffusion.checkpoints import digests
from video_diffusion.checkpoints import orbax_errors
from video_diffusion.errors import UserError
from video_diffusion.parallel import memory


class DamagedError(UserError):
  """A checkpoint does not hold what was saved."""


class _Steps:
  """Keeps the checkpoints of some steps, which may change in the meantime."""

  def __init__(self, steps: Callable[[], Collection[int]]):
    self._steps = steps

  def should_preserve(self, checkpoints, *, context):
    del context
    steps = {*self._steps()}
    return [checkpoint.step in steps for checkpoint in checkpoints]


class Checkpoints:
  """The checkpoints of one run, under `directory`.

  A save that fails, by a full disk for instance, is reported and does no harm:
  the last good checkpoint serves, and the next save tries again. Where somebody
  has deleted checkpoints, or the directory, the next save reports it and writes
  one. `close` raises where the newest save has failed.
  """

  def __init__(
      self,
      directory: str,
      *,
      keep: int | None = None,
      keep_every: int = 0,
      keep_also: Callable[[], Collection[int]] = tuple,
      clean: bool = False,
  ):
    """Opens, and makes, the directory.

    Args:
      directory: local path or gs:// bucket path.
      keep: how many of the newest to keep; None keeps all.
      keep_every: and, for good, those at multiples of so many steps; 0 is none.
      keep_also: returns further steps to keep, the same in every process; it
        is called at each save.
      clean: removes what killed saves have left; for the one that saves.

    Raises:
      UserError: the directory is a file.
    """
    orbax_errors.hide_late_calls()
    self._directory = epath.Path(directory).resolve()
    kept = [policies.LatestN(keep), _Steps(keep_also)]
    if keep_every:
      kept.append(policies.EveryNSteps(keep_every))
    self._options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept)
    )
    self._lock = threading.Lock()  # a SIGTERM's thread waits for saves, too
    self._failed, self._saving = '', None
    self._stale = False  # the manager is closed, a new one cannot be opened yet
    try:
      self._open()
    except NotADirectoryError as error:
      raise UserError(
          f'{self._directory} must be a folder; move away what is there.'
      ) from error
    if clean:
      self._remove_unfinished()

  def _open(self):
    if self._directory.exists() and not self._directory.is_dir():
      # Orbax would notice at a save, and wait for minutes.
      raise NotADirectoryError(
          errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self._directory)
      )
    self._manager = ocp.CheckpointManager(
        self._directory, options=self._options
    )

  def _remove_unfinished(self):
    """Removes saves that were killed or have failed."""
    if jax.process_index() == 0:
      for path in self._directory.glob('*.orbax-checkpoint-tmp*'):
        try:
          path.rmtree()
        except OSError as error:
          logging.warning('%s cannot be removed (%s).', path, error.strerror)

  def save(self, step: int, state: Any, config: dict[str, Any]) -> None:
    """Starts an asynchronous save of a `TrainState` and its config.

    One that is there already is not written again.
    """
    with self._lock:
      self._finish()
      self._saving = step
      try:
        self._notice_deleted()
        if step in self._manager.all_steps():
          return
        rest = state.replace(ema_params=None)
        trees = {'state': rest, 'ema': state.ema_params}
        found = {name: digests.digests(tree) for name, tree in trees.items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(rest),
                ema=ocp.args.StandardSave(state.ema_params),
                config=ocp.args.JsonSave(config),
                digests=ocp.args.JsonSave(found),
            ),
            force=True,
        )
      except Exception as error:  # pylint: disable=broad-except
        self._fail(error)

  def _finish(self):
    """Waits for the save in flight, and reports it where it failed."""
    try:
      self._manager.wait_until_finished()
      self._failed = self._failed if self._retry() else ''
    except Exception as error:  # pylint: disable=broad-except
      self._fail(error)

  def _retry(self):
    return bool(self._failed) and self._saving not in self._manager.all_steps()

  def _notice_deleted(self):
    """Opens the directory anew where it is not what the manager has left."""
    missing = set(self._manager.all_steps()) - self._on_disk()
    changed = bool(missing) or self._stale or not self._directory.is_dir()
    if jax.process_count() > 1:  # all must do the same
      changed = multihost_utils.broadcast_one_to_all(np.int32(changed))
    if not changed:
      return
    if not self._stale:
      logging.error(
          'Somebody has deleted %s from %s; %s. Step %d is saved now.',
          ', '.join(f'the checkpoint of step {n}' for n in sorted(missing))
          or 'the folder', self._directory, self._left(), self._saving,
      )
    self._manager.close()
    self._stale = True
    self._open()
    self._stale = False

  def _on_disk(self):
    """The steps whose folders are there, those of unfinished copies too."""
    try:
      names = [path.name for path in self._directory.iterdir()]
    except OSError:
      return set()
    return {int(name) for name in names if name.isdigit()}

  def _left(self):
    """The end of a sentence: which checkpoint would be continued from."""
    step = self.latest_step()
    if step is None:
      return 'no checkpoint is on disk'
    return f'the newest checkpoint on disk is that of step {step}'

  def _fail(self, error):
    self._manager.close()
    self._stale = True
    # A manager that failed once would fail again. Where a new one cannot be
    # opened the next save tries.
    with contextlib.suppress(OSError, ValueError):
      self._open()
      self._stale = False
    self._remove_unfinished()  # it may be what has filled the disk
    self._failed = (
        f'the checkpoint of step {self._saving} could not be written to '
        f'{self._directory} ({orbax_errors.reason(error)}); {self._left()}'
    )
    bug = errors.is_bug(error)
    if not bug:
      self._failed += ': make room, or make the folder writable'
    self._failed += '.'
    logging.error('%s', self._failed, exc_info=error if bug else None)

  def wait(self) -> str:
    """Waits for a save in flight; from any thread.

    Returns:
      Which checkpoint is on disk, the end of a sentence.

    Raises:
      UserError: the newest save failed.
    """
    with self._lock:
      self._finish()
      if self._failed:
        raise UserError(self._failed)
      return self._left()

  def restore(self, step: int, abstract_state: Any) -> Any:
    """The `TrainState` saved at `step`, laid out as `abstract_state` says.

    Args:
      step: from `latest_step`.
      abstract_state: a `TrainState` of `jax.ShapeDtypeStruct` with shardings;
        fields that are None are not read.

    Raises:
      DamagedError: an array is not the one that was saved.
    """
    items = {}
    if abstract_state.params is not None:
      rest = abstract_state.replace(ema_params=None)
      items['state'] = ocp.args.StandardRestore(rest)
    items['ema'] = ocp.args.StandardRestore(abstract_state.ema_params)
    # Checkpoints from before there were digests are still read.
    checked = (self._directory / str(step) / 'digests').exists()
    extra = {'digests': ocp.args.JsonRestore()} if checked else {}
    restored = self._manager.restore(
        step, args=ocp.args.Composite(**items, **extra)
    )
    if checked:
      for item in items:
        saved = restored['digests'].get(item, {})
        _compare(item, saved, digests.digests(restored[item]))
    state = restored['state'] if 'state' in items else abstract_state
    return state.replace(ema_params=restored['ema'])

  def restore_latest(
      self,
      abstract_state: Any,
      *,
      set_aside: bool = True,
      step: int | None = None,
  ) -> tuple[Any, int] | None:
    """(state, step) of the newest checkpoint that can be read; None if none is.

    Args:
      abstract_state: as of `restore`.
      step: the step that is asked for; None is the newest.
      set_aside: those that cannot be read are renamed to '<step>.damaged',
        once an older one has been read.

    Raises:
      UserError: there are checkpoints, and none can be read, or none is of the
        step that is asked for.
    """
    bad, steps = [], sorted(self._manager.all_steps(), reverse=True)
    if step is not None:
      if step not in steps:
        raise UserError(
            f'{self._directory} holds no checkpoint of step {step}; there are '
            f'those of {", ".join(map(str, steps)) or "no step"}.'
        )
      steps = [step]
    for step in steps:
      try:
        state = self.restore(step, abstract_state)
      except Exception as error:  # pylint: disable=broad-except
        if memory.refused(error):
          raise  # the checkpoint is sound, and the device too small
        logging.error(
            'The checkpoint of step %d in %s cannot be read (%s).',
            step, self._directory, orbax_errors.reason(error),
            exc_info=error if errors.is_bug(error) else None,
        )
        bad.append(step)
        continue
      if bad and set_aside:
        self._set_aside(bad)
        logging.error(
            'That of step %d serves; the newer are kept as %s.', step,
            ', '.join(f'{n}.damaged' for n in bad),
        )
      return state, step
    if bad:
      raise UserError(
          f'{self._directory} holds checkpoints of steps '
          f'{", ".join(map(str, bad))}, and none can be read; put a sound copy '
          'in place, or pass another --workdir.'
      )
    return None

  def _set_aside(self, steps):
    self._manager.close()
    if jax.process_index() == 0:
      for step in steps:
        path = self._directory / str(step)
        path.rename(self._directory / f'{step}.damaged')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('damaged checkpoints')
    self._open()

  def latest_step(self) -> int | None:
    """The step of the newest complete checkpoint, None without one."""
    steps = set(self._manager.all_steps()) & self._on_disk()
    return max(steps, default=None)

  def close(self) -> None:
    """Waits for a save in flight.

    Raises:
      UserError: the newest save failed.
    """
    try:
      self.wait()
    finally:
      self._manager.close()


def _compare(item, saved, found):
  """Raises DamagedError where digests differ."""
  changed = [name for name in found if found[name] != saved.get(name)]
  if changed:
    raise DamagedError(
        f'{len(changed)} of {len(found)} arrays of its {item!r} are not what '
        f'was saved, {changed[0]!r} among them'
    )
