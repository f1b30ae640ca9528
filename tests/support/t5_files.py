"""Small encoders in each format that T5s are published in."""
import dataclasses
import json

import flax.serialization
import flax.traverse_util
import numpy as np
import safetensors.numpy

from video_diffusion.models import t5

GATED = t5.T5Config(
    vocab_size=20,
    dim=6,
    num_layers=2,
    num_heads=2,
    head_dim=4,
    mlp_dim=10,
    gated=True,
    activation='gelu_new',
    num_buckets=8,
)
PLAIN = dataclasses.replace(GATED, gated=False, activation='relu')
EMBEDDING = 'token_embedder/embedding'
WO = 'encoder/layers_1/mlp/wo/kernel'
BLOCK = 'encoder.block.1.layer.1.DenseReluDense.wo.weight'


def flatten(params):
  return flax.traverse_util.flatten_dict(params, sep='/')


def equal(a, b):
  a, b = flatten(a), flatten(b)
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def write_msgpack(path, params, change=lambda flat: None):
  """As T5X's older checkpoints: all arrays in one file, with a decoder."""
  flat = flatten(params) | {'decoder/logits_dense/kernel': np.ones((6, 20))}
  change(flat)
  target = flax.traverse_util.unflatten_dict(flat, sep='/')
  tree = {'version': 3, 'optimizer': {'target': target, 'state': {'step': 1}}}
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(flax.serialization.msgpack_serialize(tree))
  return path


def write_zarr(folder, params):
  """As T5X's later checkpoints: small arrays in the index, others beside it."""
  import tensorstore

  specs = {}
  for name, x in flatten(params).items():
    specs[name] = x
    if x.ndim > 1:
      stored = 'target.' + name.replace('/', '.')
      metadata = {
          'shape': list(x.shape),
          'chunks': [-(-x.shape[0] // 2), x.shape[1]],
          'compressor': {'id': 'gzip', 'level': 1},
      }
      store = tensorstore.open({
          'driver': 'zarr',
          'kvstore': {'driver': 'file', 'path': f'{folder}/{stored}/'},
          'metadata': metadata | {'dtype': '<f4'},
          'create': True,
      }).result()
      store.write(x).result()
      specs[name] = {
          'driver': 'zarr',
          'dtype': 'float32',
          'kvstore': {'driver': 'gfile', 'path': f'{stored}/'},
          'metadata': metadata,
      }
  tree = {'optimizer': {'target': flax.traverse_util.unflatten_dict(
      specs, sep='/'
  )}, 'version': 3}
  content = flax.serialization.msgpack_serialize(tree)
  (folder / 'checkpoint').write_bytes(content)
  return folder


def write_hugging_face(folder, config, params, *, shards=1, dtype=np.float32):
  """As transformers saves: kernels [out, in], a decoder, config.json."""
  names = {
      'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'
  }
  tensors = {'decoder.final_layer_norm.weight': np.ones(6, np.float32)}
  for name, x in flatten(params).items():
    parts = name.split('/')
    if parts[0] == 'token_embedder':
      tensors['shared.weight'] = x
      continue
    if parts[1] == 'encoder_norm':
      stored = 'final_layer_norm'
    elif parts[1] == 'relpos_bias':
      stored = 'block.0.layer.0.SelfAttention.relative_attention_bias'
    else:
      inner = {
          'pre_attention_layer_norm': 'layer.0.layer_norm',
          'attention': f'layer.0.SelfAttention.{names.get(parts[3])}',
          'pre_mlp_layer_norm': 'layer.1.layer_norm',
          'mlp': f'layer.1.DenseReluDense.{parts[3]}',
      }[parts[2]]
      stored = f'block.{parts[1].removeprefix("layers_")}.{inner}'
    tensors[f'encoder.{stored}.weight'] = np.ascontiguousarray(x.T)
  tensors = {name: x.astype(dtype) for name, x in tensors.items()}
  folder.mkdir()
  if shards == 1:
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
  else:
    weight_map = {}
    for i in range(shards):
      file = f'model-{i + 1:05}-of-{shards:05}.safetensors'
      part = {name: tensors[name] for name in sorted(tensors)[i::shards]}
      safetensors.numpy.save_file(part, folder / file)
      weight_map |= dict.fromkeys(part, file)
    index = json.dumps({'weight_map': weight_map})
    (folder / 'model.safetensors.index.json').write_text(index)
  (folder / 'config.json').write_text(json.dumps({
      'model_type': 't5',
      'vocab_size': config.vocab_size,
      'd_model': config.dim,
      'num_layers': config.num_layers,
      'num_heads': config.num_heads,
      'd_kv': config.head_dim,
      'd_ff': config.mlp_dim,
      'feed_forward_proj': 'gated-gelu' if config.gated else 'relu',
      'relative_attention_num_buckets': config.num_buckets,
      'relative_attention_max_distance': config.max_distance,
      'layer_norm_epsilon': config.epsilon,
  }))
  return folder
