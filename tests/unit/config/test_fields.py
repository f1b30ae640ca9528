"""Types and bounds of every field: one sentence each, at once."""
import time

import ml_collections
import pytest

from video_diffusion.config import bounds
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import fields
from video_diffusion.config import sizes
from video_diffusion.config import validate
from video_diffusion.data import datasets
from video_diffusion.errors import UserError


def tree(name, value):
  """The default config, as JSON has it, with one other value."""
  found = defaults_lib.get_config().to_dict()
  *groups, field = name.split('.')
  holder = found
  for group in groups:
    holder = holder[group]
  holder[field] = value
  return found


def kinds():
  """(name, type) of every field of the default config and of data sets."""
  for group, kind in fields.types().items():
    if isinstance(kind, dict):
      yield from ((f'{group}.{name}', k) for name, k in kind.items()
                  if not isinstance(k, dict))
    else:
      yield group, kind


KINDS = dict(kinds())
NUMBERS = [name for name, kind in KINDS.items() if kind in (int, float)]
WRONG = {
    bool: [0, 1, 'True', None, ()],
    int: ['8', 1.5, 8.0, True, None, [8], {'a': 8}],
    float: ['0.1', True, None, (0.1,), {'a': 8}],
    str: [3, None, ('a',), True, 'a\0b', 'a\ud800', 'x' * 4097],
    tuple: [3, 'a', None, (None,), ({},), (1.5,), (True,)],
}


def test_every_field_of_a_data_set_has_a_type():
  assert datasets.all_options().keys() <= fields.types()['data'].keys()


def test_every_number_but_the_logsnrs_has_bounds_and_every_tuple_a_rule():
  free = {'diffusion.logsnr_min', 'diffusion.logsnr_max'}
  assert set(NUMBERS) == set(bounds.RANGES) | free
  for name, kind in KINDS.items():
    assert (kind is tuple) == (name in bounds.TUPLES), name


@pytest.mark.parametrize('name', KINDS)
def test_a_value_of_another_type_is_one_sentence(name):
  for value in WRONG[KINDS[name]]:
    with pytest.raises(UserError) as error:
      fields.check_tree(tree(name, value))
    sentence = str(error.value)
    assert sentence.startswith(f'{name} '), sentence
    assert 'it must be' in sentence or 'it may have' in sentence
    assert sentence.isprintable() and len(sentence) < 300


@pytest.mark.parametrize('name', NUMBERS)
def test_a_number_out_of_bounds_is_one_sentence(name):
  values = [-(10**15), 10**39, 10**400, -(10**400)]
  if KINDS[name] is float:
    values += [float('nan'), float('inf'), 1e300]
  for value in values:
    with pytest.raises(UserError) as error:
      fields.check_tree(tree(name, value))
    assert str(error.value).startswith(f'{name} is {str(value)[:20]}')
    assert len(str(error.value)) < 200


@pytest.mark.parametrize('name, value, words', [
    ('model.channel_mults', [1] * 11, 'has 11 values; it may have 10'),
    ('model.channel_mults', (), 'from 1 to 256, at least 1.'),
    ('model.channel_mults', (1, 0), 'is (1, 0); it must be'),
    ('model.channel_mults', (2**40,), 'whole numbers from 1 to 256'),
    ('model.attention_resolutions', (8,) * 17, 'it may have 16'),
    ('model.remat', (0,), 'is (0,); it must be'),
    ('data.frameskips', (1, 2**30), 'whole numbers from 1 to 1024'),
    ('sample.labels', (1, 2), 'a tuple of tuples, each a tuple of whole'),
    ('sample.labels', ((1,) * 65,), 'has 65 values'),
    ('sample.prompts', (3,), 'is (3,); it must be a tuple of texts'),
    ('sample.prompts', ('a' * 10_001,), 'has 10,001 characters'),
    ('data.tfds_name', 'huggingface:x/y', 'one of those that TFDS itself has'),
    ('data.tfds_name', '../../home', 'one of those that TFDS itself has'),
    ('data.camera', '../x', 'one of those that TFDS itself has'),
    ('data.mixture', 3, 'is 3; it must be a group of fields'),
    ('data.mixture', {'a/b': {'name': 'x'}}, 'of letters, digits and _'),
    ('data.mixture', {'a': 3}, 'a has no field name'),
    ('data.mixture', {'a': {'name': 'x', 'weight': 'w'}}, "a.weight is 'w'"),
    ('data.mixture', {'a': {'name': 'x', 'y': 3}}, "'data.mixture.a.y', which"),
    ('data.mixture', {f'n{i}': {'name': 'x'} for i in range(1001)}, '1,001'),
    ('model', 3, 'model is 3; it must be a group of fields'),
    ('seed', {}, 'seed is {}; it must be a whole number'),
    ('model.width', 3, "a field 'model.width', which this version does not"),
    ('extra', {}, "a field 'extra', which this version does not know"),
])
def test_tuples_groups_and_names(name, value, words):
  with pytest.raises(UserError) as error:
    fields.check_tree(tree(name, value))
  assert words in str(error.value) and '\n' not in str(error.value)


def test_a_missing_field_is_named():
  c = defaults_lib.get_config()
  del c.model['emb_dim']
  with pytest.raises(UserError, match='has no field model.emb_dim; give'):
    fields.check(c)


def test_good_names_of_tfds_pass():
  for name in ('cifar10', 'a/b:1.0.0', 'ucf101/ucf101_1_256:2.0.0', ''):
    fields.check_tree(tree('data.tfds_name', name))


@pytest.mark.parametrize('changes, words', [
    ({'model.base_channels': 8192}, 'parameters; at most 1e+11 are allowed'),
    ({'model.emb_dim': 2**16, 'model.emb_layers': 64}, 'of about 2.'),
    ({'model.num_blocks': 64, 'model.channel_mults': (256,) * 10}, 'param'),
    ({'model.base_channels': 2048}, 'parameters, which takes'),
    ({'batch_size': 2**20}, 'batch_size is 1048576; with the frames'),
    ({'data.height': 8192, 'data.width': 8192, 'data.frames': 4096},
     'it makes a batch of'),
    ({'eval.batch_size': 2**20, 'eval.num_clips': 2**20}, 'eval.batch_size is'),
    ({'eval.evaluators': ('alignment',), 'eval.num_clips': 10**7},
     "holds 'alignment' and eval.num_clips is 10000000; the frames of so many"),
    ({'log.scores': ('digits',), 'eval.num_clips': 10**7},
     "holds 'digits' and eval.num_clips is 10000000; the frames of so many"),
    ({'sample.batch_size': 2**12, 'sample.frames': 2**16}, 'sample.batch_size'),
    ({'sample.num_videos': 10**6, 'sample.frames': 2**16},
     'sample.num_videos is 1000000 and sample.batch_size 16; their frames'),
])
def test_what_fields_ask_for_together(changes, words, monkeypatch):
  monkeypatch.setattr(sizes, 'host_memory', lambda: 2**36)
  c = defaults_lib.get_config()
  for name, value in changes.items():
    group, _, field = name.rpartition('.')
    (c[group] if group else c)[field] = value
  began = time.process_time()
  with pytest.raises(UserError) as error:
    validate.check(c)
  # Nothing is traced: a network of these sizes takes minutes.
  assert time.process_time() - began < 5
  assert words in str(error.value) and '\n' not in str(error.value)


def test_memory_is_told():
  assert sizes.host_memory() is None or sizes.host_memory() > 2**27


def test_the_names_of_groups_are_those_of_the_config():
  c = defaults_lib.get_config()
  groups = {n for n, v in c.items() if isinstance(v, ml_collections.ConfigDict)}
  assert groups == {n for n, k in fields.types().items() if isinstance(k, dict)}
