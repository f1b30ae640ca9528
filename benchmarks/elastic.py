"""A run that moves to fewer devices and back, and one that is killed.

  python -m benchmarks.elastic OUT --devices N [--case smoke] [--mesh fsdp]

Starts the training command itself, on GPUs or, with JAX_PLATFORMS=cpu, on fake
devices, in float32 at the highest precision of matrix products:

  whole    60 steps on N devices without interruption
  moved    from the checkpoint of step 20: five steps each on 2 devices, on N,
           on 1 and on N again, each from the checkpoint of the one before
  killed   60 steps on N devices, killed (SIGKILL) once in a step and once while
           a checkpoint was being written

The losses of `moved` must be within 1e-5 of those of `whole`, relative to them.
Those of `killed`, gradient norms, held-out losses and the digests of all arrays
of the last checkpoint must be the same to the bit; work done twice included.

All starts share a compilation cache in OUT, without which another start of the
same program could time its kernels anew and choose others. The network is that
of `benchmarks.scaling --check`; --case base64 takes a larger one, and --mesh
another mesh of `benchmarks.scaling` for the N devices. Writes OUT/elastic.json,
and the log of every start to OUT/logs; the exit code is 1 where anything
differs. On a GPU, eight starts of about half a minute.
"""
import argparse
from collections.abc import Callable
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import jax

from benchmarks import agreement
from benchmarks import cases
from benchmarks import kill_trials
from benchmarks import kills
from benchmarks import timing

STEPS = 60
EVERY = 20  # steps between checkpoints, the first of which is moved
LEG = 5
BOUND = 1e-5  # relative difference of losses
IN_A_STEP = EVERY + 3  # the step behind which the first kill may come
COLUMNS = {
    'devices': 'devices', 'mesh': 'mesh', 'from step': 'start', 'to': 'stop',
    'losses, relative': 'loss', 'gradient norms': 'grad_norm',
}


def legs(devices: int) -> tuple[int, ...]:
  """On how many devices a run goes on in turn that so many have begun."""
  return (2, devices, 1, devices) if devices > 2 else (1, devices)


class Runs:
  """Starts one training in folders of OUT, on any number of devices."""

  def __init__(
      self, out: pathlib.Path, case: str, size: cases.MeshSize, batch: int
  ):
    """Runs a case of `agreement.CHECKS`; `size` is the mesh of all devices."""
    self.out, self.size = out, size
    variant, fields = agreement.CHECKS[case]
    fields = fields | {
        'model.dtype': 'float32',
        'batch_size': batch,
        'log.every': 1,
        # Held-out loss and samples are due behind the last step alone.
        'log.eval_every': 0,
        'log.sample_every': 0,
        'checkpoint.every': EVERY,
        'checkpoint.keep': STEPS // EVERY,
        'eval.num_clips': batch,
        'eval.batch_size': batch,
        'sample.num_videos': batch,
        'sample.batch_size': batch,
        'sample.num_steps': 2,
    }
    self._flags = [
        f'--config=moving_shapes:{variant}',
        *(f'--config.{name}={value}' for name, value in fields.items()),
    ]
    self._count = 0

  def start(
      self, name: str, steps: int, devices: int
  ) -> tuple[subprocess.Popen, pathlib.Path]:
    """(process, its log) of the run in OUT/name on so many devices."""
    flags = [*self._flags]
    if devices == self.size.devices:
      flags += [
          f'--config.mesh.fsdp={self.size.fsdp}',
          f'--config.mesh.model={self.size.model}',
      ]
    gpus = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = gpus.split(',') if gpus else [f'{i}' for i in range(devices)]
    self._count += 1
    path = self.out / 'logs' / f'{self._count}_{name}.txt'
    with path.open('w') as log:
      process = kill_trials.launch(
          self.out, name, steps, log, flags,
          JAX_PLATFORMS=os.environ.get('JAX_PLATFORMS', ''),
          JAX_NUM_CPU_DEVICES=f'{devices}',
          CUDA_VISIBLE_DEVICES=','.join(gpus[:devices]),
          JAX_DEFAULT_MATMUL_PRECISION='highest',
      )
    return process, path

  def finish(self, name: str, steps: int, devices: int) -> str:
    """Runs it to its end; the mesh that it says it had.

    Raises:
      SystemExit: it fails, or had another number of devices.
    """
    process, log = self.start(name, steps, devices)
    code = process.wait()
    text = log.read_text()
    if code:
      raise SystemExit(f'{log} ends with exit code {code}:\n{text[-2000:]}')
    found = re.search(r' (\d+) [^,\n]*, mesh (.*)\.', text)
    if not found or int(found[1]) != devices:
      raise SystemExit(f'{log} does not say that it had {devices} devices.')
    return found[2]


def by_step(workdir: pathlib.Path) -> dict[int, dict]:
  """Step -> its line of metrics.jsonl."""
  points, _ = kill_trials.points(workdir)
  return {point['step']: point for point in points if 'loss' in point}


def difference(
    ours: dict[int, dict], theirs: dict[int, dict], steps: range, name: str
) -> float:
  """The largest relative difference of a curve in some steps."""
  return max(abs(ours[i][name] / theirs[i][name] - 1) for i in steps)


def move(runs: Runs) -> list[dict]:
  """Takes the checkpoint of step EVERY from one mesh to another."""
  workdir, step = runs.out / 'moved', EVERY
  shutil.copytree(
      runs.out / 'whole' / 'checkpoints' / f'{step}',
      workdir / 'checkpoints' / f'{step}',
  )
  shutil.copy(runs.out / 'whole' / 'config.json', workdir)
  rows = []
  for devices in legs(runs.size.devices):
    mesh = runs.finish('moved', step + LEG, devices)
    ours, whole = by_step(workdir), by_step(runs.out / 'whole')
    steps = range(step + 1, step + LEG + 1)
    rows.append(timing.emit({
        'devices': devices, 'mesh': mesh, 'start': step, 'stop': step + LEG,
        **{name: float(f'{difference(ours, whole, steps, name):.2g}')
           for name in ('loss', 'grad_norm')},
    }))
    step += LEG
  return rows


def kill_when(process: subprocess.Popen, there: Callable[[], bool]) -> bool:
  """Kills a process that stands still where `there` is true.

  Returns:
    Whether it did; False where the process has ended before.
  """
  while process.poll() is None:
    if there():
      process.send_signal(signal.SIGSTOP)
      os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
      if process.poll() is None and there():
        process.kill()
        process.wait()
        return True
      process.send_signal(signal.SIGCONT)
    time.sleep(0.001)
  return False


def kill_twice(runs: Runs) -> list[str]:
  """Trains OUT/killed through two kills to its end; what went wrong."""
  workdir = runs.out / 'killed'
  wrong, number = [], runs.size.devices

  def in_a_step():
    # Lines come behind their steps, so the process is in the next one.
    done = kill_trials.losses(workdir, 0)
    return (
        bool(done) and IN_A_STEP <= done[-1] < STEPS and done[-1] % EVERY > 0
        and not kill_trials.unfinished(workdir)
    )

  def in_a_save():
    return bool(kill_trials.unfinished(workdir) - old)

  for moment in (in_a_step, in_a_save):
    old = kill_trials.unfinished(workdir)
    process, log = runs.start('killed', STEPS, number)
    killed = kill_when(process, moment)
    name = moment.__name__.replace('_', ' ')
    if not killed:
      wrong.append(f'It was not killed {name}: it ended before, see {log}.')
    newest = max(by_step(workdir), default=0)
    print(
        f'killed {name} behind step {newest}; complete: '
        f'{kill_trials.complete(workdir)}', flush=True,
    )
  runs.finish('killed', STEPS, number)
  (ours, broken), (whole, _) = (
      kill_trials.points(folder) for folder in (workdir, runs.out / 'whole')
  )
  if broken:
    wrong.append(f'{broken} lines of metrics.jsonl cannot be read.')
  differences, counts = kills.compare(whole, ours)
  print(json.dumps(counts), flush=True)
  a, b = (digests(folder) for folder in (workdir, runs.out / 'whole'))
  if a != b:
    wrong.append('The digests of the last checkpoints differ.')
  return wrong + differences


def digests(workdir: pathlib.Path) -> dict:
  """The digests of all arrays of the last checkpoint."""
  folder = workdir / 'checkpoints' / f'{STEPS}' / 'digests'
  return json.loads((folder / 'metadata').read_text())


def main(argv: list[str] | None = None) -> dict:
  """Runs, compares, writes and prints."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('out', type=pathlib.Path)
  parser.add_argument('--devices', type=int, required=True)
  parser.add_argument('--case', choices=agreement.CHECKS, default='smoke')
  parser.add_argument(
      '--mesh', choices=[*cases.mesh_sizes(8)][1:], default='fsdp'
  )
  parser.add_argument('--batch', type=int, default=16)
  args = parser.parse_args(argv)
  if args.devices < 2 or args.batch % args.devices:
    parser.error('--devices is at least 2, and divides --batch')
  sizes = cases.mesh_sizes(args.devices)
  if args.mesh not in sizes:
    parser.error(f'--mesh: {args.devices} devices have no {args.mesh}')
  out = args.out.resolve()
  if (out / 'logs').exists():
    parser.error(f'{out} holds an earlier attempt; pass a new folder')
  (out / 'logs').mkdir(parents=True)
  runs = Runs(out, args.case, sizes[args.mesh], args.batch)
  began = time.time()
  mesh = runs.finish('whole', STEPS, args.devices)
  print(f'{STEPS} steps on {args.devices} devices, mesh {mesh}', flush=True)
  result = {
      'date': timing.today(),
      'software': f'jax {jax.__version__}',
      'case': args.case,
      'mesh': mesh,
      'moved': move(runs),
  }
  result['wrong'] = [
      f'{row["devices"]} devices, steps {row["start"]} to {row["stop"]}: '
      f'{row["loss"]} is more than {BOUND}.'
      for row in result['moved'] if not row['loss'] <= BOUND
  ]
  result['wrong'] += kill_twice(runs)
  result['minutes'] = round((time.time() - began) / 60, 1)
  (out / 'elastic.json').write_text(json.dumps(result, indent=1))
  timing.print_table(result['moved'], COLUMNS)
  print('\n'.join(result['wrong']) or 'Killed twice: the same to the bit.')
  if result['wrong']:
    raise SystemExit(1)
  return result


if __name__ == '__main__':
  main()
