"""Safetensors of Hugging Face's T5s, and what all formats have in common."""
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.support import t5_files as files
from video_diffusion.checkpoints import t5_weights
from video_diffusion.errors import UserError


@pytest.mark.parametrize(
    'config', [files.GATED, files.PLAIN], ids=['gated', 'plain']
)
@pytest.mark.parametrize('shards', [1, 3])
def test_safetensors_round_trip(tmp_path, make_t5, config, shards):
  config = dataclasses.replace(config, max_distance=64, epsilon=1e-5)
  params = make_t5(config)
  folder = files.write_hugging_face(
      tmp_path / 't5', config, params, shards=shards
  )
  got_config, got = t5_weights.load_t5(folder)
  assert got_config == config
  assert files.equal(got, params)
  # The same encoder, whatever it was stored as.
  assert t5_weights.fingerprint(config, params) == t5_weights.fingerprint(
      got_config, got
  )


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_safetensors_of_half_the_size(tmp_path, make_t5, dtype):
  params = make_t5(files.PLAIN)
  folder = files.write_hugging_face(
      tmp_path / 't5', files.PLAIN, params, dtype=dtype
  )
  rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
  assert files.equal(t5_weights.load_t5(folder)[1], rounded)


def change_config(folder, **fields):
  file = folder / 'config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_tensors(folder, change):
  file = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(file)
  change(tensors)
  safetensors.numpy.save_file(tensors, file)


@pytest.mark.parametrize(
    'spoil, message',
    [
        (
            lambda f: change_config(f, num_heads=4),
            'config.json gives num_heads as 4, but the arrays have 2',
        ),
        (
            lambda f: change_config(f, vocab_size=21),
            'gives vocab_size as 21, but the arrays have 20',
        ),
        (
            lambda f: change_config(f, num_layers=3),
            'gives num_layers as 3, but the arrays have 2',
        ),
        (
            lambda f: change_config(f, feed_forward_proj='gated-tanh'),
            "activation 'tanh'; it must be one of relu, gelu_new, gelu, silu",
        ),
        (
            lambda f: change_config(f, model_type='umt5'),
            "model_type 'umt5'; it must be 't5'",
        ),
        (
            lambda f: change_tensors(f, lambda x: x.pop(files.BLOCK)),
            f'no array {files.BLOCK}',
        ),
        (
            lambda f: change_tensors(f, lambda x: x.pop('shared.weight')),
            'no array shared.weight',
        ),
        (
            lambda f: change_tensors(
                f, lambda x: x.update({files.BLOCK: np.ones((7, 10))})
            ),
            rf'{files.BLOCK} has the shape \(10, 7\), .* must have \(10, 6\)',
        ),
        (
            lambda f: change_tensors(
                f, lambda x: x.update({files.BLOCK: np.ones((6, 10), np.int8)})
            ),
            f"holds '{files.BLOCK}' as 'I8'; it must be one of F32",
        ),
        (
            lambda f: (f / 'model.safetensors').rename(f / 'pytorch_model.bin'),
            'has no model.safetensors; weights in other formats',
        ),
        (
            lambda f: (f / 'model.safetensors').write_bytes(b'no tensors'),
            'is no sound safetensors file: its header would have',
        ),
        (
            lambda f: (f / 'model.safetensors').write_bytes(
                (f / 'model.safetensors').read_bytes()[:-5]
            ),
            r'model.safetensors is no sound .* copy it again, whole',
        ),
    ],
)
def test_what_is_wrong_with_safetensors_is_named(
    tmp_path, make_t5, spoil, message
):
  folder = files.write_hugging_face(
      tmp_path / 't5', files.GATED, make_t5(files.GATED)
  )
  spoil(folder)
  with pytest.raises(ValueError, match=message):
    t5_weights.load_t5(folder)


def test_the_embedding_may_be_stored_as_the_encoders(tmp_path, make_t5):
  params = make_t5(files.GATED)
  folder = files.write_hugging_face(tmp_path / 't5', files.GATED, params)
  change_tensors(
      folder,
      lambda x: x.update(
          {'encoder.embed_tokens.weight': x.pop('shared.weight')}
      ),
  )
  assert files.equal(t5_weights.load_t5(folder)[1], params)


def test_a_missing_shard_is_named(tmp_path, make_t5):
  folder = files.write_hugging_face(
      tmp_path / 't5', files.GATED, make_t5(files.GATED), shards=3
  )
  (folder / 'model-00002-of-00003.safetensors').unlink()
  with pytest.raises(ValueError, match='has no model-00002-of-00003.safetens'):
    t5_weights.load_t5(folder)


def test_the_fingerprint_tells_encoders_apart(make_t5):
  params = make_t5(files.GATED)
  first = t5_weights.fingerprint(files.GATED, params)
  other = dataclasses.replace(files.GATED, activation='gelu')
  assert t5_weights.fingerprint(other, params) != first
  params['encoder']['encoder_norm']['scale'] = np.ones(6, np.float32)
  assert t5_weights.fingerprint(files.GATED, params) != first


def test_a_tokenizer_with_more_pieces_than_the_embedding(tmp_path, make_t5):
  path = files.write_msgpack(tmp_path / 'one', make_t5(files.GATED))
  with pytest.raises(
      ValueError,
      match=f'target/{files.EMBEDDING} has 20 rows, fewer than the 21 pieces '
      'of the tokenizer',
  ):
    t5_weights.load_t5(path, num_pieces=21)


def test_what_is_no_t5_is_said(tmp_path):
  with pytest.raises(ValueError, match='is no T5: it must be'):
    t5_weights.load_t5(tmp_path / 'absent')
  (tmp_path / 'text').write_text('no weights')
  with pytest.raises(ValueError, match='text is no checkpoint of T5X'):
    t5_weights.load_t5(tmp_path / 'text')


@pytest.mark.parametrize('change, words', [
    ({'d_model': '6'}, "gives dim as '6'; it must be like"),
    ({'d_model': None}, 'gives dim as None'),
    ({'num_layers': 2.0}, 'gives num_layers as 2.0'),
    ({'layer_norm_epsilon': -1.0}, 'gives epsilon as -1.0'),
    ({'layer_norm_epsilon': [1]}, 'gives epsilon as [1]'),
    ({'relative_attention_max_distance': True}, 'gives max_distance as True'),
    ({'feed_forward_proj': 'gated-\x1b[2J'}, "the activation '\\x1b[2J'"),
    ({'model_type': ['t5']}, "gives model_type ['t5']; it must be"),
])
def test_a_hostile_config_json_is_one_sentence(
    tmp_path, make_t5, change, words
):
  folder = files.write_hugging_face(
      tmp_path / 't5', files.GATED, make_t5(files.GATED)
  )
  path = folder / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(UserError) as error:
    t5_weights.load_t5(folder)
  assert words in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize('index, words', [
    ({'weight_map': {'a': '../../private.safetensors'}}, 'names the file'),
    ({'weight_map': {'a': '/etc/passwd'}}, 'must be one in that folder'),
    ({'weight_map': {'a': 3}}, 'names the file 3'),
    ({'weight_map': {'a': 'é' * 5000}}, 'names the file .{80}; it must'),
    ({'weight_map': ['a']}, 'has no weight_map'),
    ({}, 'has no weight_map'),
    ([], 'not an object'),
])
def test_a_hostile_index_of_shards_is_one_sentence(
    tmp_path, make_t5, index, words
):
  folder = files.write_hugging_face(
      tmp_path / 't5', files.GATED, make_t5(files.GATED), shards=2
  )
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match=words):
    t5_weights.load_t5(folder)


def test_a_block_of_a_large_number_costs_no_time(tmp_path, make_t5):
  folder = files.write_hugging_face(
      tmp_path / 't5', files.GATED, make_t5(files.GATED)
  )
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  for number in ('500', '9' * 9, '9' * 5000):
    name = f'encoder.block.{number}.layer.0.layer_norm.weight'
    safetensors.numpy.save_file(tensors | {name: np.ones(6)}, path)
    if number == '500':
      with pytest.raises(UserError, match='an array of layer 500, or more'):
        t5_weights.load_t5(folder)
    else:
      t5_weights.load_t5(folder)  # no layer of it is known
