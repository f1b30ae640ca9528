"""Which attention a device gets, on devices that are not there."""
import types

import jax
import jax.numpy as jnp
import pytest

from benchmarks import cases
from video_diffusion.config import build
from video_diffusion.models import attention
from video_diffusion.models import hardware

CUDA, ROCM = 'PJRT C API\ncuda 13000', 'PJRT C API\nrocm 70000'
# Kind -> (platform, version of the platform, compute capability).
DEVICES = {
    'Tesla T4': ('gpu', CUDA, '7.5'),
    'Tesla V100-SXM2-16GB': ('gpu', CUDA, '7.0'),
    'NVIDIA A100-SXM4-40GB': ('gpu', CUDA, '8.0'),
    'NVIDIA L4': ('gpu', CUDA, '8.9'),
    'NVIDIA H100 80GB HBM3': ('gpu', CUDA, '9.0'),
    'NVIDIA B200': ('gpu', CUDA, '10.0'),
    'NVIDIA GeForce RTX 5090': ('gpu', CUDA, '12.0'),
    'AMD Instinct MI300X': ('gpu', ROCM, 'gfx942'),
    'AMD of another plugin': ('gpu', ROCM, '9.4'),
    'TPU v4': ('tpu', 'libtpu', None),
    'cpu': ('cpu', '', None),
}
FUSED = [kind for kind in DEVICES if kind.startswith('NVIDIA')]
QKV = jax.ShapeDtypeStruct((2, 8, 64, 3, 2, 32), jnp.bfloat16)
BIAS = jax.ShapeDtypeStruct((2, 8, 8), jnp.float32)


@pytest.fixture
def use(monkeypatch):
  """use(kind, ...): JAX's devices are of these kinds."""

  def devices(*kinds):
    found = []
    for kind in kinds:
      platform, version, capability = DEVICES[kind]
      device = types.SimpleNamespace(
          device_kind=kind, platform=platform,
          client=types.SimpleNamespace(platform_version=version),
      )
      if capability:
        device.compute_capability = capability
      found.append(device)
    monkeypatch.setattr(jax, 'devices', lambda *_: found)

  return devices


@pytest.mark.parametrize('kind', DEVICES)
def test_fused_kernels_run_where_the_card_can(use, kind, monkeypatch):
  monkeypatch.setattr(attention, '_cudnn', lambda q, k, v: jnp.tan(q))
  use(kind)
  q, fused = jax.ShapeDtypeStruct((4, 64, 2, 32), jnp.bfloat16), kind in FUSED
  # Traced, not compiled: the path is in the program.
  space = str(jax.make_jaxpr(lambda *x: attention.attend(*x))(q, q, q))
  assert (' tan ' in space) == fused
  frames = str(jax.make_jaxpr(lambda *x: attention.attend_frames(*x))(
      QKV, BIAS))
  assert ('pallas_call' in frames) == fused
  # Lowered for the CPU, to count its operations, it is plain all the same.
  lower = jax.jit(attention.attend_frames).trace(QKV, BIAS).lower
  assert 'dot_general' in lower(lowering_platforms=('cpu',)).as_text()


def test_float32_and_sizes_that_do_not_fit_are_plain(use):
  use('NVIDIA H100 80GB HBM3')
  assert attention.takes_cudnn((4, 64, 2, 128), jnp.bfloat16)
  assert not attention.takes_cudnn((4, 64, 2, 128), jnp.float32)
  assert not attention.takes_cudnn((4, 64, 2, 20), jnp.bfloat16)
  assert not attention.takes_cudnn((4, 64, 2, 160), jnp.bfloat16)
  assert attention.takes_kernel(QKV.shape, jnp.bfloat16)
  assert not attention.takes_kernel(QKV.shape, jnp.float32)
  assert not attention.takes_kernel((2, 9, 64, 3, 2, 32), jnp.bfloat16)


def test_the_oldest_card_of_several_decides(use):
  use('NVIDIA A100-SXM4-40GB', 'Tesla T4')
  assert not attention.takes_cudnn((4, 64, 2, 64), jnp.bfloat16)
  assert hardware.shortcoming(jnp.bfloat16).startswith('Tesla T4 (compute')


def test_a_jax_without_triton_keeps_cudnn_alone(use, monkeypatch):
  use('NVIDIA H100 80GB HBM3')
  assert hardware.runs_pallas() and not hardware.shortcoming(jnp.bfloat16)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert attention.takes_cudnn((4, 64, 2, 64), jnp.bfloat16)
  assert not attention.takes_kernel(QKV.shape, jnp.bfloat16)
  assert 'no Triton compiler' in hardware.shortcoming(jnp.bfloat16)


def test_one_line_says_what_the_card_lacks(use, caplog):
  config = cases.case_config('smoke')
  for kind in DEVICES:
    for dtype in ('bfloat16', 'float32'):
      caplog.clear()
      use(kind)
      config.model.dtype = dtype
      build.make_model(config)
      lines = [record.getMessage() for record in caplog.records]
      if dtype == 'float32' or kind in (*FUSED, 'TPU v4', 'cpu'):
        assert not lines
        continue
      (line,) = lines
      assert line.startswith(kind) and 'plain XLA' in line
      assert ('no units for bfloat16' in line) == ('Tesla' in kind)
