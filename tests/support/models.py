"""A model of the API whose network is a formula."""
from etils import epath
import jax
import jax.numpy as jnp

from video_diffusion.api import model as model_lib
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.evaluation import evaluator
from video_diffusion.inference import conditioning


class Net:
  """Stands in for the network: a wave of z that mixes the frames."""

  encoder = None

  def arrays(self):
    """The arrays that condition it: none is asked of a data set."""
    return {}

  def apply(self, variables, z, logsnr, condition=None):
    wave = jnp.sin(z + z.mean(axis=1, keepdims=True))
    if condition is not None:
      labels = condition['labels'].sum((1, 2)).reshape(-1, 1, 1, 1, 1)
      wave = wave + 0.1 * labels.astype(jnp.float32)
    return 0.5 * wave * variables['params']


def make(*, frames=4, side=8, label_sizes=(), params=1.0, fields=(), **sample):
  """A model of `frames` frames of side x side pixels.

  Args:
    frames: T.
    side: pixels.
    label_sizes: of its labels; held-out clip i has the labels i.
    params: a number that scales the output.
    fields: ('group', 'field', value) of its config.
    **sample: fields of config.sample.
  """
  config = defaults_lib.get_config()
  config.data.frames, config.data.height, config.data.width = frames, side, side
  config.diffusion.prediction = 'v'
  config.sample.num_videos = config.sample.batch_size = jax.device_count()
  config.sample.num_steps = 3
  for name, value in sample.items():
    config.sample[name] = value
  for group, name, value in fields:
    config[group][name] = value
  heldout = lambda count: (
      {'labels': [i % size for size in label_sizes]} for i in range(count)
  )
  return model_lib.Model(
      config, Net(), lambda: (jnp.float32(params), 7),
      conditioning.Conditioner(heldout, label_sizes=label_sizes),
  )


def run_of(model, source=None, folder='/nowhere', **fields):
  """What evaluators of a model are made of."""
  return evaluator.Run(
      model, source, None, lambda split: source, epath.Path(folder), **fields
  )


def programs(model):
  """How many programs each sampler of a model has compiled."""
  return [sampler._cache_size() for sampler in model._samplers.values()]
