import collections
import hashlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.waiting import until
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.data import processes
from video_diffusion.data import shapes
from video_diffusion.data import shuffle
from video_diffusion.data import windows


def source(n=50, **fields):
  return shapes.MovingShapes(
      split='train', seed=0, num_examples=n, num_frames=4, height=8, width=8,
      **fields,
  )


class Numbered(mixture_lib.Source):
  """Clips whose pixels say (clip, frame); three clips are of one video.

  Frame f of clip i is frame 100 i + f of the video.
  """

  num_videos = 0

  def __init__(self, num_examples=10, num_videos=None):
    self.num_examples = num_examples
    self.num_videos = num_videos or -(-num_examples // 3)

  def video(self, index):
    return index // 3 % self.num_videos

  def window(self, index, rng, num_frames, frameskips=(1,)):
    start = 100 * index + rng.integers(20 - num_frames + 1)
    return windows.Window(self.video(index), start + np.arange(num_frames))

  def read(self, video, frames):
    pixels = np.zeros((len(frames), 2, 2, 3), np.uint8)
    pixels[..., 0] = frames[0] // 100
    pixels[..., 1] = frames[:, None, None] % 100
    return {'video': pixels}


def draw(src, **fields):
  options = dict(batch_size=4, num_frames=4, num_images=2, seed=3, stop=5,
                 loader='threads')
  return list(pipeline.batches(src, **(options | fields)))


def equal(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      assert x[name].dtype == y[name].dtype
      np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.parametrize('size', [1, 2, 3, 17, 64, 1000])
def test_permute_is_a_permutation_that_depends_on_the_key(size):
  ids = [shuffle.permute(i, size=size, key=5) for i in range(size)]
  assert sorted(ids) == list(range(size))
  if size >= 17:
    other = [shuffle.permute(i, size=size, key=6) for i in range(size)]
    assert ids != other != list(range(size))


def test_permute_spreads_evenly():
  """Where position 0 lands over many keys: uniform within sampling error."""
  counts = collections.Counter(
      shuffle.permute(0, size=10, key=key) for key in range(5000)
  )
  assert max(abs(counts[i] - 500) for i in range(10)) < 5 * np.sqrt(500)


def test_shapes_and_an_epoch_visits_each_clip_once():
  batches = draw(Numbered(10), batch_size=5, stop=4)
  assert batches[0]['video'].shape == (5, 6, 2, 2, 3)
  ids = [b['video'][:, 0, 0, 0, 0].tolist() for b in batches]
  assert sorted(ids[0] + ids[1]) == sorted(ids[2] + ids[3]) == list(range(10))
  assert ids[:2] != ids[2:]


def test_images_come_from_other_videos_evenly():
  src, counts = Numbered(9), collections.Counter()
  for batch in draw(src, batch_size=10, stop=100):
    clip = batch['video'][:, 0, 0, 0, 0] // 3
    images = batch['video'][:, 4:, 0, 0, 0]
    assert np.all(images // 3 != clip[:, None])
    counts.update(images.ravel().tolist())
  mean = 100 * 10 * 2 / 9
  assert max(abs(counts[i] - mean) for i in range(9)) < 5 * np.sqrt(mean)


def test_one_video_lends_other_clips_and_one_clip_itself():
  for batch in draw(Numbered(9, num_videos=1)):
    clip = batch['video'][:, :1, 0, 0, 0]
    assert np.all(batch['video'][:, 4:, 0, 0, 0] != clip)
  assert draw(Numbered(1))[0]['video'].shape == (4, 6, 2, 2, 3)


def test_the_order_and_draws_of_a_seed_never_change():
  """A run resumed after an update sees the batches that it would have seen."""
  drawn = b''.join(b['video'].tobytes() for b in draw(Numbered(10), flip=True))
  assert hashlib.sha256(drawn).hexdigest()[:16] == '6cef059f79ce7f34'


def test_resume_is_exact_at_any_step():
  whole = draw(source(), stop=9)
  equal(draw(source(), start=6, stop=9), whole[6:])


@pytest.mark.parametrize('hosts', [2, 4])
def test_global_batches_do_not_depend_on_the_host_count(hosts):
  whole = draw(source(), flip=True)
  parts = [
      draw(source(), flip=True, process_index=i, process_count=hosts)
      for i in range(hosts)
  ]
  for step, batch in enumerate(whole):
    for name in batch:
      joined = np.concatenate([part[step][name] for part in parts])
      np.testing.assert_array_equal(joined, batch[name])


def test_tf_data_gives_the_same_batches():
  pytest.importorskip('tensorflow')
  for fields in (dict(), dict(start=2), dict(process_index=1, process_count=2)):
    equal(draw(source(), loader='tf', **fields), draw(source(), **fields))


def test_no_tuning_of_tf_data_holds_up_the_end(monkeypatch):
  tf = pytest.importorskip('tensorflow')
  iterate, seen = tf.data.Dataset.as_numpy_iterator, []

  def watched(data):
    seen.append(data.options().autotune.enabled)
    return iterate(data)

  monkeypatch.setattr(tf.data.Dataset, 'as_numpy_iterator', watched)
  batches = draw(source(), loader='tf')
  assert len(batches) and seen == [False]


def test_processes_give_the_same_batches():
  equal(draw(source(), loader='processes'), draw(source()))


class CountsPickles(Numbered):
  """Clips that say how often they were sent to a process."""

  pickles = 0

  def __getstate__(self):
    CountsPickles.pickles += 1
    return self.__dict__


def test_a_process_is_sent_its_source_once():
  """A tokenizer beside it is half a megabyte, too much for every example."""
  CountsPickles.pickles = 0
  batches = draw(CountsPickles(), loader='processes', stop=9)
  assert len(batches) == 9
  # 36 examples; the mixture holds its source twice, and pickles it once.
  assert 1 <= CountsPickles.pickles <= processes.usable_cores()


def test_workers_outlive_the_signals_of_their_group():
  """Schedulers send SIGTERM to all; the loop still needs a step's batch."""
  whole = draw(source(), stop=9)
  batches = pipeline.batches(
      source(), batch_size=4, num_frames=4, num_images=2, seed=3, stop=9,
      loader='processes',
  )
  found = [next(batches)]
  workers = multiprocessing.active_children()
  assert workers
  for worker in workers:
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGINT)
  time.sleep(0.5)
  assert all(worker.is_alive() for worker in workers)
  equal(found + list(batches), whole)
  assert not multiprocessing.active_children()


def test_workers_end_with_a_killed_parent():
  script = (
      'import sys, time\n'
      'from tests.unit.data import test_pipeline as t\n'
      'if __name__ == "__main__":\n'
      '  it = iter(t.pipeline.batches(t.source(), batch_size=2, num_frames=2,\n'
      '            stop=9, loader="processes"))\n'
      '  next(it)\n'
      '  import multiprocessing\n'
      '  workers = multiprocessing.active_children()\n'
      '  print(*[p.pid for p in workers], flush=True)\n'
      '  time.sleep(t.LIMIT)\n'
  )
  parent = subprocess.Popen(
      [sys.executable, '-c', script], stdout=subprocess.PIPE, text=True
  )
  workers = [int(pid) for pid in parent.stdout.readline().split()]
  assert workers
  parent.kill()
  parent.wait()
  alive = lambda pid: pathlib.Path(f'/proc/{pid}/status').exists() and (
      'zombie' not in pathlib.Path(f'/proc/{pid}/status').read_text()
  )
  until(lambda: not any(alive(pid) for pid in workers))


def test_labels_belong_to_their_frames():
  src = source()
  for batch in draw(src, batch_size=2):
    assert batch['labels'].shape == (2, 3, 6)
    for video, labels in zip(batch['video'], batch['labels'], strict=True):
      for frames, row in ((video[:4], labels[0]), (video[4:5], labels[1])):
        colours = {int(c) for c in row[[1, 4]] if c >= 0}
        want = {tuple(list(shapes.PALETTE.values())[c]) for c in colours}
        seen = {tuple(p) for p in frames.reshape(-1, 3).tolist()}
        assert seen - {shapes.BACKGROUND} <= want


def test_flips_mirror_half_of_the_videos():
  plain, flipped = (
      np.concatenate([b['video'][:, 0] for b in draw(source(), **f, stop=100)])
      for f in (dict(flip=False, num_images=0), dict(flip=True, num_images=0))
  )
  same = np.all(plain == flipped, axis=(1, 2, 3))
  mirrored = np.all(plain == flipped[:, :, ::-1], axis=(1, 2, 3))
  assert np.all(same | mirrored)
  assert 0.35 < mirrored.mean() < 0.65 + same[mirrored].mean()


def test_without_shuffle_clips_come_in_order():
  batches = draw(Numbered(10), shuffle=False, num_images=0, stop=2)
  ids = np.concatenate([b['video'][:, 0, 0, 0, 0] for b in batches])
  np.testing.assert_array_equal(ids, np.arange(8))


def test_bad_fields():
  with pytest.raises(ValueError, match='^loader is'):
    draw(source(), loader='grain')
  with pytest.raises(ValueError, match='3 hosts'):
    draw(source(), process_count=3)


def test_errors_of_a_source_reach_the_caller():
  class Broken(Numbered):

    def read(self, video, frames):
      raise OSError('disk gone')

  with pytest.raises(OSError, match='disk gone'):
    draw(Broken())
