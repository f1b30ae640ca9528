"""What the peer learns in some minutes, and its samples: quality of peer.py.

It is trained on the train split of RECORDS, the folder with videos.npz that
--mode=prepare or a run of ours has made below data.dir; every start of every
video is equally likely. The minutes count from the start of the first step,
compilation included. Then samples are written:

- DIR/network.pt: the EMA weights and the raw ones. A further call with this
  DIR, as with other --sampling_steps or --weights, takes these, and continues
  the sampling where it stopped.
- DIR/samples_STEPS/samples_0000.npz ...: 'video', uint8 [batch, frames, height,
  width, 3], a file for each batch; whole batches, so that there are perhaps a
  few more than --samples. `benchmarks.scores` scores the folder. With --weights
  raw it is DIR/samples_STEPS_raw.
- DIR/quality.json: the protocol, and the mean loss of every ten steps.

What is the peer's, by its README, its Trainer and its defaults: Unet3D(dim=64),
`GaussianDiffusion` with 1,000 times of its cosine schedule and loss l1, Adam at
1e-4 without warm-up or clipping, EMA of 0.995 in every tenth step from step
2,000 on, which copies the weights until then, and mixed precision. So the EMA
of a training of less than 2,000 steps is its weights, and soon after it lags
behind: --weights raw shows whether that is to the peer's disadvantage.

What is not: the README takes 32 clips twice a step. These do not fit an 80 GB
card at 16 frames of 64x64, since 16 take 44 GiB; and 64 clips a step are less
than 400 steps in ten minutes. The default is 16 clips a step, as in our
configs, which gives the peer four times as many steps.

Favours to the peer, beside those of speed (see peer.py): mixed precision is
bfloat16, which needs no scaling of the loss; threads read clips ahead, where
its Trainer decodes GIFs in between; the device is waited for in every tenth
step alone; and no time goes into samples along the way.

Its own sampler calls the network a thousand times, which is more than an hour
for 1,024 clips. The default is deterministic DDIM in 64 steps of equal length
in its times, on its network and schedule, with x clipped to [-1, 1] as its own
sampler does; --sampling_steps 1000 is its own sampler. Either computes the
network in bfloat16, as ours does.
"""
import copy
import json
import sys
import time

import numpy as np
import tqdm

try:
  import torch
except ImportError:  # peer_model.load_peer says it
  torch = None

from benchmarks import peer_model
from benchmarks import timing
from video_diffusion.data import pipeline
from video_diffusion.data import records
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files

TIMES = 1000  # of its diffusion process
LEARNING_RATE = 1e-4
EMA_DECAY, EMA_START = 0.995, 2000  # step; until then it copies
EVERY = 10  # steps from one update of the EMA to the next
# What network.pt depends on.
SETTINGS = ('dim', 'frames', 'size', 'batch', 'minutes', 'seed')


def ddim_times(num_steps: int, num_times: int) -> np.ndarray:
  """int [num_steps + 1], the times of DDIM from the noisiest to -1.

  They lie as evenly as whole numbers do. Time -1 has no noise.
  """
  return np.linspace(num_times - 1, -1, num_steps + 1).round().astype(int)


def ddim_step(z, eps, signal_t: float, signal_s: float):
  """z_s of deterministic DDIM (Song et al. 2021, equation 12 with sigma = 0).

  Args:
    z: z_t, a float array of NumPy or torch.
    eps: the noise in z_t that the network predicts, of the same shape.
    signal_t: share of the signal in the variance of z_t, in (0, 1): alpha_bar
      of DDPM.
    signal_s: that of the less noisy z_s, in (0, 1].

  Returns:
    z_s. The x that z_t and eps say is clipped to [-1, 1], and the noise is what
    remains of z_t.
  """
  x = (z - (1 - signal_t) ** 0.5 * eps) / signal_t**0.5
  x = x.clip(-1.0, 1.0)
  eps = (z - signal_t**0.5 * x) / (1 - signal_t) ** 0.5
  return signal_s**0.5 * x + (1 - signal_s) ** 0.5 * eps


def open_clips(args) -> records.VideoRecords:
  """The training clips.

  Raises:
    UserError: there are none, or they are of another size.
  """
  # Every start of every video is equally likely. Nothing here starts JAX, which
  # would take the memory of the GPU.
  source = records.VideoRecords(
      args.clips, 'train', epoch='windows', min_frames=args.frames
  )
  if source.frame_size != (args.size, args.size):
    height, width = source.frame_size
    raise UserError(
        f'{args.clips} holds frames of {width}x{height}, but the peer takes '
        f'{args.size}x{args.size}; --size must be the side of square frames.'
    )
  return source


def train(peer, args, source: records.VideoRecords):
  """Trains for args.minutes.

  Args:
    peer: its module.
    args: of peer.py.
    source: the training clips.

  Returns:
    ({'ema': weights, 'raw': weights}, figures of the training).
  """
  torch.manual_seed(args.seed)
  network = peer_model.make_network(peer, args).to(peer_model.DEVICE)
  ema, ema_network = peer.EMA(EMA_DECAY), copy.deepcopy(network)
  loss_fn = peer_model.make_diffusion(
      peer, peer_model.compiled(network, args.modes[0]), args, 'l1'
  ).to(peer_model.DEVICE)
  optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
  batches = pipeline.batches(
      source, batch_size=args.batch, num_frames=args.frames, seed=args.seed,
      stop=2**31, loader='threads',
  )
  bar = tqdm.tqdm(total=round(60 * args.minutes), desc='training', unit='s')
  step, losses, passed = 0, [], 0.0
  began = time.perf_counter()
  while passed < 60 * args.minutes:
    sums = 0.0
    for _ in range(EVERY):
      clips = torch.from_numpy(next(batches)['video']).to(peer_model.DEVICE)
      clips = clips.permute(0, 4, 1, 2, 3).contiguous()
      with peer_model.autocast():
        loss = loss_fn(clips / 255)
      loss.backward()
      optimizer.step()
      optimizer.zero_grad()
      sums = sums + loss.detach()
      if step % EVERY == 0:
        if step < EMA_START:
          ema_network.load_state_dict(network.state_dict())
        else:
          ema.update_model_average(ema_network, network)
      step += 1
    losses.append(round(float(sums) / EVERY, 5))  # waits for the device
    passed = time.perf_counter() - began
    bar.set_postfix(step=step, loss=losses[-1])
    bar.update(min(round(passed), bar.total) - bar.n)
  bar.close()
  batches.close()
  return {'ema': ema_network.state_dict(), 'raw': network.state_dict()}, {
      'seconds': round(passed, 1),
      'steps': step,
      'peak_gib': timing.gib(peer_model.peak_bytes()),
      'losses': losses,
  }


def sample(peer, args, network, folder) -> None:
  """Writes samples, a batch to a file; those that are there are kept."""
  diffusion = peer_model.make_diffusion(peer, network, args, 'l1')
  diffusion.to(peer_model.DEVICE).eval()
  folder.mkdir(exist_ok=True)
  for number in tqdm.trange(-(-args.samples // args.batch), desc='sampling'):
    path = folder / f'samples_{number:04d}.npz'
    if path.exists():
      continue
    seeds = np.random.SeedSequence([args.seed, number]).generate_state(1)
    torch.manual_seed(int(seeds[0]))
    with torch.inference_mode(), peer_model.autocast():
      if args.sampling_steps == TIMES:
        videos = diffusion.sample(batch_size=args.batch)
      else:
        videos = _ddim(diffusion, args)
    videos = (videos.clip(0, 1) * 255).round().to(torch.uint8)
    with files.writing(path) as part:
      np.savez(part, video=videos.permute(0, 2, 3, 4, 1).cpu().numpy())


def _ddim(diffusion, args):
  """float32 [batch, 3, frames, size, size] in [0, 1]."""
  shape = (args.batch, 3, args.frames, args.size, args.size)
  z = torch.randn(shape, device=peer_model.DEVICE)
  signal = [*diffusion.alphas_cumprod.tolist(), 1.0]  # 1 at time -1
  times = ddim_times(args.sampling_steps, diffusion.num_timesteps).tolist()
  for t, s in zip(times[:-1], times[1:], strict=True):
    time_of_all = torch.full((len(z),), t, device=z.device)
    eps = diffusion.denoise_fn(z, time_of_all).float()
    z = ddim_step(z, eps, signal[t], signal[s])
  return (z + 1) / 2


def run(peer, args) -> None:
  """Trains unless DIR holds the network, samples, and writes the protocol."""
  original = peer.prob_mask_like
  try:
    source = open_clips(args)
  except UserError as error:
    sys.exit(f'peer: {error}')
  settings = {name: getattr(args, name) for name in SETTINGS} | {
      'mode': args.modes[0], 'clips': source.fingerprint,
  }
  args.out.mkdir(parents=True, exist_ok=True)
  saved, report = args.out / 'network.pt', args.out / 'quality.json'
  network = peer_model.make_network(peer, args).to(peer_model.DEVICE)
  if saved.exists():
    content = json.loads(report.read_text())
    others = {
        name: content['settings'][name] for name, value in settings.items()
        if content['settings'][name] != value
    }
    if others:
      sys.exit(f'peer: {saved} was trained with {others}; give another --out.')
    weights = torch.load(
        saved, map_location=peer_model.DEVICE, weights_only=True
    )
  else:
    peer_model.set_mode(peer, args.modes[0], original)
    weights, training = train(peer, args, source)
    content = {
        'settings': settings,
        'peer': 'video-diffusion-pytorch 0.7.0',
        'parameters': peer_model.count(network),
        'videos': source.num_videos,
        'software': f'torch {torch.__version__}',
        **_circumstances(),
        'training': training,
        'sampling': {},
    }
    files.write(report, json.dumps(content, indent=1))
    with files.writing(saved) as part:
      torch.save(weights, part)
  network.load_state_dict(weights[args.weights])
  peer_model.set_mode(peer, 'eager', original)
  folder = f'samples_{args.sampling_steps}'
  folder += '_raw' if args.weights == 'raw' else ''
  began = time.perf_counter()
  sample(peer, args, network, args.out / folder)
  own = args.sampling_steps == TIMES
  content['sampling'][folder] = found = {
      'sampler': 'its own' if own else 'DDIM',
      'samples': args.samples,
      'seconds of this call': round(time.perf_counter() - began, 1),
      **_circumstances(),
  }
  files.write(report, json.dumps(content, indent=1))
  timing.emit({
      name: value for name, value in content['training'].items()
      if name != 'losses'
  } | found)


def _circumstances():
  """Where and when."""
  return {'device': peer_model.device_name(), 'date': timing.today()}
