import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.support.paths import ROOT
from video_diffusion.data import shapes
from video_diffusion.text import tokenizer as tokenizer_lib
from video_diffusion.text import tokens

T5 = ROOT.parent / 'shared' / 'data' / 't5'
WORDS = ['a red circle moves up', 'a blue square moves left, a red square up']
MODEL = tokenizer_lib.train_tokenizer(WORDS)


@pytest.mark.skipif(not T5.exists(), reason='no spiece.model')
def test_ids_of_t5():
  tokenizer = tokenizer_lib.Tokenizer(T5 / 'spiece.model', length=16)
  assert tokenizer.num_pieces == 32000
  texts = {
      'translate English to German: That is good.': [
          13959, 1566, 12, 2968, 10, 466, 19, 207, 5, 1
      ],
      'Hello world': [8774, 296, 1],
      'An astronaut riding a horse.': [389, 30059, 7494, 3, 9, 4952, 5, 1],
      '': [1],
  }
  ids, mask, truncated = tokenizer(list(texts))
  assert ids.dtype == np.int32 and mask.dtype == bool
  for row, real, expected in zip(ids, mask, texts.values(), strict=True):
    assert row[real].tolist() == expected
    assert real.tolist() == [i < len(expected) for i in range(16)]
    assert not row[~real].any()
  assert not truncated.any()


@pytest.mark.skipif(not T5.exists(), reason='no expected ids')
def test_ids_that_t5x_was_given():
  tokenizer = tokenizer_lib.Tokenizer(T5 / 'spiece.model', length=16)
  expected = np.load(T5 / 't5_tiny_expected.npz')
  ids, mask, _ = tokenizer(expected['texts'].tolist())
  np.testing.assert_array_equal(ids, expected['token_ids'])
  np.testing.assert_array_equal(mask, expected['token_ids'] > 0)


def test_long_captions_keep_their_end_mark_and_are_counted():
  tokenizer = tokenizer_lib.Tokenizer(MODEL, length=6)
  fits, long = WORDS[0], WORDS[1]
  ids, mask, truncated = tokenizer([fits, long])
  assert truncated.tolist() == [False, True]
  assert mask.all() and ids[:, -1].tolist() == [1, 1]
  whole = tokenizer_lib.Tokenizer(MODEL, length=30)([long]).ids[0]
  np.testing.assert_array_equal(ids[1, :5], whole[:5])


def test_unknown_parts_are_named_once():
  tokenizer = tokenizer_lib.Tokenizer(MODEL, length=8)
  assert tokenizer.unknown('a Red circle') == []
  assert tokenizer.unknown('a purple circle a purple dog moves 日本') == [
      'purple', 'dog', '日本'
  ]


def test_a_full_stop_that_captions_do_not_have_is_left_out():
  tokenizer = tokenizer_lib.Tokenizer(MODEL, length=8)
  for given, expected in {
      'A red circle moves up. ': 'A red circle moves up',
      'a red circle!?': 'a red circle',
      'a red circle moves up .': 'a red circle moves up',
      'a red circle': 'a red circle',
      '...': '...',
      'a dog.': 'a dog',
  }.items():
    assert tokenizer.without_stop(given) == expected
  assert tokenizer.unknown(tokenizer.without_stop('a dog.')) == ['dog']
  stops = tokenizer_lib.train_tokenizer([f'{text}.' for text in WORDS])
  known = tokenizer_lib.Tokenizer(stops, length=8)
  assert known.without_stop('a red circle moves up.').endswith('up.')
  encode = tokens.Ids(tokenizer)
  bare, stopped = encode(['a red circle moves up', 'A red circle moves up.'])[
      'tokens'
  ]
  np.testing.assert_array_equal(bare, stopped)


def test_a_model_of_moving_shapes():
  source = shapes.MovingShapes('train', 0, 500, 8, 16, 16)
  texts = [
      source.example(i, np.random.default_rng(0), 8)['caption']
      for i in range(500)
  ]
  model = tokenizer_lib.train_tokenizer(texts)
  assert tokenizer_lib.train_tokenizer(reversed(texts + texts)) == model
  tokenizer = tokenizer_lib.Tokenizer(model, length=24)
  assert not any(tokenizer.unknown(text) for text in texts)
  ids, mask, truncated = tokenizer(texts)
  assert not truncated.any() and ids.max() < tokenizer.num_pieces < 40
  # A piece per word, and the end.
  np.testing.assert_array_equal(
      mask.sum(axis=1), [len(text.split()) + 1 for text in texts]
  )
  assert len({row.tobytes() for row in ids}) == len(set(texts))


def test_a_model_is_the_same_in_every_process():
  code = (
      'import sys; from video_diffusion.text import tokenizer; '
      f'sys.stdout.buffer.write(tokenizer.train_tokenizer({WORDS!r}))'
  )
  run = subprocess.run(
      [sys.executable, '-c', code], cwd=ROOT, capture_output=True, check=True
  )
  assert run.stdout == MODEL


def test_a_tokenizer_can_be_sent_to_other_processes(tmp_path):
  (tmp_path / 'model').write_bytes(MODEL)
  tokenizer = tokenizer_lib.Tokenizer(tmp_path / 'model', length=12)
  other = pickle.loads(pickle.dumps(tokenizer))
  same = tokenizer_lib.Tokenizer(MODEL, length=5)
  assert other.fingerprint == same.fingerprint
  for a, b in zip(tokenizer(WORDS), other(WORDS), strict=True):
    np.testing.assert_array_equal(a, b)


def test_bad_models_and_lengths(tmp_path):
  with pytest.raises(ValueError, match='absent is no sentencepiece model'):
    tokenizer_lib.Tokenizer(tmp_path / 'absent', length=8)
  with pytest.raises(ValueError, match='tokenizer is no sentencepiece model'):
    tokenizer_lib.Tokenizer(b'text', length=8)
  with pytest.raises(ValueError, match='length 1 has no room'):
    tokenizer_lib.Tokenizer(MODEL, length=1)
  with pytest.raises(ValueError, match='without captions'):
    tokenizer_lib.train_tokenizer(['', ' '])


def test_a_model_without_an_end_mark(tmp_path):
  import sentencepiece

  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(WORDS),
      model_prefix=str(tmp_path / 'm'),
      model_type='word',
      vocab_size=20,
      hard_vocab_limit=False,
      eos_id=-1,
      minloglevel=2,
  )
  with pytest.raises(ValueError, match='m.model has no end mark </s>'):
    tokenizer_lib.Tokenizer(tmp_path / 'm.model', length=8)
