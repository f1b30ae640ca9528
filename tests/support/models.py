"""Models that are not trained: a formula for a network, or random weights."""
import pathlib

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.api import model as model_lib
from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import text_inputs
from video_diffusion.evaluation import evaluator
from video_diffusion.inference import conditioning
from video_diffusion.text import tokenizer_files
from video_diffusion.training import state as state_lib


class Net:
  """Stands in for the network: a wave of z that mixes the frames.

  With max_guidance_weight it takes w, and gives exactly what guidance gives.
  """

  encoder = None
  max_guidance_weight = 0.0

  def arrays(self):
    """The arrays that condition it: none is asked of a data set."""
    return {}

  def apply(self, variables, z, logsnr, condition=None, guidance_weight=0.0):
    wave = jnp.sin(z + z.mean(axis=1, keepdims=True))
    if condition is not None:
      labels = condition['labels'].sum((1, 2)).reshape(-1, 1, 1, 1, 1)
      wave = wave + 0.1 * (1 + guidance_weight) * labels.astype(jnp.float32)
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
  network = Net()
  network.max_guidance_weight = config.distill.max_guidance_weight
  return model_lib.Model(
      config, network, lambda: (jnp.float32(params), 7),
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


def write_random(folder: pathlib.Path, config) -> None:
  """Writes an exported model of captions, whose weights are random.

  Args:
    folder: of the model; it exists.
    config: of a run of moving_shapes with captions.
  """
  folder = epath.Path(folder)
  source = inputs.make_source(config, 'train')
  text = text_inputs.open_text(config, folder, source)
  network = build.make_model(config, inputs.label_sizes(source))
  run_dir.claim(config, folder, '', text.fingerprint)
  tokenizer_files.keep(text.tokenizer, folder)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
      lambda leaf: 0.1 * rng.standard_normal(leaf.shape),
      jax.eval_shape(lambda: state_lib.init_params(
          network, build.batch_shapes(config, network),
          num_images=config.data.images, seed=0,
      )),
  )
  weights.save(params, folder / weights.FOLDER, step=1, dtype=np.float32)
