"""The speed and the quality of video-diffusion-pytorch, the peer.

  pip install --no-deps video-diffusion-pytorch==0.7.0 einops-exts==0.0.4 \\
      rotary-embedding-torch
  python -m benchmarks.peer [--batch 16] [--modes eager,compile]
      [--what train,sample]
  python -m benchmarks.peer --what quality --modes eager --minutes 10 \\
      --clips RECORDS --out DIR [--samples 1024] [--sampling_steps 64]
      [--weights ema|raw]

It also needs torch, torchvision, einops, Pillow and tqdm. Its speed, in the
columns of step.py, takes one GPU a minute for eager, and five to ten more for
torch.compile. On a CPU, in seconds: `--modes eager --dim 8 --frames 4 --size 16
--batch 2`. Its quality is described in benchmarks/peer_quality.py.

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
import pathlib
import time

try:
  import torch
  from torch.utils import flop_counter
except ImportError:  # the arguments are parsed without it; load_peer says it
  torch = flop_counter = None

from benchmarks import arguments
from benchmarks import peer_model
from benchmarks import peer_quality
from benchmarks import timing

MODES = ('eager', 'compile')
SAMPLE_BATCHES = (1, 16)


def count_flops(peer, args) -> tuple[int, int]:
  """(forward, forward + backward) of one clip; nothing is computed."""
  with torch.device('meta'):
    loss = peer_model.make_diffusion(
        peer, peer_model.make_network(peer, args), args, 'l2'
    )
    clip = torch.empty(1, 3, args.frames, args.size, args.size)
  with flop_counter.FlopCounterMode(display=False) as forward:
    value = loss(clip)
  with flop_counter.FlopCounterMode(display=False) as backward:
    value.backward()
  forward = forward.get_total_flops()
  return forward, forward + backward.get_total_flops()


def timed(run) -> tuple[list[float], float, int | None]:
  """(windows, seconds of the first call, peak bytes) of `run`, n -> None."""
  began = time.perf_counter()
  run(1)
  first = time.perf_counter() - began
  run(9)
  if peer_model.DEVICE == 'cuda':
    # What compilation and cuDNN's trials took does not count.
    torch.cuda.reset_peak_memory_stats()
  seconds = timing.windows(run, warmup=1)
  return seconds, first, peer_model.peak_bytes()


def time_train(peer, args, mode: str):
  """(parameters, batch, *`timed`) of the train step."""
  network = peer_model.make_network(peer, args).to(peer_model.DEVICE)
  loss_fn = peer_model.make_diffusion(
      peer, peer_model.compiled(network, mode), args, 'l2'
  ).to(peer_model.DEVICE)
  ema, ema_network = peer.EMA(peer_quality.EMA_DECAY), copy.deepcopy(network)
  parameters = list(network.parameters())
  optimizer = torch.optim.Adam(parameters, lr=peer_quality.LEARNING_RATE)
  shape = (args.batch, 3, args.frames, args.size, args.size)
  clips = torch.randint(256, shape, dtype=torch.uint8, device=peer_model.DEVICE)
  step = 0

  def run(n):
    nonlocal step
    for _ in range(n):
      with peer_model.autocast():
        loss = loss_fn(clips / 255)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(parameters, 1.0)
      optimizer.step()
      optimizer.zero_grad()
      if step % peer_quality.EVERY == 0:
        ema.update_model_average(ema_network, network)
      step += 1
    peer_model.synchronize()

  return peer_model.count(network), args.batch, *timed(run)


def time_sample(peer, args, mode: str, batch: int):
  """The same of one call of the network without gradients."""
  network = peer_model.make_network(peer, args).to(peer_model.DEVICE).eval()
  call = peer_model.compiled(network, mode)
  shape = (batch, 3, args.frames, args.size, args.size)
  z = torch.randn(shape, device=peer_model.DEVICE)
  times = torch.full((batch,), 500, device=peer_model.DEVICE)

  @torch.no_grad()
  def run(n):
    for _ in range(n):
      with peer_model.autocast():
        call(z, times)
    peer_model.synchronize()

  return peer_model.count(network), batch, *timed(run)


def row(args, mode, what, flops, measured) -> dict:
  """One row of the table."""
  parameters, batch, seconds, first, peak = measured
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
      'devices': f'1 x {peer_model.device_name()}',
      'software': f'torch {torch.__version__}',
      'date': timing.today(),
  }


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  what = ('train', 'sample', 'quality')
  parser.add_argument('--batch', type=int, default=16, help='of training')
  for flag, known, given in (
      ('--modes', MODES, MODES), ('--what', what, what[:2]),
  ):
    parser.add_argument(
        flag, type=arguments.names(known), default=list(given)
    )
  parser.add_argument('--dim', type=int, default=64)
  parser.add_argument('--frames', type=int, default=16)
  parser.add_argument('--size', type=int, default=64)
  quality = parser.add_argument_group('quality')
  quality.add_argument('--clips', help='folder of prepared records')
  quality.add_argument('--out', type=pathlib.Path)
  quality.add_argument('--minutes', type=float, default=10.0)
  quality.add_argument('--weights', choices=('ema', 'raw'), default='ema')
  quality.add_argument('--samples', type=int, default=1024)
  quality.add_argument('--sampling_steps', type=int, default=64)
  quality.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv)
  if 'quality' in args.what:
    if len(args.what) > 1 or len(args.modes) > 1:
      parser.error('--what quality goes alone, with one of --modes.')
    if not args.clips or not args.out:
      parser.error('--what quality needs --clips and --out.')
    if min(args.minutes, args.samples) <= 0:
      parser.error('--minutes and --samples must be above 0.')
    if not 1 <= args.sampling_steps <= peer_quality.TIMES:
      parser.error(f'--sampling_steps must be 1 to {peer_quality.TIMES}.')
  return args


def main(argv: list[str] | None = None) -> None:
  """Measures the peer's speed, or its quality."""
  args = parse(argv)
  peer = peer_model.load_peer()
  if 'quality' in args.what:
    peer_quality.run(peer, args)
  else:
    time_peer(peer, args)


def time_peer(peer, args) -> None:
  """Prints a row as JSON as soon as it is measured, and at last the table."""
  rows, original = [], peer.prob_mask_like
  # A mask's wait cannot be answered where nothing is computed.
  peer_model.set_mode(peer, 'eager', original)
  forward, both = count_flops(peer, args)
  for mode in args.modes:
    peer_model.set_mode(peer, mode, original)
    if 'train' in args.what:
      found = time_train(peer, args, mode)
      rows.append(timing.emit(row(args, mode, 'train', both, found)))
    for batch in SAMPLE_BATCHES if 'sample' in args.what else ():
      found = time_sample(peer, args, mode, batch)
      rows.append(timing.emit(row(args, mode, 'sample', forward, found)))
  timing.print_table(rows)


if __name__ == '__main__':
  main()
