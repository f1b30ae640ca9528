"""The speed of video-diffusion-pytorch, the peer, in the columns of step.py.

  pip install --no-deps video-diffusion-pytorch==0.7.0 einops-exts==0.0.4 \\
      rotary-embedding-torch
  python -m benchmarks.peer [--batch 16] [--modes eager,compile]
      [--what train,sample]

It also needs torch, torchvision, einops, Pillow and tqdm. On one GPU a minute
for eager, and five to ten more for torch.compile. On a CPU, in seconds:
`--modes eager --dim 8 --frames 4 --size 16 --batch 2`.

Both sides take 16 frames of 64x64, bfloat16 compute, float32 weights, random
data on the device, and the protocol of benchmarks/timing.py. What a step of the
peer holds: its own `GaussianDiffusion`, which draws times and noise and takes
the mean square error of the predicted noise; backward; the gradient clipped to
norm 1; torch's Adam; and its own EMA, in every tenth step as its trainer has
it, where ours is in every step. Nothing waits for the device within a window.
A row of `sample` is one call of the network without gradients, which is nearly
all that a step of sampling does.

Two favours to the peer: cuDNN's autotuning is on, and in eager mode a host wait
in every attention layer, over a mask that is not used, is taken out. Compiled
it stays, since torch 2.11 cannot differentiate the one graph there is without.

FLOPs are torch's own count of convolutions and matrix products: 747.2 GFLOP for
forward and backward of a clip at dim 64, 249.5 GFLOP forward.
"""
import argparse
import copy
import sys
import time
import types

try:
  import torch
  from torch.utils import flop_counter
except ImportError:  # the arguments are parsed without it; load_peer says it
  torch = flop_counter = None

from benchmarks import timing

DEVICE = 'cuda' if torch and torch.cuda.is_available() else 'cpu'
SAMPLE_BATCHES = (1, 16)


def load_peer():
  """The peer's module, without its text encoder."""
  sys.modules.setdefault('sacremoses', types.ModuleType('sacremoses'))
  try:
    from video_diffusion_pytorch import video_diffusion_pytorch as peer
  except ImportError as error:
    sys.exit(f'{error}; the packages that this needs: see --help.')
  return peer


def set_mode(peer, mode: str, prob_mask_like) -> None:
  """Takes the peer's mask out in eager mode, and puts it back in another.

  The mask is of no effect at probability 0, but asking whether it is costs a
  wait in every attention layer. It also splits the compiler's graphs; the one
  graph without it fails in backward under torch 2.11, by a gradient of [512]
  for a gain of [1, 512, 1, 1, 1].
  """
  none = lambda *args, **kwargs: None
  peer.prob_mask_like = none if mode == 'eager' else prob_mask_like


def make_network(peer, args):
  """Its U-Net, at its defaults: channels 1-2-4-8, attention at every level."""
  return peer.Unet3D(dim=args.dim)


def make_loss(peer, network, args):
  """Its diffusion process around a network: a module from clips to a loss."""
  return peer.GaussianDiffusion(
      network, image_size=args.size, num_frames=args.frames, loss_type='l2'
  )


def count_flops(peer, args) -> tuple[int, int]:
  """(forward, forward + backward) of one clip; nothing is computed."""
  with torch.device('meta'):
    loss = make_loss(peer, make_network(peer, args), args)
    clip = torch.empty(1, 3, args.frames, args.size, args.size)
  with flop_counter.FlopCounterMode(display=False) as forward:
    value = loss(clip)
  with flop_counter.FlopCounterMode(display=False) as backward:
    value.backward()
  forward = forward.get_total_flops()
  return forward, forward + backward.get_total_flops()


def count(network) -> int:
  """Number of scalars of its weights."""
  return sum(p.numel() for p in network.parameters())


def synchronize() -> None:
  """Waits for the device."""
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def timed(run) -> tuple[list[float], float, int | None]:
  """(windows, seconds of the first call, peak bytes) of `run`, n -> None."""
  began = time.perf_counter()
  run(1)
  first = time.perf_counter() - began
  run(9)
  if DEVICE == 'cuda':
    # What compilation and cuDNN's trials took does not count.
    torch.cuda.reset_peak_memory_stats()
  seconds = timing.windows(run, warmup=1)
  peak = torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else None
  return seconds, first, peak


def compiled(network, mode: str):
  """The network as `mode` runs it; shapes are compiled one by one."""
  if mode == 'eager':
    return network
  torch._dynamo.reset()
  return torch.compile(network, dynamic=False)


def time_train(peer, args, mode: str):
  """(parameters, batch, *`timed`) of the train step."""
  network = make_network(peer, args).to(DEVICE)
  loss_fn = make_loss(peer, compiled(network, mode), args).to(DEVICE)
  ema, ema_network = peer.EMA(0.995), copy.deepcopy(network)
  parameters = list(network.parameters())
  optimizer = torch.optim.Adam(parameters, lr=1e-4)
  shape = (args.batch, 3, args.frames, args.size, args.size)
  clips = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
  step = 0

  def run(n):
    nonlocal step
    for _ in range(n):
      with torch.autocast(DEVICE, torch.bfloat16):
        loss = loss_fn(clips / 255)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(parameters, 1.0)
      optimizer.step()
      optimizer.zero_grad()
      if step % 10 == 0:
        ema.update_model_average(ema_network, network)
      step += 1
    synchronize()

  return count(network), args.batch, *timed(run)


def time_sample(peer, args, mode: str, batch: int):
  """The same of one call of the network without gradients."""
  network = make_network(peer, args).to(DEVICE).eval()
  call = compiled(network, mode)
  z = torch.randn(batch, 3, args.frames, args.size, args.size, device=DEVICE)
  times = torch.full((batch,), 500, device=DEVICE)

  @torch.no_grad()
  def run(n):
    for _ in range(n):
      with torch.autocast(DEVICE, torch.bfloat16):
        call(z, times)
    synchronize()

  return count(network), batch, *timed(run)


def row(args, mode, what, flops, measured) -> dict:
  """One row of the table."""
  parameters, batch, seconds, first, peak = measured
  name = torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu'
  return {
      'case': f'peer, {what}, {mode}',
      'parameters': parameters,
      'batch': batch,
      'frames': f'{args.frames} + 0',
      'dropout': 0.0,
      'remat': False,
      **timing.rates(seconds, batch=batch, flops=batch * flops),
      'peak_gib': timing.gib(peak),
      # Of the first call, nearly all of which is compilation.
      'compile_seconds': None if mode == 'eager' else round(first, 1),
      'devices': f'1 x {name}',
      'software': f'torch {torch.__version__}',
      'date': timing.today(),
  }


def names(known: tuple[str, ...]):
  """The type of a flag that takes some of the known names, by commas."""

  def parse(text):
    given = text.split(',')
    for name in given:
      if name not in known:
        raise argparse.ArgumentTypeError(
            f'{name!r} is none of {", ".join(known)}'
        )
    return given

  return parse


def main() -> None:
  """Prints a row as JSON as soon as it is measured, and at last the table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  modes, what = ('eager', 'compile'), ('train', 'sample')
  parser.add_argument('--batch', type=int, default=16, help='of training')
  parser.add_argument('--modes', type=names(modes), default=list(modes))
  parser.add_argument('--what', type=names(what), default=list(what))
  parser.add_argument('--dim', type=int, default=64)
  parser.add_argument('--frames', type=int, default=16)
  parser.add_argument('--size', type=int, default=64)
  args = parser.parse_args()
  peer = load_peer()
  torch.backends.cudnn.benchmark = True
  torch.set_flush_denormal(True)  # on CPUs they take twenty times as long
  rows, original = [], peer.prob_mask_like
  # A mask's wait cannot be answered where nothing is computed.
  set_mode(peer, 'eager', original)
  forward, both = count_flops(peer, args)
  for mode in args.modes:
    set_mode(peer, mode, original)
    if 'train' in args.what:
      found = time_train(peer, args, mode)
      rows.append(timing.emit(row(args, mode, 'train', both, found)))
    for batch in SAMPLE_BATCHES if 'sample' in args.what else ():
      found = time_sample(peer, args, mode, batch)
      rows.append(timing.emit(row(args, mode, 'sample', forward, found)))
  timing.print_table(rows)


if __name__ == '__main__':
  main()
