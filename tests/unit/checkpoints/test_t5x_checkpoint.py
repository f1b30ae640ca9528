"""Checkpoints in T5X's two formats."""
import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse

import jax
import numpy as np
import pytest

from tests.support import t5_files as files
from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from video_diffusion.checkpoints import t5_weights
from video_diffusion.checkpoints import t5x_checkpoint
from video_diffusion.errors import UserError
from video_diffusion.models import t5

T5 = ROOT.parent / 'shared' / 'data' / 't5'


@pytest.mark.parametrize(
    'config', [files.GATED, files.PLAIN], ids=['gated', 'plain']
)
@pytest.mark.parametrize('write', [files.write_msgpack, files.write_zarr])
def test_t5x_round_trip(tmp_path, make_t5, config, write):
  params = make_t5(config)
  path = write(tmp_path / 'checkpoint_7', params)
  got_config, got = t5_weights.load_t5(path, num_pieces=20)
  assert got_config == config
  assert files.equal(got, params)
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(got))


@pytest.mark.skipif(not T5.exists(), reason='no checkpoints in shared/data')
def test_both_formats_of_t5x_are_one_encoder():
  one = t5_weights.load_t5(T5 / 'test_t5_tiny.checkpoint_0', num_pieces=32100)
  two = t5_weights.load_t5(T5 / 't5x_zarr_tiny' / 'checkpoint_0')
  assert one[0] == two[0] == t5.T5Config(
      vocab_size=32128,
      dim=8,
      num_layers=2,
      num_heads=4,
      head_dim=3,
      mlp_dim=16,
      gated=True,
      activation='gelu_new',
  )
  assert files.equal(one[1], two[1])
  assert t5_weights.fingerprint(*one) == t5_weights.fingerprint(*two)
  with pytest.raises(ValueError, match='holds checkpoint_0; name one of them'):
    t5_weights.load_t5(T5 / 't5x_zarr_tiny')
  # T5X's own, of the optimizer alone.
  with pytest.raises(ValueError, match='no array target/token_embedder'):
    t5_weights.load_t5(T5 / 't5x_zarr_original_tiny' / 'checkpoint_1')


def test_neither_t5x_nor_tensorflow_nor_torch_is_imported(
    tmp_path, make_t5
):
  folder = files.write_zarr(tmp_path / 'checkpoint_7', make_t5(files.GATED))
  code = (
      'import sys; from video_diffusion.checkpoints import t5_weights; '
      f't5_weights.load_t5({str(folder)!r}); '
      'print(*({"t5x", "seqio", "tensorflow", "torch"} & set(sys.modules)))'
  )
  run = subprocess.run(
      [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert (run.returncode, run.stdout) == (0, '\n'), run.stderr


@pytest.mark.parametrize(
    'text',
    [
        "network.T5Config:\n  emb_dim = 6  # width\n  num_heads = %HEADS\n"
        "  mlp_activations = ('swish', 'linear')\n\nother.T5:\n  emb_dim = 7\n",
        "network.T5Config.emb_dim = 6\nnetwork.T5Config.dropout_rate = %RATE\n"
        "network.T5Config.mlp_activations = \\\n    ()\n"
        "network.T5Config.mlp_activations = ('silu', 'linear')\n",
    ],
)
def test_config_gin(tmp_path, make_t5, text):
  assert t5x_checkpoint.gin_settings(text) == {'dim': 6, 'activation': 'silu'}
  files.write_msgpack(tmp_path / 'checkpoint_7', make_t5(files.GATED))
  (tmp_path / 'config.gin').write_text(text)
  config, _ = t5_weights.load_t5(tmp_path / 'checkpoint_7')
  assert config == dataclasses.replace(files.GATED, activation='silu')


def test_config_gin_of_another_model(tmp_path, make_t5):
  files.write_msgpack(tmp_path / 'checkpoint_7', make_t5(files.GATED))
  gin = tmp_path / 'config.gin'
  gin.write_text('network.T5Config.num_encoder_layers = 3')
  with pytest.raises(ValueError, match=r'config.gin gives num_layers as 3, but'
                     ' the arrays have 2; they must be of one model'):
    t5_weights.load_t5(tmp_path / 'checkpoint_7')
  gin.write_text("network.T5Config.mlp_activations = ('tanh', 'linear')")
  with pytest.raises(ValueError, match="activation 'tanh'; it must be one of"):
    t5_weights.load_t5(tmp_path / 'checkpoint_7')


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda flat: flat.pop(files.WO), f'no array target/{files.WO}'),
        (
            lambda flat: flat.update({files.WO: np.ones((10, 7))}),
            rf'target/{files.WO} has the shape \(10, 7\).* must have \(10, 6\)',
        ),
        (
            lambda flat: flat.pop(files.EMBEDDING),
            f'no array target/{files.EMBEDDING}',
        ),
        (
            lambda flat: flat.update({files.EMBEDDING: np.ones(20)}),
            r'embedding has the shape \(20,\).* must have 2 axes',
        ),
        (
            lambda flat: flat.update(
                {'encoder/relpos_bias/rel_embedding': np.ones((3, 8))}
            ),
            'layers_0/attention/query/kernel has.* a multiple of 3 columns',
        ),
        (lambda flat: flat.clear(), f'no array target/{files.EMBEDDING}'),
    ],
)
def test_what_is_wrong_with_a_t5x_checkpoint_is_named(
    tmp_path, make_t5, change, message
):
  path = files.write_msgpack(tmp_path / 'one', make_t5(files.GATED), change)
  with pytest.raises(ValueError, match=message):
    t5_weights.load_t5(path)


def test_arrays_that_were_not_copied_are_named(tmp_path, make_t5):
  params = make_t5(files.GATED)
  whole = files.write_zarr(tmp_path / 'whole', params)
  stored = 'target.' + files.WO.replace('/', '.')
  for missing in (stored, f'{stored}/1.0', f'{stored}/.zarray'):
    part = tmp_path / missing.replace('/', '_')
    shutil.copytree(whole, part)
    if (part / missing).is_dir():
      shutil.rmtree(part / missing)
    else:
      (part / missing).unlink()
    with pytest.raises(
        ValueError, match=f'array target/{files.WO} is missing or not whole'
    ):
      t5_weights.load_t5(part)


def spec(**fields):
  return {
      'driver': 'zarr',
      'kvstore': {'driver': 'gfile', 'path': 'target.x'},
      'metadata': {'shape': [10, 6], 'chunks': [10, 6]},
      **fields,
  }


OUT = 'only what lies below that folder is read'
NEITHER = 'is neither numbers nor the spec of a zarr array'


@pytest.mark.parametrize('value, words', [
    (spec(kvstore={'driver': 'file', 'path': '/etc/passwd'}), OUT),
    (spec(kvstore={'path': '../other/x'}), OUT),
    (spec(kvstore={'path': 'a/../../x'}), OUT),
    (spec(kvstore={'path': 'file:///etc/passwd'}), OUT),
    (spec(kvstore={'path': 'http://host/x'}), OUT),
    (spec(kvstore={'path': 'a|zip:b'}), OUT),
    (spec(kvstore={'path': 'a\0b'}), OUT),
    (spec(kvstore={'path': '..'}), OUT),
    (spec(kvstore={'path': 3}), OUT),
    (spec(kvstore={}, path='/etc'), OUT),
    (spec(kvstore={}), NEITHER),
    (spec(kvstore='file:///etc/'), NEITHER),
    (spec(kvstore=None), NEITHER),
    (spec(metadata=None), NEITHER),
    (spec(metadata={'shape': 3}), NEITHER),
    (spec(driver='json'), "the driver 'json' and the shape"),
    (spec(driver=['zarr']), 'the driver'),
    (spec(metadata={'shape': [-1, 6]}), 'the shape [-1, 6]; it must be'),
    (spec(metadata={'shape': [2**62, 6]}), 'the shape [46116'),
    (spec(metadata={'shape': [10.0, 6]}), 'the shape [10.0, 6]'),
    (spec(metadata={'shape': [1] * 99}), 'the shape'),
    (spec(metadata={'shape': [2**39, 2**39]}), 'no T5 is as large'),
    ('text', NEITHER),
    (3, NEITHER),
    (None, NEITHER),
    ([1.0], NEITHER),
    (np.ones((10, 6), np.int32), NEITHER),
    (np.ones((10, 0), np.float32), 'beside the others it must have 2 axes'),
])
def test_a_hostile_index_is_one_sentence(tmp_path, make_t5, value, words):
  path = files.write_msgpack(
      tmp_path / 'one', make_t5(files.GATED),
      lambda flat: flat.update({'encoder/layers_1/mlp/wi_0/kernel': value,
                                'encoder/layers_0/mlp/wi_0/kernel': value}),
  )
  with pytest.raises(UserError) as error:
    t5_weights.load_t5(path)
  assert words in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize('content', [
    b'', b'\x00', b'\xdf\xff\xff\xff\xff', b'\xc6\xff\xff\xff\xff',
    b'\x91' * 10**5, b'\xc9\x7f\xff\xff\xff\x01',
    b'\x81\xa6target\x93\x01\x02\x03', b'\x81\xa6target\x81\xa7encoder\x03',
])
def test_damaged_msgpack_is_one_sentence(tmp_path, content):
  (tmp_path / 'one').write_bytes(content)
  with pytest.raises(UserError, match='no checkpoint of T5X|neither numb'):
    t5_weights.load_t5(tmp_path / 'one')


def test_a_layer_of_a_large_number_is_refused_at_once(tmp_path, make_t5):
  path = files.write_msgpack(
      tmp_path / 'one', make_t5(files.GATED),
      lambda flat: flat.update(
          {'encoder/layers_99999999999/mlp/wo/kernel': np.ones((10, 6))}
      ),
  )
  with pytest.raises(UserError, match='an array of layer 99999999999, or more'):
    t5_weights.load_t5(path)


@pytest.mark.parametrize('field, value, words', [
    ('shape', [2**40, 6], 'float32 of shape (1099511627776, 6) in chunks'),
    ('chunks', [2**33, 6], 'in chunks of (8589934592, 6), but the index gives'),
    ('dtype', '<i4', 'is int32 of shape'),
    ('shape', 'many', 'is missing or not whole'),
    ('dtype', 'é\x1b[2J' * 5000, 'is missing or not whole'),
])
def test_an_array_that_claims_more_than_the_index_is_refused(
    tmp_path, make_t5, field, value, words
):
  folder = files.write_zarr(tmp_path / 'one', make_t5(files.GATED))
  path = folder / ('target.' + files.WO.replace('/', '.')) / '.zarray'
  path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
  with pytest.raises(UserError) as error:
    t5_weights.load_t5(folder)
  assert words in str(error.value) and f'target/{files.WO}' in str(error.value)
  assert str(error.value).isprintable() and len(str(error.value)) < 1000


@pytest.mark.parametrize('text', [
    'network.T5Config.mlp_activations = 3',
    'network.T5Config.mlp_activations = ()',
    'network.T5Config.mlp_activations = ([],)',
    "network.T5Config.emb_dim = 'six'",
    'network.T5Config.emb_dim = -6',
    'network.T5Config.emb_dim = True',
    '#' * (2**20 + 1),
])
def test_a_damaged_config_gin_is_one_sentence(tmp_path, make_t5, text):
  files.write_msgpack(tmp_path / 'checkpoint_7', make_t5(files.GATED))
  (tmp_path / 'config.gin').write_text(text)
  with pytest.raises(UserError, match='config.gin'):
    t5_weights.load_t5(tmp_path / 'checkpoint_7')
  nested = 'network.T5Config.emb_dim = ' + '(' * 10**5
  (tmp_path / 'config.gin').write_text(nested)
  t5_weights.load_t5(tmp_path / 'checkpoint_7')  # as a macro, it says nothing


class _Bucket(http.server.BaseHTTPRequestHandler):
  """The one call of Google Cloud Storage's JSON interface that reads need."""

  def do_GET(self):
    path = urllib.parse.urlsplit(self.path).path
    _, bucket, name = path.rpartition('/b/')[2].partition('/o/')
    bucket = path.split('/b/')[1].split('/')[0]
    file = self.server.root / bucket / urllib.parse.unquote(name)
    content = file.read_bytes() if file.is_file() else b''
    self.send_response(200 if content else 404)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('x-goog-generation', '1')
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, *args):
    pass


def test_tensorstore_reads_a_bucket(tmp_path, make_t5):
  params = make_t5(files.GATED)
  (tmp_path / 'bucket' / 't5').mkdir(parents=True)
  folder = files.write_zarr(tmp_path / 'bucket' / 't5' / 'checkpoint_7', params)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Bucket)
  server.root = tmp_path
  threading.Thread(target=server.serve_forever, daemon=True).start()
  code = (
      'import sys, numpy, tensorstore, flax.serialization\n'
      'from video_diffusion.checkpoints import t5x_checkpoint\n'
      'tree = flax.serialization.msgpack_restore('
      'open(sys.argv[1], "rb").read())\n'
      'spec = tree["optimizer"]["target"]["token_embedder"]["embedding"]\n'
      'spec = t5x_checkpoint.tensorstore_spec("gs://bucket/t5/checkpoint_7", '
      'spec)\n'
      'store = tensorstore.open(spec, read=True).result()\n'
      'numpy.save(sys.argv[2], store.read().result())\n'
  )
  run = subprocess.run(
      [sys.executable, '-c', code, folder / 'checkpoint', tmp_path / 'got.npy'],
      cwd=ROOT,
      env=os.environ | {
          'TENSORSTORE_GCS_HTTP_URL': f'http://127.0.0.1:{server.server_port}',
          'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
      },
      capture_output=True,
      text=True,
      timeout=LIMIT,
  )
  server.shutdown()
  assert run.returncode == 0, run.stderr
  np.testing.assert_array_equal(
      np.load(tmp_path / 'got.npy'), params['token_embedder']['embedding']
  )
