"""video-diffusion-pytorch, the peer: its network, as the benchmarks run it."""
import sys
import types

try:
  import torch
except ImportError:  # the arguments are parsed without it; load_peer says it
  torch = None

DEVICE = 'cuda' if torch and torch.cuda.is_available() else 'cpu'


def load_peer():
  """The peer's module, without its text encoder."""
  sys.modules.setdefault('sacremoses', types.ModuleType('sacremoses'))
  try:
    from video_diffusion_pytorch import video_diffusion_pytorch as peer
  except ImportError as error:
    sys.exit(f'{error}; the packages that this needs: see --help.')
  torch.backends.cudnn.benchmark = True
  torch.set_flush_denormal(True)  # on CPUs they take twenty times as long
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


def make_diffusion(peer, network, args, loss_type: str):
  """Its diffusion process around a network: a module from clips to a loss.

  Clips are float [n, 3, frames, size, size] in [0, 1].
  """
  return peer.GaussianDiffusion(
      network, image_size=args.size, num_frames=args.frames,
      loss_type=loss_type,
  )


def compiled(network, mode: str):
  """The network as `mode` runs it; shapes are compiled one by one."""
  if mode == 'eager':
    return network
  torch._dynamo.reset()
  return torch.compile(network, dynamic=False)


def autocast():
  """The compute of both sides: bfloat16, with weights in float32."""
  return torch.autocast(DEVICE, torch.bfloat16)


def count(network) -> int:
  """Number of scalars of its weights."""
  return sum(p.numel() for p in network.parameters())


def synchronize() -> None:
  """Waits for the device."""
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def device_name() -> str:
  """Name of the device."""
  return torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu'


def peak_bytes() -> int | None:
  """The most memory that tensors have taken; None where no device tells."""
  return torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else None
