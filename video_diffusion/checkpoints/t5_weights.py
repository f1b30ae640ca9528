"""Released T5 encoders: T5X checkpoints and Hugging Face's safetensors.

Of either kind only the encoder's arrays are read, half of a checkpoint.
"""
from collections.abc import Callable, Iterable
import dataclasses
import hashlib
import math
import re
from typing import Any, NamedTuple

from etils import epath
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from video_diffusion.checkpoints import json_files
from video_diffusion.checkpoints import safetensors_files
from video_diffusion.checkpoints import t5x_checkpoint
from video_diffusion.errors import Argument
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.models import t5

_MAX_PARAMETERS = 10**11
_MAX_INDEX = 2**24  # bytes
_ENDS = 2**20  # bytes of a file's head and tail that `stamp` reads
_EMBEDDING = 'token_embedder/embedding'
_BIAS = 'encoder/relpos_bias/rel_embedding'
_LAYER = re.compile(r'encoder/layers_(\d+)/(.+)')
# T5X's name -> Hugging Face's, whose kernels are [out, in].
_HF_NAMES = {
    _EMBEDDING: 'shared',
    _BIAS: 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias',
    'encoder/encoder_norm/scale': 'encoder.final_layer_norm',
}
_HF_LAYER_NAMES = {
    'pre_attention_layer_norm/scale': 'layer.0.layer_norm',
    'attention/query/kernel': 'layer.0.SelfAttention.q',
    'attention/key/kernel': 'layer.0.SelfAttention.k',
    'attention/value/kernel': 'layer.0.SelfAttention.v',
    'attention/out/kernel': 'layer.0.SelfAttention.o',
    'pre_mlp_layer_norm/scale': 'layer.1.layer_norm',
    'mlp/wi/kernel': 'layer.1.DenseReluDense.wi',
    'mlp/wi_0/kernel': 'layer.1.DenseReluDense.wi_0',
    'mlp/wi_1/kernel': 'layer.1.DenseReluDense.wi_1',
    'mlp/wo/kernel': 'layer.1.DenseReluDense.wo',
}
_HF_SETTINGS = {
    'vocab_size': 'vocab_size',
    'd_model': 'dim',
    'num_layers': 'num_layers',
    'num_heads': 'num_heads',
    'd_kv': 'head_dim',
    'd_ff': 'mlp_dim',
    'relative_attention_num_buckets': 'num_buckets',
    'relative_attention_max_distance': 'max_distance',
    'layer_norm_epsilon': 'epsilon',
}


class _Checkpoint(NamedTuple):
  """An opened checkpoint; arrays go by T5X's names, 'encoder/layers_0/...'.

  Attributes:
    path: of the checkpoint.
    shapes: of the arrays, in T5X's order of axes.
    read: names -> arrays.
    stored_name: name -> what the checkpoint calls it.
    settings: fields of T5Config that its configuration file gives.
    settings_file: that file, None where there is none.
  """

  path: epath.Path
  shapes: dict[str, tuple[int, ...]]
  read: Callable[[Iterable[str]], dict[str, np.ndarray]]
  stored_name: Callable[[str], str]
  settings: dict[str, Any]
  settings_file: epath.Path | None

  def shape(self, name: str, ndim: int) -> tuple[int, ...]:
    if name not in self.shapes:
      raise UserError(
          f'{self.path} has no array {self.stored_name(name)}, which the '
          'encoder of a T5 has; give a whole checkpoint of T5 or T5 1.1.'
      )
    shape = self.shapes[name]
    if len(shape) != ndim or 0 in shape:
      raise self.wrong_shape(name, shape, f'{ndim} axes')
    return shape

  def wrong_shape(self, name, shape, wanted) -> UserError:
    return UserError(
        f'{self.path}: the array {self.stored_name(name)} has the shape '
        f'{shape}, kernels taken as [in, out]; beside the others it must have '
        f'{wanted}.'
    )


def load_t5(
    path: epath.PathLike, *, num_pieces: int = 0
) -> tuple[t5.T5Config, Any]:
  """Reads the encoder of a T5.

  Sizes are those of the arrays; a configuration file must agree with them. What
  no array shows, the activation and the farthest distance, is read from
  config.json (Hugging Face) or config.gin (T5X; in the checkpoint's folder or
  the one above). Without a config.gin a gated MLP gets the gelu of T5 1.1 and a
  plain one the relu of T5, and the distance is 128, as in all released T5s.

  Args:
    path: local or gs://; of T5X the one msgpack file, or the folder
      'checkpoint_<step>' of TensorStore arrays; of Hugging Face the folder with
      config.json and model*.safetensors.
    num_pieces: of the tokenizer that goes with it; 0 checks nothing.

  Returns:
    (config, params), params float32 NumPy arrays for `t5.T5Encoder(config)`.

  Raises:
    UserError: there is no such checkpoint; an array of it is missing, cannot
      be read or has a shape that does not fit; its configuration says
      otherwise; the tokenizer has more pieces than the embedding has rows.
  """
  checkpoint, config, wanted = _checked(path, num_pieces)
  arrays = checkpoint.read(wanted)
  for name, leaf in wanted.items():
    # An array's own file has the last word, not an index.
    if arrays[name].shape != leaf.shape:
      raise checkpoint.wrong_shape(name, arrays[name].shape, leaf.shape)
    arrays[name] = np.ascontiguousarray(arrays[name], np.float32)
  return config, flax.traverse_util.unflatten_dict(arrays, sep='/')


def t5_config(path: epath.PathLike, *, num_pieces: int = 0) -> t5.T5Config:
  """The sizes of a T5, checked as `load_t5` does before it reads the arrays."""
  return _checked(path, num_pieces)[1]


def _checked(path, num_pieces):
  """(checkpoint, config, name -> shape of what the encoder has)."""
  path = epath.Path(files.expand(path, Argument('path'), bucket=True))
  checkpoint = _open(path)
  config = _config(checkpoint)
  if num_pieces > config.vocab_size:
    raise UserError(
        f'{path}: the array {checkpoint.stored_name(_EMBEDDING)} has '
        f'{config.vocab_size} rows, fewer than the {num_pieces} pieces of the '
        'tokenizer; give the tokenizer that this T5 was trained with.'
    )
  ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  mask = jax.ShapeDtypeStruct((1, 1), bool)
  encoder = t5.T5Encoder(config)
  abstract = jax.eval_shape(encoder.init, jax.random.key(0), ids, mask)
  wanted = flax.traverse_util.flatten_dict(abstract['params'], sep='/')
  for name, leaf in wanted.items():
    shape = checkpoint.shape(name, leaf.ndim)
    if shape != leaf.shape:
      raise checkpoint.wrong_shape(name, shape, leaf.shape)
  return checkpoint, config, wanted


def fingerprint(config: t5.T5Config, params: Any) -> str:
  """A digest of an encoder, the same whatever format it was read from."""
  digest = hashlib.sha256(repr(config).encode())
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  for name in sorted(flat):
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(flat[name], np.float32))
  return digest.hexdigest()[:16]


def stamp(path: epath.PathLike) -> str:
  """A digest of a checkpoint's index and ends of files, read in no time.

  Tells whether a path holds what it held before; '' where there is nothing, or
  in a bucket, without which training does.
  """
  path = epath.Path(files.expand(path, Argument('path'), bucket=True))
  if '://' in str(path) or not path.exists():
    return ''
  names = (
      'checkpoint', 'config.json', '*.safetensors',
      'target.encoder.encoder_norm.scale/*',
  )
  found = [sorted(path.glob(name)) for name in names] if path.is_dir() else []
  digest = hashlib.sha256()
  for file in sum(found, []) or [path]:
    with file.open('rb') as f:
      digest.update(f.read(_ENDS))
      size = f.seek(0, 2)
      f.seek(max(0, size - _ENDS))
      digest.update(f.read() + str(size).encode())
  return digest.hexdigest()[:16]


def _open(path: epath.Path) -> _Checkpoint:
  if path.is_file() or (path / 'checkpoint').exists():
    opened = t5x_checkpoint.open_t5x(path)
    return _Checkpoint(
        path,
        opened.shapes,
        opened.read,
        t5x_checkpoint.stored_name,
        opened.settings,
        opened.settings_file,
    )
  if (path / 'config.json').exists():
    return _open_hugging_face(path)
  steps = sorted(item.name for item in path.glob('checkpoint_*'))
  if steps:
    raise UserError(f'{path} holds {", ".join(steps)}; name one of them.')
  raise UserError(
      f'{path} is no T5: it must be a checkpoint of T5X, which is a file or a '
      "folder with a file 'checkpoint', or a folder with config.json and "
      'model.safetensors.'
  )


def _config(checkpoint: _Checkpoint) -> t5.T5Config:
  """Sizes by the arrays, the rest by the settings."""
  layers = [m[1] for m in map(_LAYER.match, checkpoint.shapes) if m]
  mlp = 'encoder/layers_0/mlp'
  query = 'encoder/layers_0/attention/query/kernel'
  gated = f'{mlp}/wi_0/kernel' in checkpoint.shapes
  vocab_size, dim = checkpoint.shape(_EMBEDDING, 2)
  num_heads, num_buckets = checkpoint.shape(_BIAS, 2)
  _, width = checkpoint.shape(query, 2)
  _, mlp_dim = checkpoint.shape(f'{mlp}/wi{"_0" * gated}/kernel', 2)
  if width % num_heads:
    raise checkpoint.wrong_shape(
        query, checkpoint.shapes[query], f'a multiple of {num_heads} columns'
    )
  if max(map(len, layers)) > 2 or sum(
      math.prod(shape) for shape in checkpoint.shapes.values()
  ) > _MAX_PARAMETERS:
    raise UserError(
        f'{checkpoint.path} has an array of layer '
        f'{max(layers, key=lambda n: (len(n), n))[:20]}, or more than '
        f'{_MAX_PARAMETERS:.0e} parameters; no T5 is as large.'
    )
  config = t5.T5Config(
      vocab_size=vocab_size,
      dim=dim,
      num_layers=1 + max(map(int, layers)),
      num_heads=num_heads,
      head_dim=width // num_heads,
      mlp_dim=mlp_dim,
      gated=gated,
      activation='gelu_new' if gated else 'relu',
      num_buckets=num_buckets,
  )
  for field, value in checkpoint.settings.items():
    kind = type(getattr(config, field))
    value = float(value) if kind is float and type(value) is int else value
    if type(value) is not kind or kind is not str and value <= 0:
      raise UserError(
          f'{checkpoint.settings_file} gives {field} as '
          f'{json_files.short(value)}; it must be like '
          f'{getattr(config, field)!r}.'
      )
    if field in ('activation', 'max_distance', 'epsilon'):
      config = dataclasses.replace(config, **{field: value})
    elif getattr(config, field) != value:
      raise UserError(
          f'{checkpoint.settings_file} gives {field} as {value}, but the '
          f'arrays have {getattr(config, field)}; they must be of one model.'
      )
  if config.activation not in t5.ACTIVATIONS:
    raise UserError(
        f'{checkpoint.settings_file} names the activation '
        f'{json_files.short(config.activation)}; it must be one of '
        f'{", ".join(t5.ACTIVATIONS)}.'
    )
  return config


def _open_hugging_face(path: epath.Path) -> _Checkpoint:
  settings_file = path / 'config.json'
  values = json_files.read(settings_file)
  if values.get('model_type') not in ('t5', 'mt5'):
    raise UserError(
        f'{settings_file} gives model_type '
        f'{json_files.short(values.get("model_type"))}; it '
        "must be 't5' or 'mt5'."
    )
  settings = {
      field: values[name]
      for name, field in _HF_SETTINGS.items()
      if name in values
  }
  activation = values.get('feed_forward_proj')
  if isinstance(activation, str):
    # transformers too takes this name alone for the tanh approximation.
    settings['activation'] = (
        'gelu_new'
        if activation == 'gated-gelu'
        else activation.removeprefix('gated-')
    )
  tensors = {}
  for file in _safetensors_files(path):
    tensors |= safetensors_files.open_safetensors(file)[0]

  def stored_name(name):
    if match := _LAYER.match(name):
      return f'encoder.block.{match[1]}.{_HF_LAYER_NAMES[match[2]]}.weight'
    # The encoder's own table is the shared one, and either may be stored.
    if name == _EMBEDDING and 'shared.weight' not in tensors:
      if 'encoder.embed_tokens.weight' in tensors:
        return 'encoder.embed_tokens.weight'
    return f'{_HF_NAMES[name]}.weight'

  blocks = [re.match(r'encoder\.block\.(\d{1,9})\.', name) for name in tensors]
  num_layers = max((int(m[1]) + 1 for m in blocks if m), default=0)
  num_layers = min(num_layers, 1000)  # too many, which `_config` says
  names = [*_HF_NAMES] + [
      f'encoder/layers_{i}/{name}'
      for i in range(num_layers)
      for name in _HF_LAYER_NAMES
  ]
  shapes = {
      name: tensors[stored_name(name)].shape
      for name in names
      if stored_name(name) in tensors
  }
  # Kernels and the bias are stored the other way round; the rest has one axis.
  shapes |= {k: v[::-1] for k, v in shapes.items() if k != _EMBEDDING}

  def read(names):
    arrays = {name: tensors[stored_name(name)].read() for name in names}
    return arrays | {k: v.T for k, v in arrays.items() if k != _EMBEDDING}

  return _Checkpoint(path, shapes, read, stored_name, settings, settings_file)


def _safetensors_files(path: epath.Path) -> list[epath.Path]:
  """model.safetensors, or the shards that its index names."""
  index = path / 'model.safetensors.index.json'
  if index.exists():
    weight_map = json_files.read(index, max_bytes=_MAX_INDEX).get('weight_map')
    if not isinstance(weight_map, dict):
      raise UserError(f'{index} has no weight_map; restore the file.')
    names = weight_map.values()
    for name in names:
      if not isinstance(name, str) or not re.fullmatch(r'[\w.-]{1,100}', name):
        raise UserError(
            f'{index} names the file {json_files.short(name)}; it must be one '
            'in that folder.'
        )
    names = sorted(set(names))
  else:
    names = ['model.safetensors']
  for name in names:
    if not (path / name).exists():
      raise UserError(
          f'{path} has no {name}; weights in other formats are to be saved '
          'again by transformers: T5EncoderModel.from_pretrained(...)'
          '.save_pretrained(...).'
      )
  return [path / name for name in names]
