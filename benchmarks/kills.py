"""A training that is killed again and again, against one that is not.

  python -m benchmarks.kills OUT [--kills 200] [--seed 0]

Trains a tiny moving_shapes run once without interruption, then in a workdir of
its own where the same command is started and SIGKILLed --kills times, and at
last left to finish. Moments are drawn from --seed: some at a uniformly random
time of the start-up, the rest up to tens of milliseconds behind a random number
of steps, or of checkpoints begun, or up to seconds behind a step with held-out
loss and samples behind it; the last few behind the last step.

Every life must continue from the newest checkpoint that was complete when the
one before it died. In the end all losses and gradient norms that were ever
written, those of work done twice included, must be to the bit those of the
uninterrupted run, and so must the arrays of the last checkpoint.

Writes OUT/kills.json, and the log of every life to OUT/logs. TensorFlow is
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

from benchmarks import lives as lives_lib
from benchmarks import timing

STEPS_A_KILL = 8  # of the whole run: more than a life does, or it ends early
AT_THE_END = 0.05  # share of the kills behind the last step
# Share of the other kills: what they wait for.
MOMENTS = {'start': 0.3, 'step': 0.35, 'save': 0.25, 'report': 0.1}
RATES = {'clips_per_second', 'goodput', 'tflops_per_second'}


def wrong(lives: Sequence[lives_lib.Life]) -> list[str]:
  """What lives did that they must not, in sentences."""
  found = []
  for i, life in enumerate(lives, start=1):
    start = life.resumed
    if start is not None and start % lives_lib.EVERY:
      found.append(f'Life {i} continued from step {start}.')
    if start is not None and start < life.complete:
      found.append(
          f'Life {i} continued from step {start}, and the checkpoint of step '
          f'{life.complete} was complete.'
      )
    if life.first is not None and life.first != start + 1:
      found.append(f'Life {i} began with step {life.first}, not {start + 1}.')
    if life.words:
      found.append(f'Life {i} said {", ".join(life.words)}.')
    if life.phase not in (*lives_lib.PHASES, lives_lib.FINISHED):
      found.append(f'Life {i} ended by itself: {life.phase}.')
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
) -> list[lives_lib.Life]:
  """The lives of the run in OUT/killed, the last of which finishes."""
  killer = lives_lib.Killer(out, 'killed', steps, seed)
  rng = np.random.default_rng(seed + 1)
  began, lives, done = time.time(), [], 0
  while not lives or lives[-1].phase in lives_lib.PHASES:
    if done == kills:
      moment = 'none'
    elif done >= (1 - AT_THE_END) * kills:
      moment = 'end'
    else:
      moment = str(rng.choice(list(MOMENTS), p=list(MOMENTS.values())))
    life = killer.live(len(lives) + 1, moment)
    lives.append(life)
    done += life.phase in lives_lib.PHASES
    left = (time.time() - began) / max(done, 1) * (kills - done)
    print(
        f'kill {done}/{kills}: {life.phase}; from step {life.resumed} '
        f'({life.complete} was complete) to {life.last} '
        f'{" ".join(life.words)} {left / 60:.0f} min left',
        flush=True,
    )
  return lives


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
  every = lives_lib.REPORT
  steps = -(-STEPS_A_KILL * args.kills // every) * every
  whole = lives_lib.Killer(out, 'whole', steps, args.seed).live(0, 'none')
  if whole.phase != lives_lib.FINISHED:
    raise SystemExit(f'The uninterrupted run has failed, see {out}/logs.')
  print(f'{steps} steps without interruption: {whole.seconds:.0f} s')

  began = time.time()
  lives = kill_often(out, steps, args.kills, args.seed)
  minutes = (time.time() - began) / 60
  phases = collections.Counter(life.phase for life in lives)
  kills = sum(phases[phase] for phase in lives_lib.PHASES)
  bad = wrong(lives)
  if kills < args.kills:
    bad.append(f'The run ended after {kills} kills.')
  (ours, _), (theirs, broken) = (
      lives_lib.points(out / name) for name in ('whole', 'killed')
  )
  differences, counts = compare(ours, theirs)
  if broken:
    differences.append(f'{broken} lines of metrics.jsonl cannot be read.')
  if lives[-1].phase == lives_lib.FINISHED:
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
      'phases': {phase: phases[phase] for phase in lives_lib.PHASES},
      **counts,
      'wrong': bad + differences,
  }
  print(json.dumps(result, indent=1))
  result['lives'] = [dataclasses.asdict(life) for life in lives]
  (out / 'kills.json').write_text(json.dumps(result, indent=1))
  raise SystemExit(bool(result['wrong']))


if __name__ == '__main__':
  main()
