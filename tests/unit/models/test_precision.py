"""Float32 products are float32 on TPUs and GPUs, read off what is lowered."""
import jax
import jax.numpy as jnp
import pytest

from video_diffusion.diffusion import guidance
from video_diffusion.diffusion import loss as loss_lib
from video_diffusion.diffusion import sampling
from video_diffusion.diffusion import schedules
from video_diffusion.models import conditioning
from video_diffusion.models import unet3d
from video_diffusion.training import state as state_lib
from video_diffusion.training import step as step_lib

# The gradients of the logits of a bfloat16 network: XLA multiplies a float32
# cotangent with bfloat16 queries, keys or values, and rounds the product to
# bfloat16, so that more digits of it would be lost at once.
ROUNDED = '/spatial/', '/temporal/', '/pooling/'


def model(dtype, position):
  unet = unet3d.UNet3D(
      base_channels=8,
      channel_mults=(1, 2),
      num_blocks=1,
      attention_resolutions=(4,),
      head_dim=8,
      emb_dim=16,
      position=position,
      dtype=dtype,
  )
  encoder = conditioning.TextEncoder(
      16, length=5, token_dim=8, max_pieces=7, dtype=dtype
  )
  return conditioning.ConditionalUNet(unet, encoder)


def gradient(net):
  """(loss and gradient of a joint batch, their arguments)."""
  batch = {
      'video': jax.ShapeDtypeStruct((2, 5, 8, 8, 3), jnp.uint8),
      'tokens': jax.ShapeDtypeStruct((2, 2, 5), jnp.int32),
      'mask': jax.ShapeDtypeStruct((2, 2, 5), jnp.bool_),
  }
  draw_noise, loss_fn = step_lib.make_loss(
      net, num_images=1, prediction='v', logsnr_fn=schedules.cosine_logsnr,
      cond_drop=0.1, train=True,
  )

  def step(params, batch):
    key = jax.random.key(0)
    return jax.value_and_grad(loss_fn, has_aux=True)(
        params, draw_noise(key, batch), key
    )

  params = jax.eval_shape(
      lambda: state_lib.init_params(net, batch, num_images=1, seed=0)
  )
  return step, (params, batch)


def sampler(net):
  """(a sampler under both kinds of guidance, its arguments)."""
  _, (params, batch) = gradient(net)
  condition = {
      name: jax.ShapeDtypeStruct((2, 1, 5), batch[name].dtype)
      for name in ('tokens', 'mask')
  }

  def sample(params, condition, low_res):
    def make(condition):
      def denoise_fn(z, logsnr):
        output = net.apply({'params': params}, z, logsnr, condition=condition)
        return loss_lib.x_hat(
            z=z, output=output, logsnr=logsnr, prediction='v'
        )

      return denoise_fn

    denoise_fn = guidance.classifier_free(
        make(condition), make(None), weight=2.0
    )
    denoise_fn = guidance.super_resolution(
        denoise_fn, low_res=low_res, weight=1.0,
        downsample=guidance.bilinear(2),
    )
    return sampling.sample(
        jax.random.key(0), guidance.clip(denoise_fn, method='dynamic'),
        shape=(2, 4, 8, 8, 3), num_steps=2, corrector_delta=0.1,
    )

  low_res = jax.ShapeDtypeStruct((2, 4, 4, 4, 3), jnp.float32)
  return sample, (params, condition, low_res)


def products(fn, args, platform):
  """(operand types, precision, where it comes from) of what multiplies."""
  lowered = jax.jit(fn).trace(*args).lower(lowering_platforms=(platform,))
  found = []

  def visit(op):
    if op.name in ('stablehlo.dot_general', 'stablehlo.convolution'):
      types = {str(x.type).rstrip('>').split('x')[-1] for x in op.operands}
      found.append(
          (types, str(op.attributes['precision_config']), str(op.location))
      )
    for region in op.regions:
      for block in region.blocks:
        for inner in block.operations:
          visit(inner.operation)

  visit(lowered.compiler_ir('stablehlo').operation)
  return found


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
@pytest.mark.parametrize('program', [gradient, sampler])
@pytest.mark.parametrize(
    'dtype, position', [(jnp.float32, 'shaw'), (jnp.bfloat16, 'bias')]
)
def test_every_float32_product_has_all_its_bits(
    platform, program, dtype, position
):
  exact = 0
  for types, precision, source in products(
      *program(model(dtype, position)), platform
  ):
    if 'f32' not in types:
      continue
    if precision.count('HIGHEST') == 2:
      exact += 1
      continue
    rounded = any(name in source for name in ROUNDED)
    assert dtype == jnp.bfloat16 and rounded and 'transpose(' in source, (
        types, precision, source,
    )
  # The last convolution at least, and of a float32 network all.
  assert exact >= (50 if dtype == jnp.float32 else 1), exact
