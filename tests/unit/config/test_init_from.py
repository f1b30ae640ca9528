"""Which arrays of another run a run begins from, and what is said of them."""
import json
import logging
import re

from etils import epath
import jax
import numpy as np
import pytest

from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import build_step
from video_diffusion.config import init_from
from video_diffusion.config import saved_config
from video_diffusion.config import text_inputs
from video_diffusion.data import shapes as shapes_data
from video_diffusion.errors import UserError
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.training import state as state_lib

LABELS = (3, 6, 8) * 2
WORDS = tokenizer_lib.train_tokenizer(['a red circle moves left'])
OTHER_WORDS = tokenizer_lib.train_tokenizer(['a green dog sleeps'])


def abstract(config, labels=LABELS):
  """(function that makes the first state, its shapes, the mesh)."""
  network = build.make_model(config, labels)
  _, optimizer = build_step.make_optimizer(config)
  mesh = build.make_mesh(config)
  shapes = build.batch_shapes(config, network)
  init, state = build_step.abstract_state(
      config, network, optimizer, shapes, mesh
  )
  return init, state, mesh


@pytest.fixture
def other(tmp_path, tiny_config):
  """other(labels, tokenizer, **fields): (folder, arrays) of an exported run."""

  def make(labels=LABELS, tokenizer=None, **fields):
    tiny_config.update_from_flattened_dict(fields)
    _, state, _ = abstract(tiny_config, labels)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(x.dtype), state.params
    )
    folder = epath.Path(tmp_path / 'other')
    folder.mkdir()
    weights.save(params, folder / weights.FOLDER, step=7, dtype=np.float32)
    saved = saved_config.to_json(tiny_config)
    (folder / 'config.json').write_text(json.dumps(saved))
    if tokenizer:
      (folder / 'tokenizer.model').write_bytes(tokenizer)
    tiny_config.train.init_from = str(folder)
    return folder, state_lib.flatten(params)

  return make


def take(config, labels=LABELS, tokenizer=None):
  if tokenizer is not None:
    tokenizer = tokenizer_lib.Tokenizer(tokenizer, length=8)
  _, state, mesh = abstract(config, labels)
  return init_from.take(config, state.params, mesh, tokenizer)


def test_parameters_and_ema_begin_and_moments_are_fresh(other, tiny_config):
  _, theirs = other()
  init, state, _ = abstract(tiny_config)
  layout = jax.tree.map(lambda x: x.sharding, state)
  got = jax.jit(init, out_shardings=layout)(take(tiny_config))
  assert int(got.step) == 0
  for tree in (got.params, got.ema_params):
    flat = state_lib.flatten(tree)
    assert flat.keys() == theirs.keys()
    for name, array in theirs.items():
      np.testing.assert_array_equal(flat[name], array)
  moments = jax.tree.leaves(got.opt_state)
  assert not any(np.any(x) for x in moments)


def test_without_the_field_nothing_is_taken(tiny_config):
  assert take(tiny_config) == {}


def test_another_label_table_starts_fresh_and_is_named(
    other, tiny_config, caplog
):
  _, theirs = other()
  with caplog.at_level(logging.INFO):
    got = take(tiny_config, labels=(3, 9, 8))
  fresh, unused = ['encoder.table_1'], [f'encoder.table_{i}' for i in (3, 4, 5)]
  assert theirs.keys() - got.keys() == {*fresh, *unused}
  assert 'Arrays that start fresh: encoder.table_1.' in caplog.text
  assert f'are not used: {", ".join(["encoder.table_1", *unused])}.' in (
      caplog.text
  )
  assert 'step 7' in caplog.text


def test_an_unconditional_network_begins_a_conditional_one(
    other, tiny_config, caplog
):
  _, theirs = other(**{'model.cond_dim': 0})
  tiny_config.model.cond_dim = 4
  with caplog.at_level(logging.INFO):
    got = take(tiny_config)
  assert got.keys() == theirs.keys()
  assert re.search('start fresh: encoder.table_0.*, unet', caplog.text)
  assert 'not used' not in caplog.text


def test_arrays_of_other_shapes_are_one_sentence(other, tiny_config):
  folder, theirs = other()
  tiny_config.model.base_channels = 8
  with pytest.raises(UserError) as error:
    take(tiny_config)
  sentence = str(error.value)
  assert sentence.startswith(f'train.init_from {folder} does not fit: ')
  shape = theirs['unet.conv_in.kernel'].shape
  assert (
      f'unet.conv_in.kernel is {shape} there, and this network wants '
      f'{(*shape[:-1], 8)}' in sentence
  )
  assert 'more arrays; fields that differ: model.base_channels (4 ' in sentence
  assert sentence.count('this network wants') == init_from.MAX_NAMED


def test_a_folder_without_weights_is_one_sentence(tiny_config, tmp_path):
  tiny_config.train.init_from = str(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='^train.init_from .*nowhere is no fold'):
    take(tiny_config)
  tiny_config.train.init_from = str(tmp_path)
  with pytest.raises(UserError, match='^train.init_from .* holds no weights'):
    take(tiny_config)
  tiny_config.train.init_from = 's3://bucket/run'
  with pytest.raises(UserError, match="^train.init_from is 's3://bucket/run'"):
    take(tiny_config)


def test_a_network_of_another_kind_is_refused(other, tiny_config):
  folder, _ = other()
  for path in (folder / weights.FOLDER).iterdir():
    path.unlink()
  weights.save(
      {'conv': np.zeros((2, 2), np.float32)}, folder / weights.FOLDER, step=1,
      dtype=np.float32,
  )
  with pytest.raises(UserError, match='holds none of the arrays of this netwo'):
    take(tiny_config)


def test_what_the_weights_meant_there_is_told(other, tiny_config, caplog):
  folder, _ = other()
  tiny_config.diffusion.prediction = 'eps'
  tiny_config.model.dropout = 0.1
  tiny_config.text.injection = 'output'
  with caplog.at_level(logging.WARNING):
    take(tiny_config)
  assert f"diffusion.prediction is 'v' in {folder} and 'eps' now" in caplog.text
  there = f"text.injection is 'embedding' in {folder} and 'output' now"
  assert there in caplog.text
  assert 'dropout' not in caplog.text
  caplog.clear()
  tiny_config.distill.teacher_prediction = 'v'  # a student's, from eps to v
  take(tiny_config)
  assert there in caplog.text and 'diffusion.prediction' not in caplog.text
  (folder / 'config.json').unlink()
  caplog.clear()
  assert take(tiny_config)
  assert 'diffusion.prediction' not in caplog.text


TEXT = {
    'text.encoder': 'table', 'text.length': 8, 'text.dim': 8,
    'text.max_pieces': 64, 'model.cond_dim': 8,
}
TABLE = {'encoder.table.pieces', 'encoder.table.places'}


def test_vectors_of_words_keep_their_meaning_or_start_fresh(
    other, tiny_config, caplog
):
  folder, theirs = other(tokenizer=WORDS, **TEXT)
  assert take(tiny_config, tokenizer=WORDS).keys() == theirs.keys()
  with caplog.at_level(logging.INFO):
    got = take(tiny_config, tokenizer=OTHER_WORDS)
  assert theirs.keys() - got.keys() == TABLE
  assert f'start fresh: {", ".join(sorted(TABLE))}.' in caplog.text
  tiny_config.text.max_pieces = 32
  assert take(tiny_config, tokenizer=OTHER_WORDS).keys() == got.keys()
  with pytest.raises(UserError, match=r'table.pieces is \(64, 8\) there, and '
                     r'this network wants \(32, 8\); fields that differ: text.'
                     r'max_pieces \(64 there, 32 now\).$'):
    take(tiny_config, tokenizer=WORDS)


def source():
  return shapes_data.MovingShapes(
      split='train', seed=0, num_examples=5, num_frames=2, height=8, width=8
  )


def open_text(config, tmp_path):
  run_dir = epath.Path(tmp_path / 'new')
  return text_inputs.open_text(config, run_dir, source()).tokenizer


def test_the_tokenizer_is_taken_over_unless_there_is_one(
    other, tiny_config, tmp_path
):
  every = tokenizer_lib.train_tokenizer([*source().captions(), 'dog'])
  folder, _ = other(tokenizer=every, **TEXT)
  assert open_text(tiny_config, tmp_path).content == every
  (tmp_path / 'mine.model').write_bytes(WORDS)
  tiny_config.text.tokenizer = str(tmp_path / 'mine.model')
  assert open_text(tiny_config, tmp_path).content == WORDS
  # The run has begun: what it keeps counts, and the other run may be gone.
  tiny_config.text.tokenizer = ''
  (tmp_path / 'new').mkdir()
  (tmp_path / 'new' / 'tokenizer.model').write_bytes(OTHER_WORDS)
  tiny_config.train.init_from = '/nowhere'
  assert open_text(tiny_config, tmp_path).content == OTHER_WORDS


def test_a_run_without_words_gives_no_tokenizer(other, tiny_config, tmp_path):
  other()
  tiny_config.update_from_flattened_dict(TEXT)
  tokenizer = open_text(tiny_config, tmp_path)
  assert not tokenizer.unknown('a red circle moves left')


def test_a_tokenizer_that_is_gone_is_one_sentence(
    other, tiny_config, tmp_path
):
  folder, _ = other(**TEXT)
  with pytest.raises(UserError, match='other has no tokenizer.model; copy it'):
    open_text(tiny_config, tmp_path)


def test_words_that_it_lacks_are_listed_and_too_many_refused(
    other, tiny_config, tmp_path, caplog
):
  captions = sorted({*source().captions()})
  known = [c for c in captions if 'red' not in c]
  folder, _ = other(tokenizer=tokenizer_lib.train_tokenizer(known), **TEXT)
  open_text(tiny_config, tmp_path)
  assert re.search("lacks 1 words of the captions: 'red'", caplog.text)
  (folder / 'tokenizer.model').write_bytes(OTHER_WORDS)
  with pytest.raises(UserError, match="^the tokenizer of .*other lacks most "
                     r"words of the captions \('.*\); set text.tokenizer to"):
    open_text(tiny_config, tmp_path)
