"""The laptop recipe in torch, beside ours, on the same two cores.

  python -m benchmarks.laptop_torch --check
  python -m benchmarks.laptop_torch [--sides ours,eager,channels_last,compile]
      [--rounds 7] [--each 10] [--threads 2]
  python -m benchmarks.laptop_torch --profile channels_last

It needs torch, which no other part of the recipe does; the CPU build is enough.
--check compares output, loss, gradients and updates of both sides, from the
same weights, and torch in float64 with either.

The network, the loss, the clip, Muon and the EMA are those of configs/
moving_shapes.py:laptop on both sides, at its batch and in float32; the data are
one batch of random pixels, and every step draws its own noise. All sides are in
one process, compiled and warm before the first window; then a window of each,
in turn, so that other work on the machine meets all alike. Rows hold clips/s of
the median window, and the CPU time of a step, which other work changes little.
"""
import argparse
import statistics
import time

import jax
import numpy as np

try:
  import torch
except ImportError:  # the arguments are parsed without it; main says it
  torch = None

from benchmarks import arguments
from benchmarks import cases
from benchmarks import timing
from benchmarks import torch_step
from benchmarks import torch_unet
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import startup
from video_diffusion.data import shapes as shapes_lib
from video_diffusion.training import optimizer as optimizer_lib
from video_diffusion.training import state as state_lib
from video_diffusion.training import step as step_lib

SIDES = ('ours', 'eager', 'channels_last', 'compile')


class Recipe:
  """The laptop recipe: its config, model, optimizer and one random batch."""

  def __init__(self):
    self.config = cases.load_config('moving_shapes', 'laptop')
    self.model = build.make_model(self.config, shapes_lib.LABEL_SIZES)
    self.learning_rate, self.optimizer = build_step.make_optimizer(self.config)
    self.shapes = build.batch_shapes(self.config, self.model)
    self.ema_decay = optimizer_lib.make_ema_decay(
        decay=self.config.optim.ema_decay, rule=self.config.optim.ema_rule
    )
    rng = np.random.default_rng(0)
    video, labels = self.shapes['video'].shape, self.shapes['labels'].shape
    self.batch = {
        'video': rng.integers(0, 256, video, np.uint8),
        'labels': rng.integers(-1, 3, labels, np.int32),
    }

  def params(self) -> dict[str, np.ndarray]:
    """Random parameters: layers that start at zero act as well."""
    abstract = jax.eval_shape(lambda: state_lib.init_params(
        self.model, self.shapes, num_images=self.config.data.images,
        seed=self.config.seed,
    ))
    rng = np.random.default_rng(1)
    return {
        name: rng.normal(name.endswith('.scale'), 0.1, p.shape).astype(
            np.float32
        )
        for name, p in state_lib.flatten(abstract).items()
    }


class Ours:
  """Steps of ours, as the command line compiles them."""

  def __init__(self, recipe: Recipe):
    config, model, mesh = recipe.config, recipe.model, cases.make_mesh()
    init, abstract = build_step.abstract_state(
        config, model, recipe.optimizer, recipe.shapes, mesh
    )
    self._step, self.flops = build_step.compile_step(
        config, model, recipe.optimizer, recipe.learning_rate, abstract,
        recipe.shapes, mesh,
    )
    self._state = jax.jit(init)()
    self._batch = recipe.batch

  def run(self, count: int) -> None:
    """Does so many steps."""
    for _ in range(count):
      self._state, metrics = self._step(self._state, self._batch)
    jax.block_until_ready(metrics)


class Theirs:
  """Steps of torch."""

  def __init__(self, recipe: Recipe, mode: str):
    self._recipe, config = recipe, recipe.config
    self._network = torch_unet.Network(
        recipe.model, num_images=config.data.images,
        channels_last=mode != 'eager',
    )
    self._params = to_torch(recipe.params(), channels_last=mode != 'eager')
    # As numbers: a scalar of JAX would be a call of XLA in every step.
    steps = range(config.optim.decay_steps)
    rates = np.asarray(jax.vmap(recipe.learning_rate)(np.asarray(steps)))
    decays = [float(recipe.ema_decay(step)) for step in steps]
    self._optimizer = torch_step.Optimizer(
        self._params, config.optim, rates.tolist().__getitem__,
        decays.__getitem__,
    )
    self._loss = torch_step.loss_fn
    if mode == 'compile':
      torch._dynamo.reset()
      self._loss = torch.compile(self._loss, dynamic=False)

  def run(self, count: int) -> None:
    """Does so many steps."""
    config, batch = self._recipe.config, self._recipe.batch
    for _ in range(count):
      video = torch.from_numpy(batch['video'])
      noise = torch_step.draw_noise(
          video.shape, config.data.images, config.diffusion.cond_drop
      )
      loss = self._loss(
          self._network, self._params, video / 127.5 - 1, noise,
          torch.from_numpy(batch['labels']).long(),
      )
      loss.backward()
      self._optimizer.step(loss)
      for param in self._params.values():
        param.grad = None


def to_torch(params, *, channels_last=False, dtype=None):
  """Parameters of ours by name, as tensors that want gradients.

  Args:
    params: name -> array.
    channels_last: puts kernels of convolutions into that memory format.
    dtype: of the tensors; None is float32.
  """
  tensors = {}
  for name, array in params.items():
    tensor = torch.from_numpy(torch_unet.from_ours(name, array)).to(dtype)
    if channels_last and tensor.ndim == 4:
      tensor = tensor.contiguous(memory_format=torch.channels_last)
    tensors[name] = tensor.requires_grad_()
  return tensors


def largest(ours, theirs) -> float:
  """The largest difference, as a share of the largest number of its array.

  Args:
    ours: name -> array.
    theirs: name -> array, with the same names.
  """
  assert ours.keys() == theirs.keys()
  return max(
      float(np.abs(ours[name] - theirs[name]).max() / np.abs(ours[name]).max())
      for name in ours
  )


def check() -> dict[str, float]:
  """Largest relative differences between ours, torch, and torch in float64."""
  recipe = Recipe()
  config, model, k = recipe.config, recipe.model, recipe.config.data.images
  params = recipe.params()
  rng = np.random.default_rng(2)
  shape = recipe.batch['video'].shape
  logsnr = np.repeat(
      rng.uniform(-8, 8, (shape[0], 1 + k)), [shape[1] - k, *[1] * k], axis=1
  ).astype(np.float32)
  eps = rng.normal(size=shape).astype(np.float32)
  keep = np.arange(shape[0]) != 1
  _, loss_fn = step_lib.make_loss(
      model, num_images=k, prediction='v',
      logsnr_fn=build.make_logsnr_fn(config), cond_drop=0.1, train=True,
  )
  batch = recipe.batch | {'logsnr': logsnr, 'eps': eps, 'keep': keep}
  tree = state_lib.unflatten(params)

  def ours(tree):
    grad = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, _), grads = grad(tree, batch, jax.random.key(0))
    updates, _ = recipe.optimizer.update(
        grads, recipe.optimizer.init(tree), tree
    )
    output = step_lib.network_of(model, tree, batch, k, None)(
        batch['eps'], batch['logsnr']
    )
    return output, loss, grads, updates

  output, loss, grads, updates = jax.tree.map(np.asarray, jax.jit(ours)(tree))
  found_ours = {
      'output': {'': output}, 'loss': {'': loss},
      'gradients': state_lib.flatten(grads),
      'updates': state_lib.flatten(updates),
  }

  def theirs(dtype, channels_last):
    network = torch_unet.Network(
        model, num_images=k, channels_last=channels_last
    )
    p = to_torch(params, channels_last=channels_last, dtype=dtype)
    cast = lambda x: torch.from_numpy(x).to(dtype)
    noise = cast(logsnr), cast(eps), torch.from_numpy(keep)
    labels = torch.from_numpy(recipe.batch['labels']).long()
    with torch.no_grad():
      output = network(p, noise[1], noise[0], labels, noise[2])
    x = cast(recipe.batch['video']) / 127.5 - 1
    loss = torch_step.loss_fn(network, p, x, noise, labels)
    loss.backward()
    back = lambda tensors: {
        name: torch_unet.to_ours(name, tensors[name].numpy(), array)
        for name, array in params.items()
    }
    found = {
        'output': {'': output.numpy()}, 'loss': {'': loss.detach().numpy()},
        'gradients': back({name: t.grad.clone() for name, t in p.items()}),
    }
    # The updates are of our gradients: rounding of gradients that are nearly
    # zero would decide the sign of Adam's first update.
    for name, tensor in p.items():
      grad = torch.from_numpy(torch_unet.from_ours(name, grads_of[name]))
      tensor.grad = torch.empty_like(tensor).copy_(grad)
    before = {name: t.detach().clone() for name, t in p.items()}
    # At a rate of 1, which the sum with the parameters does not round away.
    torch_step.Optimizer(
        p, config.optim, lambda n: 1.0, lambda n: 0.1
    ).step(loss.detach())
    rate = float(recipe.learning_rate(0))
    return found | {'updates': back({
        name: (t.detach() - before[name]) * rate for name, t in p.items()
    })}

  grads_of = found_ours['gradients']
  exact = theirs(torch.float64, False)
  rows = {'ours': found_ours} | {
      mode: theirs(torch.float32, mode == 'channels_last')
      for mode in ('eager', 'channels_last')
  }
  differences = {}
  for name, row in rows.items():
    for what, arrays in row.items():
      differences[f'{what}, float64 and {name}'] = largest(exact[what], arrays)
      if name != 'ours':
        differences[f'{what}, ours and {name}'] = largest(
            found_ours[what], arrays
        )
  return differences


def measure(sides: list[str], rounds: int, each: int) -> list[dict]:
  """One row for each side.

  Args:
    sides: of SIDES.
    rounds: windows of each side.
    each: steps of a window.
  """
  recipe = Recipe()
  steppers, flops = {}, None
  for side in sides:
    began = time.perf_counter()
    if side == 'ours':
      steppers[side] = Ours(recipe)
      flops = steppers[side].flops
    else:
      steppers[side] = Theirs(recipe, side)
    steppers[side].run(1)
    first = time.perf_counter() - began
    steppers[side].run(9)
    timing.emit({'case': side, 'ready after seconds': round(first, 1)})
  seconds, cpu = ({side: [] for side in sides} for _ in range(2))
  for _ in range(rounds):
    for side in sides:
      time.sleep(0.2)  # until the threads of the side before are at rest
      steppers[side].run(1)
      began, used = time.perf_counter(), time.process_time()
      steppers[side].run(each)
      seconds[side].append((time.perf_counter() - began) / each)
      cpu[side].append((time.process_time() - used) / each)
      # At once: a run that is stopped early has shown its windows.
      timing.emit({
          'window of': side, 'ms': round(1e3 * seconds[side][-1], 1),
          'cpu_ms': round(1e3 * cpu[side][-1], 1),
      })
  batch, rows = recipe.config.batch_size, []
  for side in sides:
    median = statistics.median(seconds[side])
    rows.append(timing.emit({
        'case': side,
        'clips_per_second': round(batch / median, 1),
        'clips_per_second_best': round(batch / min(seconds[side]), 1),
        'ms': round(1e3 * median, 1),
        'cpu_ms': round(1e3 * statistics.median(cpu[side]), 1),
        'cpu_ms_best': round(1e3 * min(cpu[side]), 1),
        'gflop': flops and round(flops / 1e9, 2),
        'windows': f'{rounds} x {each}',
        'threads': torch.get_num_threads() if side != 'ours' else None,
        'software': (
            f'jax {jax.__version__}' if side == 'ours'
            else f'torch {torch.__version__}'
        ),
        'date': timing.today(),
    }))
  return rows


def profile(mode: str) -> str:
  """torch's own times of its operations in ten steps."""
  side = Theirs(Recipe(), mode)
  side.run(5)
  with torch.profiler.profile(
      activities=[torch.profiler.ProfilerActivity.CPU]
  ) as found:
    side.run(10)
  return found.key_averages().table('self_cpu_time_total', row_limit=40)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--check', action='store_true')
  parser.add_argument('--profile', choices=SIDES[1:])
  parser.add_argument(
      '--sides', type=arguments.names(SIDES), default=list(SIDES)
  )
  parser.add_argument('--rounds', type=int, default=7, help='windows of each')
  parser.add_argument('--each', type=int, default=10, help='steps of a window')
  parser.add_argument('--threads', type=int, default=2, help='of torch')
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
  """Prints differences, a profile, or a row for each side."""
  args = parse(argv)
  if torch is None:
    raise SystemExit('This needs torch; the CPU build is enough.')
  startup.keep_freed_memory()
  torch.set_num_threads(args.threads)
  if args.check:
    for what, difference in check().items():
      timing.emit({'what': what, 'largest difference': float(
          f'{difference:.2g}')})
  elif args.profile:
    print(profile(args.profile), flush=True)
  else:
    columns = {
        'side': 'case', 'clips/s': 'clips_per_second', 'ms a step': 'ms',
        'CPU ms a step': 'cpu_ms',
    }
    timing.print_table(measure(args.sides, args.rounds, args.each), columns)


if __name__ == '__main__':
  main()
