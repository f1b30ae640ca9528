"""A training that is killed again and again, against one that is not.

  python -m benchmarks.kills OUT [--kills 200] [--seed 0]

Trains a tiny moving_shapes run once without interruption, then in a workdir of
its own where the same command is started and SIGKILLed --kills times, and at
last left to finish. Moments are drawn from --seed: some at a uniformly random
time of the start-up, the rest up to tens of milliseconds behind a random number
of steps, or of checkpoints begun, or up to seconds behind a step with held-out
loss and samples behind it; the last few behind the last step.

Every trial must continue from the newest checkpoint that was complete when the
one before it died. In the end all losses and gradient norms that were ever
written, those of work done twice included, must be to the bit those of the
uninterrupted run, and so must the arrays of the last checkpoint.

Writes OUT/kills.json, and the log of every trial to OUT/logs. TensorFlow is
hidden from the runs, whose start it would make half as long again.
"""
import argparse
import collections
from collections.abc import Sequence
import dataclasses
import json
import pathlib
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks import kill_trials
from benchmarks import timing

STEPS_A_KILL = 8  # of the whole run: more than a trial does, or it ends early
AT_THE_END = 0.05  # share of the kills behind the last step
# Share of the other kills: what they wait for.
MOMENTS = {'start': 0.3, 'step': 0.35, 'save': 0.25, 'report': 0.1}
RATES = {'clips_per_second', 'goodput', 'tflops_per_second'}


def wrong(trials: Sequence[kill_trials.Trial]) -> list[str]:
  """What trials did that they must not, in sentences."""
  found = []
  for i, trial in enumerate(trials, start=1):
    start = trial.resumed
    if start is not None and start % kill_trials.EVERY:
      found.append(f'Trial {i} continued from step {start}.')
    if start is not None and start < trial.complete:
      found.append(
          f'Trial {i} continued from step {start}, and the checkpoint of step '
          f'{trial.complete} was complete.'
      )
    if trial.first is not None and trial.first != start + 1:
      found.append(f'Trial {i} began with step {trial.first}, not {start + 1}.')
    if trial.words:
      found.append(f'Trial {i} said {", ".join(trial.words)}.')
    if trial.phase not in (*kill_trials.PHASES, kill_trials.FINISHED):
      found.append(f'Trial {i} ended by itself: {trial.phase}.')
  return found


def compare(
    whole: Sequence[dict], killed: Sequence[dict]
) -> tuple[list[str], dict[str, int]]:
  """(differences in sentences, counts) of the points of two runs.

  Rates aside, every point of the killed run must be one of the whole run.
  """

  def plain(point):
    values = {k: v for k, v in point.items() if k not in RATES}
    return (point['step'], 'loss' in point), values

  expected = dict(map(plain, whole))
  found, times = [], collections.Counter()
  for key, point in map(plain, killed):
    times[key] += 1
    if point != expected.get(key):
      found.append(f'Step {key[0]}: {point} against {expected.get(key)}.')
  missing = sorted(expected.keys() - times.keys())
  found += [f'Step {step} is missing.' for step, _ in missing]
  return found, {
      'points': len(expected),
      'points_written': sum(times.values()),
      'points_written_again': sum(n - 1 for n in times.values()),
  }


def arrays(workdir: pathlib.Path, step: int) -> dict[str, bytes]:
  """The arrays of a checkpoint, as bytes."""
  with ocp.CheckpointManager(workdir / 'checkpoints') as manager:
    tree = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(), ema=ocp.args.StandardRestore()
        ),
    )
  return {
      jax.tree_util.keystr(path): np.asarray(x).tobytes()
      for path, x in jax.tree_util.tree_leaves_with_path(dict(tree))
  }


def kill_often(
    out: pathlib.Path, steps: int, kills: int, seed: int
) -> list[kill_trials.Trial]:
  """The trials of the run in OUT/killed, the last of which finishes."""
  killer = kill_trials.Killer(out, 'killed', steps, seed)
  rng = np.random.default_rng(seed + 1)
  began, trials, done = time.time(), [], 0
  while not trials or trials[-1].phase in kill_trials.PHASES:
    if done == kills:
      moment = 'none'
    elif done >= (1 - AT_THE_END) * kills:
      moment = 'end'
    else:
      moment = str(rng.choice(list(MOMENTS), p=list(MOMENTS.values())))
    trial = killer.trial(len(trials) + 1, moment)
    trials.append(trial)
    done += trial.phase in kill_trials.PHASES
    left = (time.time() - began) / max(done, 1) * (kills - done)
    print(
        f'kill {done}/{kills}: {trial.phase}; from step {trial.resumed} '
        f'({trial.complete} was complete) to {trial.last} '
        f'{" ".join(trial.words)} {left / 60:.0f} min left',
        flush=True,
    )
  return trials


def main() -> None:
  """Runs, compares, writes and prints."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('out', type=pathlib.Path)
  parser.add_argument('--kills', type=int, default=200)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  out = args.out.resolve()
  if (out / 'logs').exists():
    raise SystemExit(f'{out} holds an earlier attempt; pass a new folder.')
  (out / 'logs').mkdir(parents=True)
  every = kill_trials.REPORT
  steps = -(-STEPS_A_KILL * args.kills // every) * every
  whole = kill_trials.Killer(out, 'whole', steps, args.seed).trial(0, 'none')
  if whole.phase != kill_trials.FINISHED:
    raise SystemExit(f'The uninterrupted run has failed, see {out}/logs.')
  print(f'{steps} steps without interruption: {whole.seconds:.0f} s')

  began = time.time()
  trials = kill_often(out, steps, args.kills, args.seed)
  minutes = (time.time() - began) / 60
  phases = collections.Counter(trial.phase for trial in trials)
  kills = sum(phases[phase] for phase in kill_trials.PHASES)
  bad = wrong(trials)
  if kills < args.kills:
    bad.append(f'The run ended after {kills} kills.')
  (ours, _), (theirs, broken) = (
      kill_trials.points(out / name) for name in ('whole', 'killed')
  )
  differences, counts = compare(ours, theirs)
  if broken:
    differences.append(f'{broken} lines of metrics.jsonl cannot be read.')
  if trials[-1].phase == kill_trials.FINISHED:
    a, b = (arrays(out / name, steps) for name in ('whole', 'killed'))
    counts['arrays'] = len(a)
    different = [x for x in a.keys() | b.keys() if a.get(x) != b.get(x)]
    counts['arrays_different'] = len(different)
    differences += [f'Array {name} differs.' for name in different]
  result = {
      'date': timing.today(),
      'jax': jax.__version__,
      'seed': args.seed,
      'steps': steps,
      'kills': kills,
      'minutes': round(minutes, 1),
      'phases': {phase: phases[phase] for phase in kill_trials.PHASES},
      **counts,
      'wrong': bad + differences,
  }
  print(json.dumps(result, indent=1))
  result['trials'] = [dataclasses.asdict(trial) for trial in trials]
  (out / 'kills.json').write_text(json.dumps(result, indent=1))
  raise SystemExit(bool(result['wrong']))


if __name__ == '__main__':
  main()
