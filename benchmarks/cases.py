"""What is measured: configs by name, devices, random weights, FLOPs."""
import ast
import importlib.util
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.paths import ROOT
from video_diffusion.config import data_options
from video_diffusion.errors import UserError
from video_diffusion.parallel import sharding

# Name -> (config, its variant, fields, batch size).
CASES = {
    'base64': (
        'kinetics',
        'paper',
        {'model.base_channels': 64, 'model.dropout': 0.0, 'data.images': 0},
        16,
    ),
    'kinetics': (
        'kinetics', 'paper', {'data.images': 0, 'model.dropout': 0.0}, 8
    ),
    'kinetics_joint': ('kinetics', 'paper', {}, 8),
    # Shows in seconds, on a CPU, that a benchmark runs.
    'smoke': (
        'kinetics',
        'smoke',
        {
            'data.images': 0,
            'model.base_channels': 8,
            'model.channel_mults': (1,),
            'model.attention_resolutions': (16,),
            # Two heads, and arrays large enough: every mesh splits something.
            'model.head_dim': 4,
            'mesh.min_sharded': 64,
        },
        4,
    ),
}


def load_config(name: str, variant: str | None = None):
  """configs/NAME.py, imported by path as the command line does it."""
  path = ROOT / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant) if variant else module.get_config()


def values(arguments: list[str]) -> dict[str, Any]:
  """'group.field' -> value of '--config.FIELD=VALUE's.

  Raises:
    UserError: an argument is of another form.
  """
  found = {}
  for argument in arguments:
    match = re.fullmatch(r'--config\.([\w.]+)=(.*)', argument)
    if not match:
      raise UserError(f'unknown argument {argument!r}.')
    field, value = match.groups()
    try:
      value = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      pass  # a string
    found[field] = value
  return found


def set_fields(config, arguments: list[str]) -> None:
  """Sets the fields that '--config.FIELD=VALUE's name.

  Raises:
    UserError: an argument is of another form, or there is no such field.
  """
  # A field that does not exist is an error then, but for those of the data set.
  data_options.complete(config).lock()
  for field, value in values(arguments).items():
    try:
      config.update_from_flattened_dict({field: value})
    except (AttributeError, KeyError, TypeError) as error:
      raise UserError(f'--config.{field}: {error}') from error


def case_config(case: str, batch: int | None = None):
  """The config of a case, at its own batch size or another."""
  name, variant, fields, default_batch = CASES[case]
  config = load_config(name, variant)
  config.batch_size = batch or default_batch
  config.update_from_flattened_dict(fields)
  return config


class MeshSize(NamedTuple):
  """How many devices there are, share a state, and share an example."""

  devices: int = 1
  fsdp: int = 1
  model: int = 1

  def __str__(self):
    """'8, tensor 2 x FSDP 4', or '1 device'."""
    if self.devices == 1:
      return '1 device'
    data = self.devices // (self.fsdp * self.model)
    sizes = {'tensor': self.model, 'FSDP': self.fsdp, 'data': data}
    axes = ' x '.join(f'{name} {n}' for name, n in sizes.items() if n > 1)
    return f'{self.devices}, {axes}'


def mesh_sizes(devices: int) -> dict[str, MeshSize]:
  """The meshes that are measured, by name: 'one', and those of so many.

  Args:
    devices: at least 2. Where they are odd, no two share an example; FSDP over
      half of them is another mesh than the rest from four on.
  """
  half, odd = divmod(devices, 2)
  sizes = {
      'one': MeshSize(),
      'data': MeshSize(devices),
      'fsdp': MeshSize(devices, devices),
  }
  if not odd and half > 1:
    sizes['fsdp_data'] = MeshSize(devices, half)
  if not odd:
    sizes['tensor_fsdp'] = MeshSize(devices, half, 2)
  return sizes


def make_mesh(
    count: int | None = None, fsdp: int = 1, model: int = 1
) -> jax.sharding.Mesh:
  """A mesh of the first `count` devices; None takes all.

  Args:
    count: of devices.
    fsdp: how many of them share a state.
    model: how many of them share an example.

  Raises:
    UserError: there are fewer.
  """
  devices = jax.devices()
  if count and count > len(devices):
    raise UserError(f'--devices is {count}; there are {len(devices)}.')
  return sharding.make_mesh(fsdp=fsdp, model=model, devices=devices[:count])


def random_tree(abstract):
  """Small random numbers in every leaf: a GPU is faster on zeros."""
  largest = max(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract))
  noise = 0.02 * jax.random.normal(jax.random.key(0), (largest,))

  def fill(leaf):
    values = noise[: int(np.prod(leaf.shape))].reshape(leaf.shape)
    # Second moments are not negative, and counters are whole.
    return jax.device_put(jnp.abs(values).astype(leaf.dtype), leaf.sharding)

  return jax.tree.map(fill, abstract)
