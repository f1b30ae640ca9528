"""What the devices of a program can do, asked while it is traced.

A program is traced for the devices of JAX's default backend. Where it is then
lowered for another platform, as the count of its operations is for the CPU,
`jax.lax.platform_dependent` chooses again.
"""
import importlib.util
import re

import jax
import jax.numpy as jnp

# Tensor cores multiply bfloat16 from Ampere on. cuDNN's attention and the
# compiler of Pallas kernels for GPUs require the same (documentation of JAX).
BFLOAT16_CAPABILITY = (8, 0)


def capability(device: jax.Device) -> tuple[int, int] | None:
  """The compute capability of an NVIDIA GPU, (7, 5); None for other devices.

  AMD's GPUs are of the platform 'gpu' as well, and call theirs 'gfx942'.
  """
  version = getattr(device.client, 'platform_version', '')
  found = re.fullmatch(
      r'(\d+)\.(\d+)', str(getattr(device, 'compute_capability', ''))
  )
  if device.platform != 'gpu' or 'rocm' in version.lower() or not found:
    return None
  return int(found[1]), int(found[2])


def runs_nvidia_kernels() -> bool:
  """Whether every device is an NVIDIA GPU with units for bfloat16."""
  found = [capability(device) for device in jax.devices()]
  return all(c is not None and c >= BFLOAT16_CAPABILITY for c in found)


def runs_pallas() -> bool:
  """Whether every device runs kernels that Pallas compiles by Triton.

  JAX has announced that it will remove that compiler.
  """
  return runs_nvidia_kernels() and (
      importlib.util.find_spec('jax.experimental.pallas.triton') is not None
  )


def shortcoming(dtype: jnp.dtype) -> str:
  """What a network of this dtype goes without here: a sentence, or ''."""
  if dtype != jnp.bfloat16:
    return ''
  for device in jax.devices():
    found = capability(device)
    if found and found < BFLOAT16_CAPABILITY:
      return (
          f'{device.device_kind} (compute capability {found[0]}.{found[1]}) '
          'has no units for bfloat16, which begin with compute capability 8.0: '
          "model.dtype='bfloat16' is computed in float32 there, and attention "
          "by plain XLA instead of fused kernels; model.dtype='float32' may be "
          'faster for a new run.'
      )
    if device.platform == 'gpu' and not found:
      return (
          f'{device.device_kind} runs attention by plain XLA: the fused '
          'kernels are for NVIDIA GPUs of compute capability 8.0 or later.'
      )
  if jax.devices()[0].platform == 'gpu' and not runs_pallas():
    return (
        f'JAX {jax.__version__} has no Triton compiler for Pallas: attention '
        'over frames runs by plain XLA.'
    )
  return ''
