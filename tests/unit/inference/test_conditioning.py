import jax
import numpy as np
import pytest

from video_diffusion.errors import ArgumentError
from video_diffusion.inference import conditioning


def encode(captions, prompts=()):
  """Stands in for a tokenizer; the prompts must be among the captions."""
  assert set(prompts) <= set(captions)
  tokens = np.array([[len(caption)] * 3 for caption in captions], np.int32)
  return {'tokens': tokens, 'mask': tokens > 0}


def heldout(count):
  return ({'labels': np.array([i, -i]), 'caption': 'x' * i}
          for i in range(count))


TEXT = conditioning.Conditioner(heldout, encode=encode)
LABELS = conditioning.Conditioner(heldout, label_sizes=(9, 9))
NEITHER = conditioning.Conditioner(heldout)


def test_prompts_are_repeated_and_encoded():
  found = TEXT(5, prompts=('a', 'abc'))
  assert found.num_videos == 5
  assert found.captions == ('a', 'abc', 'a', 'abc', 'a')
  assert found.arrays['tokens'].shape == (5, 1, 3)
  assert found.arrays['tokens'][:, 0, 0].tolist() == [1, 3, 1, 3, 1]
  assert TEXT(prompts='one prompt').captions == ('one prompt',)


def test_labels_are_repeated():
  found = LABELS(3, labels=[(1, -1), (0, 8)])
  np.testing.assert_array_equal(
      found.arrays['labels'], [[[1, -1]], [[0, 8]], [[1, -1]]]
  )
  assert found.arrays['labels'].dtype == np.int32 and not found.captions
  one = conditioning.Conditioner(heldout, label_sizes=(9,))
  labels = one(labels=[4, np.int64(2)]).arrays['labels']
  assert labels.tolist() == [[[4]], [[2]]]


def test_held_out_clips_are_taken_where_nothing_is_given():
  assert TEXT(3).captions == ('', 'x', 'xx')
  assert LABELS(2).arrays['labels'].tolist() == [[[0, 0]], [[1, -1]]]
  assert NEITHER(4) == conditioning.Conditions(4)


def test_a_second_model_takes_the_conditions_of_the_first():
  text, labels = TEXT(prompts=['a']), LABELS(labels=[(1, 1)])
  assert TEXT.like(text).captions == ('a',)
  assert LABELS.like(labels) == labels
  assert NEITHER.like(labels).arrays is None


@pytest.mark.parametrize(
    'conditioner, arguments, sentence',
    [
        (NEITHER, dict(labels=[(1, 1)]), 'labels must not be given: the model'),
        (LABELS, dict(prompts=['a']), 'prompts must not be given: the model t'),
        (TEXT, dict(labels=[(1, 1)]), 'the model takes text'),
        (TEXT, dict(prompts=[]), 'prompts is empty; it must have at least one'),
        (TEXT, dict(num_videos=1, prompts=['a', 'b']),
         'num_videos is 1; it must be at least 2, the number of prompts'),
        (LABELS, dict(num_videos=0), 'num_videos is 0; it must be at least 1'),
        (LABELS, dict(labels=[(1,)]), 'labels holds (1,); each entry must be'),
        (LABELS, dict(labels=[(9, 0)]), 'from -1 to below (9, 9)'),
        (LABELS, dict(labels=[(-2, 0)]), 'labels holds (-2, 0)'),
        (LABELS, dict(labels=[3]), 'labels holds 3'),
    ],
)
def test_what_does_not_fit_is_one_sentence(conditioner, arguments, sentence):
  with pytest.raises(ArgumentError) as error:
    conditioner(**arguments)
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_other_arrays_come_from_held_out_examples():
  speed = {'caption_size': jax.ShapeDtypeStruct((), np.float32)}
  examples = lambda count: ({'caption_size': i / 2} for i in range(count))
  one = conditioning.Conditioner(examples, arrays=speed)
  found = one(3)
  assert found.arrays['caption_size'].dtype == np.float32
  np.testing.assert_array_equal(found.arrays['caption_size'], [[0], [0.5], [1]])
  assert one.like(found) is not None and one.like(found).arrays is found.arrays
  assert conditioning.Conditioner(examples).like(found).arrays is None
