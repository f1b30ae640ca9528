"""Starts a tiny training and kills it at random moments, for `kills`."""
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np

EVERY = 5  # steps between checkpoints
REPORT = 50  # steps between held-out losses and samples
MOST_STEPS = 12  # that a trial is let do before a kill behind a step
PHASES = (
    'before the first step',
    'steps',
    'checkpoint being written',
    'held-out loss and samples',
    'end of the run',
)
FINISHED = 'finished'
FIELDS = (
    'data.frames=2',
    'data.images=1',
    'data.height=8',
    'data.width=8',
    'data.radius=0.25',
    'data.loader=threads',
    'batch_size=8',
    'model.base_channels=4',
    'model.channel_mults=(1,)',
    'model.attention_resolutions=(8,)',
    'model.head_dim=4',
    'model.emb_dim=8',
    'model.emb_layers=1',
    'model.cond_dim=4',
    'log.every=1',
    f'log.eval_every={REPORT}',
    f'log.sample_every={REPORT}',
    f'checkpoint.every={EVERY}',
    'eval.num_clips=16',
    'eval.batch_size=8',
    'sample.num_videos=8',
    'sample.batch_size=8',
    'sample.num_steps=2',
)
BAD_WORDS = ('damaged', 'cannot be read', 'could not be written', 'Traceback')


@dataclasses.dataclass
class Trial:
  """One start of the command, and how it ended."""

  moment: str  # what the kill waited for
  complete: int  # step of the newest complete checkpoint before it
  resumed: int | None = None  # step it continued from; None: killed before that
  first: int | None = None  # step whose losses it wrote first
  last: int | None = None  # and last
  phase: str = ''  # of PHASES, FINISHED, or its own exit code
  words: list[str] = dataclasses.field(default_factory=list)  # of BAD_WORDS
  seconds: float = 0.0


def points(workdir: pathlib.Path, skip: int = 0) -> tuple[list[dict], int]:
  """(lines of metrics.jsonl behind `skip` bytes, how many cannot be read)."""
  path = workdir / 'metrics.jsonl'
  if not path.exists():
    return [], 0
  with path.open('rb') as f:
    f.seek(skip)
    lines = f.read().splitlines()
  found, broken = [], 0
  for line in lines:
    try:
      found.append(json.loads(line))
    except ValueError:
      broken += 1
  return found, broken


def complete(workdir: pathlib.Path) -> int:
  """Step of the newest checkpoint under its final name, 0 without one."""
  names = [p.name for p in (workdir / 'checkpoints').glob('*')]
  return max((int(name) for name in names if name.isdigit()), default=0)


def size(workdir):
  """Bytes of metrics.jsonl."""
  path = workdir / 'metrics.jsonl'
  return path.stat().st_size if path.exists() else 0


def losses(workdir, skip):
  """Steps of the losses behind `skip` bytes of metrics.jsonl."""
  return [p['step'] for p in points(workdir, skip)[0] if 'loss' in p]


def unfinished(workdir):
  """(name, inode) of checkpoints under temporary names."""
  found = set()
  for path in (workdir / 'checkpoints').glob('*tmp*'):
    try:
      found.add((path.name, path.stat().st_ino))
    except FileNotFoundError:  # finished between the two calls
      pass
  return found


def launch(
    out: pathlib.Path,
    name: str,
    steps: int,
    log,
    flags: Sequence[str] = tuple(f'--config.{field}' for field in FIELDS),
    **environment: str,
) -> subprocess.Popen:
  """Starts the training of so many steps in OUT/name, by default on a CPU.

  Args:
    out: folder of runs that share a compilation cache.
    name: of the run.
    steps: of the whole run.
    log: a file that takes the output.
    flags: what makes it small.
    **environment: further variables.
  """
  hidden = out / 'hidden'
  hidden.mkdir(exist_ok=True)
  (hidden / 'tensorflow.py').write_text('raise ImportError("hidden")\n')
  environment = {
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      **environment,
      'JAX_COMPILATION_CACHE_DIR': str(out / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'PYTHONPATH': f'{hidden}:{os.environ.get("PYTHONPATH", "")}',
      'PYTHONPYCACHEPREFIX': str(out / 'pycache'),
  }
  environment.pop('PYTHONDONTWRITEBYTECODE', None)
  return subprocess.Popen(
      [
          sys.executable, '-m', 'video_diffusion.main',
          *flags, f'--config.train.steps={steps}', f'--workdir={out / name}',
      ],
      cwd=pathlib.Path(__file__).parents[1],
      env=environment,
      stdout=log,
      stderr=subprocess.STDOUT,
  )


class Killer:
  """Draws the moments of one run's kills, waits for them, and kills."""

  def __init__(self, out: pathlib.Path, name: str, steps: int, seed: int):
    """Of the run in OUT/name, of so many steps."""
    self._out, self._name, self._steps = out, name, steps
    self._workdir = out / name
    self._rng = np.random.default_rng(seed)
    self._ready, self._ending = 10.0, 5.0  # seconds; the first is measured

  def trial(self, number: int, moment: str) -> Trial:
    """One trial, killed behind `moment`.

    Args:
      number: of its log.
      moment: 'start', at any time before the first step; 'step', 'save',
        'report' or 'end', see `_wait`; 'none' lets it finish.
    """
    workdir = self._workdir
    trial = Trial(moment, complete(workdir))
    before, old = size(workdir), unfinished(workdir)
    path = self._out / 'logs' / f'{self._name}_{number:03d}.txt'
    began = time.time()
    with path.open('w') as log:
      process = launch(self._out, self._name, self._steps, log)
      try:
        if moment == 'start':
          self._sleep(process, self._rng.uniform(0.0, self._ready))
        else:
          self._wait(process, moment, before, old)
      finally:
        process.kill()
        code = process.wait()
    trial.seconds = round(time.time() - began, 2)
    self._describe(trial, path.read_text(), code, before, old)
    return trial

  def _sleep(self, process, seconds):
    """Waits so long, or until the process has ended."""
    deadline = time.time() + seconds
    while process.poll() is None and time.time() < deadline:
      time.sleep(0.001)

  def _wait(self, process, moment, before, old):
    """Returns some time behind the moment, or when the process has ended.

    Behind so many steps, so many unfinished checkpoints, or a step with held-
    out loss and samples behind it; behind the last step at the latest.
    """
    workdir, rng, began = self._workdir, self._rng, time.time()
    steps, saves = rng.integers(0, MOST_STEPS + 1), rng.integers(1, 4)
    seen, saved = [], set()
    while process.poll() is None:
      time.sleep(0.003)
      saved |= unfinished(workdir) - old
      if moment == 'none' or size(workdir) == before:
        continue
      if not seen:
        self._ready = time.time() - began
      seen = losses(workdir, before)
      last = seen[-1] if seen else 0
      reports = last == self._steps or moment == 'report' and (
          last and last % REPORT == 0
      )
      if (
          reports
          or moment == 'step' and len(seen) >= steps
          or moment == 'save' and len(saved) >= saves
      ):
        most = self._ending if reports else 0.08
        self._sleep(process, rng.uniform(0.0, most))
        return

  def _describe(self, trial, log, code, before, old):
    """Fills in what files and log say of a trial that has ended."""
    seen = losses(self._workdir, before)
    match = re.search(r'Continuing .* from step (\d+)\.', log)
    if match:
      trial.resumed = int(match.group(1))
    elif seen:
      trial.resumed = 0
    if seen:
      trial.first, trial.last = seen[0], seen[-1]
    trial.words = [word for word in BAD_WORDS if word in log]
    if code == 0:
      trial.phase = FINISHED
    elif code != -signal.SIGKILL:
      trial.phase = f'exit code {code}'
    elif unfinished(self._workdir) - old:
      trial.phase = 'checkpoint being written'
    elif self._steps in (trial.resumed, trial.last):
      trial.phase = 'end of the run'
    elif not seen:
      trial.phase = 'before the first step'
    elif trial.last % REPORT == 0:
      trial.phase = 'held-out loss and samples'
    else:
      trial.phase = 'steps'
