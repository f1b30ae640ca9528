import concurrent.futures
import hashlib
import os
import pickle
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT
from tests.support.waiting import until
from video_diffusion.checkpoints import t5_weights
from video_diffusion.data import storage
from video_diffusion.errors import UserError
from video_diffusion.models import t5
from video_diffusion.text import embedding_cache
from video_diffusion.text import tokenizer as tokenizer_lib

T5 = ROOT.parent / 'shared' / 'data' / 't5'
LENGTH = 6
DIM = 5
TEXTS = [f'word{i % 7} number{i % 11} index{i}' for i in range(100)]
MODEL = tokenizer_lib.train_tokenizer(TEXTS)
TOKENIZER = tokenizer_lib.Tokenizer(MODEL, length=LENGTH)


def open_cache(directory, **settings):
  settings = {'encoder': 'one', 'tokenizer': TOKENIZER, **settings}
  return embedding_cache.EmbeddingCache(directory, **settings)


def encode(ids, mask, scale=1.0):
  """Exact in bfloat16, and not a number where padding would be read."""
  tokens = np.where(mask, ids % 128, np.nan)[..., None] * np.ones(DIM) * scale
  return tokens.astype(np.float32)


class Counter:
  """`encode`, remembering the ids that it was given, without repetitions."""

  def __init__(self):
    self.rows, self.calls = [], 0

  def __call__(self, ids, mask):
    self.calls += 1
    self.rows += list({row.tobytes() for row in ids})
    return encode(ids, mask)


def check(caches, texts):
  tokens, mask = caches.lookup(texts)
  ids, expected_mask, _ = TOKENIZER(texts)
  np.testing.assert_array_equal(mask, expected_mask)
  expected = np.where(mask[..., None], encode(ids, mask), 0)
  np.testing.assert_array_equal(tokens.astype(np.float32), expected)
  assert tokens.shape == (len(texts), LENGTH, DIM)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_what_was_put_in_comes_out(tmp_path, dtype):
  made = open_cache(tmp_path, dtype=dtype)
  report = made.fill(
      TEXTS + TEXTS[:30] + [''], encode, batch_size=8, file_captions=30
  )
  assert report == (101, 101, 0, '')
  for opened in (made, open_cache(tmp_path, dtype=dtype)):
    check(opened, TEXTS)
    check(opened, TEXTS[::-7] + TEXTS[3:4] * 2 + [''])
    tokens, _ = opened.lookup([TEXTS[0].encode()])
    assert tokens.dtype == getattr(jnp, dtype)
    assert opened.missing([*TEXTS, 'x', 'x']) == ['x']
  assert len(list(made.directory.glob('*.embeddings'))) == 4
  assert not list(made.directory.glob('.*'))


def test_float32_is_kept_bit_for_bit_and_bfloat16_rounded(tmp_path):
  values = np.random.default_rng(0).standard_normal((4, LENGTH, DIM))
  values = values.astype(np.float32)
  _, mask, _ = TOKENIZER(TEXTS[:4])
  order = {row.tobytes(): i for i, row in enumerate(TOKENIZER(TEXTS[:4]).ids)}
  draw = lambda ids, mask: values[[order[row.tobytes()] for row in ids]]
  for dtype in ('float32', 'bfloat16'):
    kept = open_cache(tmp_path, dtype=dtype)
    kept.fill(TEXTS[:4], draw, batch_size=4)
    expected = values.astype(getattr(jnp, dtype))
    np.testing.assert_array_equal(
        kept.lookup(TEXTS[:4])[0][mask], expected[mask]
    )


@pytest.mark.skipif(not T5.exists(), reason='no T5 to embed with')
def test_from_text_to_what_t5x_gives(tmp_path):
  expected = np.load(T5 / 't5_tiny_expected.npz')
  tokenizer = tokenizer_lib.Tokenizer(T5 / 'spiece.model', length=16)
  config, params = t5_weights.load_t5(
      T5 / 't5x_zarr_tiny' / 'checkpoint_0', num_pieces=tokenizer.num_pieces
  )
  made = embedding_cache.EmbeddingCache(
      tmp_path,
      encoder=t5_weights.fingerprint(config, params),
      tokenizer=tokenizer,
      dtype='float32',
  )
  texts = expected['texts'].tolist()
  made.fill(texts, t5.make_encode(config, params), batch_size=2)
  tokens, mask = made.lookup(texts)
  np.testing.assert_array_equal(mask, expected['token_ids'] > 0)
  np.testing.assert_allclose(
      tokens[mask], expected['encoder_out'][mask], atol=1e-5
  )
  assert not tokens[~mask].any()


def test_every_batch_has_the_same_shape_and_each_caption_is_taken_once(
    tmp_path,
):
  shapes, counter = set(), Counter()

  def watch(ids, mask):
    shapes.add((ids.shape, ids.dtype, mask.shape, mask.dtype))
    return counter(ids, mask)

  open_cache(tmp_path).fill(TEXTS * 2, watch, batch_size=8)
  size = (8, LENGTH)
  assert shapes == {(size, np.dtype(np.int32), size, np.dtype(bool))}
  assert len(counter.rows) == len(set(counter.rows)) == 100


def test_only_what_is_missing_is_computed(tmp_path):
  open_cache(tmp_path).fill(TEXTS[:60], encode, batch_size=8)
  counter, again = Counter(), open_cache(tmp_path)
  assert again.fill(TEXTS, counter, batch_size=8) == (100, 40, 0, '')
  assert counter.calls == 5
  assert again.fill(TEXTS, counter) == (100, 0, 0, '')
  assert counter.calls == 5
  check(again, TEXTS)


def test_truncated_captions_are_counted_each_time(tmp_path):
  # Six words, five, and eight, where five and the end mark have room.
  words = [f'word{i}' for i in range(6)]
  long = [' '.join(words), ' '.join(words[:5]), ' '.join(words + words[:2])]
  made = open_cache(tmp_path)
  assert made.fill(long, encode).truncated == 2
  assert open_cache(tmp_path).fill(long[:2], encode).truncated == 1
  assert made.lookup(long)[1].sum(axis=1).tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    'change, word',
    [
        ({'encoder': 'two'}, 'encoder'),
        ({'tokenizer': tokenizer_lib.Tokenizer(MODEL, length=9)}, 'length'),
        (
            {
                'tokenizer': tokenizer_lib.Tokenizer(
                    tokenizer_lib.train_tokenizer(TEXTS[1:]), length=LENGTH
                )
            },
            'tokenizer',
        ),
        ({'dtype': 'float32'}, 'dtype'),
    ],
)
def test_other_settings_use_nothing_and_say_so_once(
    tmp_path, caplog, change, word
):
  open_cache(tmp_path).fill(TEXTS[:9], encode)
  changed = open_cache(tmp_path, **change)
  note = rf'The embeddings in .* were made with another {word}: none of them is'
  with pytest.raises(ValueError, match=f'no embedding of .*word0.* {note}'):
    changed.lookup(TEXTS[:1])
  counter = Counter()
  report = changed.fill(TEXTS[:9], counter)
  assert report.computed == 9 and len(counter.rows) >= 9
  assert [record.message for record in caplog.records] == [report.note]
  assert word in report.note
  assert changed.fill(TEXTS[:10], counter).note == ''
  # And the first is as it was.
  assert open_cache(tmp_path).missing(TEXTS[:9]) == []


def test_a_caption_that_is_not_there(tmp_path):
  made = open_cache(tmp_path)
  made.fill(TEXTS[:5], encode)
  with pytest.raises(ValueError, match="no embedding of the caption 'blue dog'"
                     ' in .*; run --mode=prepare'):
    made.lookup([TEXTS[0], 'blue dog'])


def test_bad_encoders_are_told_apart(tmp_path):
  made = open_cache(tmp_path)
  with pytest.raises(
      ValueError, match=r'shape \(64, 5\) for ids of shape'
  ) as error:
    made.fill(TEXTS, lambda ids, mask: np.ones((64, DIM)))
  assert not isinstance(error.value, UserError)  # it is a bug

  def overflow(ids, mask):
    bad = (ids == TOKENIZER([TEXTS[7]]).ids).all(axis=1)
    return np.where(bad[:, None, None], np.inf, encode(ids, mask))

  with pytest.raises(
      UserError, match=f'not finite for the caption {TEXTS[7]!r}'
  ):
    made.fill(TEXTS, overflow)
  with pytest.raises(ValueError, match="kept as 'float16'; it must be one of"):
    open_cache(tmp_path, dtype='float16')


def test_a_directory_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(storage.StorageError, match='^dir cannot be written'):
    open_cache(tmp_path / 'file').fill(TEXTS, encode)


def test_half_a_file_is_not_used(tmp_path):
  made = open_cache(tmp_path)
  made.fill(TEXTS, encode, file_captions=50)
  first, second = made.directory.glob('*.embeddings')
  first.write_bytes(first.read_bytes()[:-1])
  second.write_bytes(second.read_bytes()[:100])
  again = open_cache(tmp_path)
  assert again.missing(TEXTS) == TEXTS
  again.fill(TEXTS, encode)
  check(again, TEXTS)


def test_threads_and_copies_read_the_same(tmp_path):
  made = open_cache(tmp_path)
  made.fill(TEXTS, encode, file_captions=9)
  fresh = open_cache(tmp_path)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda i: check(fresh, TEXTS[i::13]), range(13)))
  check(pickle.loads(pickle.dumps(made)), TEXTS)


WRITER = '''
import pathlib, sys, time
import numpy as np
from tests.unit.text import test_embedding_cache as t
out = open(sys.argv[2], 'a', buffering=1)
go, begun = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[2] + '.begun')
writers, stop_at, rows = int(sys.argv[4]), int(sys.argv[5]), 0
t.until(go.exists)
def encode(ids, mask):
  global rows
  begun.touch()  # all are at work before one goes on
  t.until(lambda: len(list(go.parent.glob('*.begun'))) == writers)
  rows += len(ids)
  if rows > stop_at:
    time.sleep(t.LIMIT)  # until it is killed
  time.sleep(0.05)
  for row in np.unique(ids, axis=0):
    out.write(row.tobytes().hex() + '\\n')
  return t.encode(ids, mask)
report = t.open_cache(sys.argv[1]).fill(
    t.TEXTS, encode, batch_size=4, file_captions=4)
print(report.computed)
'''


def start(directory, log, go, *, writers=1, stop_at=10**9):
  """A process that fills the cache once the file `go` is there.

  It waits until so many `writers` have begun, and stands still before row
  `stop_at` is computed.
  """
  return subprocess.Popen(
      [sys.executable, '-c', WRITER, directory, log, go, str(writers),
       str(stop_at)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
  )


def test_a_killed_process_is_taken_up(tmp_path):
  directory, log, go = (tmp_path / name for name in ('cache', 'log', 'go'))
  go.touch()
  process = start(directory, log, go, stop_at=60)
  until(
      lambda: log.exists() and len(log.read_text().splitlines()) >= 40, process
  )
  process.send_signal(signal.SIGKILL)
  process.wait()
  first = log.read_text().splitlines()
  kept = 100 - len(open_cache(directory).missing(TEXTS))
  # What was kept is whole; the kill cost the file in work alone.
  assert len(first) - 4 <= kept < 100

  counter, again = Counter(), open_cache(directory)
  assert again.fill(TEXTS, counter, batch_size=4).computed == 100 - kept
  check(again, TEXTS)
  computed = first + [row.hex() for row in counter.rows]
  assert len(set(computed)) == 100
  assert len(computed) <= 104
  stored = {hashlib.sha256(text.encode()).hexdigest()[:24] for text in TEXTS}
  digests = np.concatenate([f.digests for f in again._files.values()])
  # None is there twice.
  assert len(digests) == 100
  assert {digest.decode() for digest in digests} == stored


def test_two_writers_leave_one_valid_cache(tmp_path):
  directory, go = tmp_path / 'cache', tmp_path / 'go'
  logs = [tmp_path / f'log{i}' for i in range(2)]
  writers = [start(directory, log, go, writers=2) for log in logs]
  until(lambda: all(log.exists() for log in logs))
  go.touch()  # both have imported all: they begin as one
  counts = [int(writer.communicate(timeout=LIMIT)[0]) for writer in writers]
  assert [writer.returncode for writer in writers] == [0, 0]
  check(open_cache(directory), TEXTS)
  assert not list(directory.glob('*/.*'))
  # They share the work, but for captions that both were at.
  assert min(counts) > 0 and 100 <= sum(counts) < 190


def test_what_a_killed_process_left_is_deleted_in_time(tmp_path):
  made = open_cache(tmp_path)
  made.fill(TEXTS[:1], encode)
  old, fresh = (
      made.directory / f'.{name}.part-0.embeddings' for name in ('old', 'fresh')
  )
  for part in (old, fresh):
    part.write_bytes(b'half')
  os.utime(old, (0, 0))
  made.fill(TEXTS[:2], encode)
  assert fresh.exists() and not old.exists()
