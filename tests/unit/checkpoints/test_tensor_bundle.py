"""Indices of TensorFlow checkpoints, whole and damaged."""
import numpy as np
import pytest

from tests.support import i3d_files
from video_diffusion.checkpoints import metric_networks
from video_diffusion.checkpoints import tensor_bundle
from video_diffusion.errors import UserError

pytestmark = [i3d_files.needs_data, i3d_files.needs_weights]
INDEX = i3d_files.FOLDER / 'rgb_scratch.model.ckpt.index'


def test_the_table_that_is_shipped_is_that_of_the_index():
  entries = tensor_bundle.read_index(INDEX)
  table = metric_networks._table()
  assert len(entries) == len(table) == 230
  end = 0
  for name, entry in entries.items():
    row = table[name.removeprefix('RGB/inception_i3d/')]
    assert (entry.shape, entry.crc) == row
    assert (entry.dtype, entry.shard, entry.offset) == (1, 0, end)
    assert entry.size == 4 * np.prod(entry.shape)
    end += entry.size
  assert end == 50_818_176


def test_rgb_imagenet_has_the_same_names_and_no_equal_array():
  entries = tensor_bundle.read_index(
      i3d_files.FOLDER / 'rgb_imagenet.model.ckpt.index'
  )
  scratch = tensor_bundle.read_index(INDEX)
  assert entries.keys() == scratch.keys()
  assert all(entries[name].crc != scratch[name].crc for name in entries)
  name, crc = metric_networks._IMAGENET
  assert entries[f'RGB/inception_i3d/{name}'].crc == crc


def test_a_compressed_index_is_refused():
  with pytest.raises(UserError, match='its blocks are compressed'):
    tensor_bundle.read_index(
        i3d_files.FOLDER / 'tfhub_i3d-kinetics-400-1.variables.index'
    )


def test_cut_and_flipped_indices_end_in_a_sentence(tmp_path):
  content, path = INDEX.read_bytes(), tmp_path / 'model.ckpt.index'
  whole = tensor_bundle.read_index(INDEX)
  rng = np.random.default_rng(0)
  for at in [*range(0, len(content), 997), *range(len(content) - 60,
                                                  len(content))]:
    path.write_bytes(content[:at])
    with pytest.raises(UserError, match='no sound index'):
      tensor_bundle.read_index(path)
    spoiled = bytearray(content)
    spoiled[at] ^= 1 << rng.integers(8)
    path.write_bytes(spoiled)
    try:
      # The list of filters and the padding are not read.
      assert tensor_bundle.read_index(path) == whole
    except UserError as error:
      assert 'no sound index' in str(error)


@pytest.mark.parametrize(
    'message, reason',
    [
        (b'\x0b', 'a field of the kind 3'),
        (b'\x12\x7f', 'longer than its row'),
        (b'\x10\x01', 'a number stands where a message should'),
        (b'\x0a\x00', 'is no number'),
        (b'\x3a\x00', 'stored in slices'),
        (b'\x12\x02\x10\x01', 'a number stands where a message should'),
        (b'\x12\x22' + b'\x12\x00' * 17, '17 axes'),
        (b'\x08' + b'\xff' * 11, 'more than 64 bits'),
    ],
)
def test_entries_that_are_none(message, reason):
  with pytest.raises(ValueError, match=reason):
    tensor_bundle._entry(message)


def test_arrays_of_another_type(tmp_path):
  entry = tensor_bundle.Entry(2, (3,), 0, 0, 24, 0)
  with pytest.raises(UserError, match='must be of float32'):
    tensor_bundle.read_array(tmp_path / 'data', 'a', entry)
