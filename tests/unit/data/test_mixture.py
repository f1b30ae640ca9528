"""Sources that take turns, and what joint batches take from each."""
import collections
import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests import conftest
from tests.support.waiting import LIMIT
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import pipeline
from video_diffusion.data import shuffle
from video_diffusion.data import windows


class Fake(mixture_lib.Source):
  """Clips whose pixels say (source, clip, frame); `per_group` of a video.

  A video counts its frames on, from clip to clip.
  """

  num_videos = 0

  def __init__(self, name, num_examples, per_group=3, text=True, sizes=()):
    self.name, self.num_examples, self.per_group = name, num_examples, per_group
    self.num_videos = -(-num_examples // per_group)
    self.text, self.label_sizes = text, sizes

  def video(self, index):
    return index // self.per_group

  def window(self, index, rng, num_frames, frameskips=(1,)):
    frames = windows.random_frames(rng, 6, num_frames, frameskips)
    first = 6 * (index % self.per_group)
    return windows.Window(self.video(index), first + frames)

  def read(self, video, frames):
    index = self.per_group * video + frames[0] // 6
    # The right column differs, or no flip would be seen.
    pixels = np.zeros((len(frames), 1, 2, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = self.name, index
    pixels[:, :, 0, 2] = frames[:, None] % 6
    example = {'video': pixels}
    if self.text:
      # An end that a fixed-width string would lose, and no ASCII.
      example['caption'] = f'{self.name} é {index}\0'
    if self.label_sizes:
      example['labels'] = np.array([index % self.label_sizes[0]], np.int32)
    return example


def three():
  return mixture_lib.Mixture(
      [Fake(0, 30), Fake(1, 11), Fake(2, 7)], [0.5, 0.3, 0.2]
  )


def draw(source, **fields):
  options = dict(batch_size=4, num_frames=3, num_images=2, seed=3, stop=5,
                 loader='threads', flip=True, frameskips=(1, 2))
  return list(pipeline.batches(source, **(options | fields)))


def equal(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      assert x[name].dtype == y[name].dtype
      np.testing.assert_array_equal(x[name], y[name])


def pixels(batches, part):
  """(source, clip, frame) of each video (part 0) or of each image, int."""
  videos = np.concatenate([b['video'] for b in batches]).astype(int)
  chosen = videos[:, :3] if part == 0 else videos[:, 3:]
  return chosen[..., 0, :, :].max(axis=-2)


@pytest.mark.parametrize(
    'weights',
    [(1,), (1, 1), (0.7, 0.3), (5, 3, 2), (0.91,) + (0.01,) * 9,
     (1.5, 2.25, 0.37, 4), (1, 1e-9, 70_000, 3.3)],
)
def test_shares_are_exact_to_one_turn_at_every_position(weights):
  turns = shuffle.turns(weights)
  assert len(turns) <= shuffle.MAX_PERIOD + len(weights)
  twice = np.concatenate([turns, turns])
  had = np.cumsum(twice[:, None] == np.arange(len(weights)), axis=0)
  shares = np.bincount(turns, minlength=len(weights)) / len(turns)
  want = np.asarray(weights) / np.sum(weights)
  np.testing.assert_allclose(
      shares, want, rtol=1e-9, atol=2 / shuffle.MAX_PERIOD
  )
  assert shares.min() > 0
  due = np.arange(1, len(twice) + 1)[:, None] * shares
  assert np.abs(had - due).max() < 1


def test_the_place_of_a_position_is_the_count_of_its_source():
  mixture, seen = three(), collections.Counter()
  for position in range(50):
    i, n = mixture.place(position)
    assert n == seen[i]
    seen[i] += 1
    clips = [min(seen[j], n) for j, n in enumerate((30, 11, 7))]
    assert mixture.distinct(position + 1) == sum(clips)
  assert mixture.place(10**12) == (0, 5 * 10**11)


def test_every_source_runs_through_its_own_epochs():
  drawn = pixels(draw(three(), stop=200, num_images=0), 0)[:, 0]
  for i, source in enumerate(three().sources):
    n, clips = source.num_examples, drawn[drawn[:, 0] == i, 1].tolist()
    assert len(clips) > 5 * n
    epochs = [clips[e : e + n] for e in range(0, len(clips) - n + 1, n)]
    for epoch in epochs:
      assert sorted(epoch) == list(range(n))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


# A new process has nothing but (seed, step, host).
RESUME = '''
import pickle, sys
from tests.unit.data import test_mixture as t
if __name__ == '__main__':
  drawn = t.draw(t.three(), start=6, stop=9, process_index={}, process_count={})
  sys.stdout.buffer.write(pickle.dumps(drawn))
'''


@pytest.mark.parametrize('host, hosts', [(0, 1), (0, 2), (1, 2)])
def test_a_new_process_resumes_a_mix_of_three_bit_for_bit(host, hosts):
  whole = draw(three(), stop=9, process_index=host, process_count=hosts)
  script = RESUME.format(host, hosts)
  output = subprocess.run(
      [sys.executable, '-c', script], cwd=conftest.ROOT, capture_output=True,
      check=True,
  ).stdout
  equal(pickle.loads(output), whole[6:])


@pytest.mark.parametrize('hosts', [2, 4])
def test_global_batches_do_not_depend_on_the_host_count(hosts):
  whole = draw(three(), stop=20)
  parts = [
      draw(three(), stop=20, process_index=i, process_count=hosts)
      for i in range(hosts)
  ]
  for step, batch in enumerate(whole):
    for name in batch:
      joined = np.concatenate([part[step][name] for part in parts])
      np.testing.assert_array_equal(joined, batch[name])


def test_all_loaders_give_the_same_batches_with_captions():
  want = draw(three())
  assert want[0]['captions'].shape == (4, 3)
  equal(draw(three(), loader='processes'), want)
  pytest.importorskip('tensorflow')
  for fields in (dict(), dict(start=2), dict(process_index=1, process_count=2)):
    equal(draw(three(), loader='tf', **fields), draw(three(), **fields))


def refuse(unknown, captions):
  """An encoder that does not know one of the clips."""
  if unknown in captions:
    raise ValueError('there is no such caption.')
  return codes(captions)


@pytest.mark.parametrize('loader', ['tf', 'threads', 'processes'])
def test_an_error_of_an_example_comes_as_it_is(loader):
  if loader == 'tf':
    pytest.importorskip('tensorflow')
  batches = draw(three())
  unknown = batches[3]['captions'][1, 0]
  assert unknown not in batches[0]['captions']
  encode = functools.partial(refuse, unknown.decode())
  with pytest.raises(ValueError, match=r'^there is no such caption\.$'):
    draw(three(), encode=encode, loader=loader)


def test_an_uncaught_error_ends_the_process():
  pytest.importorskip('tensorflow')
  script = (
      'from tests.unit.data import test_mixture as t\n'
      'if __name__ == "__main__":\n'
      '  batches = t.pipeline.batches(\n'
      '      t.three(), batch_size=4, num_frames=3, stop=2**31, loader="tf")\n'
      '  next(batches)\n'
      '  raise OSError("disk gone")\n'
  )
  ended = subprocess.run(
      [sys.executable, '-c', script], cwd=conftest.ROOT, capture_output=True,
      timeout=LIMIT,
  )
  assert ended.returncode == 1 and b'disk gone' in ended.stderr


def test_captions_belong_to_their_frames():
  for batch in draw(three()):
    for video, captions in zip(batch['video'], batch['captions'], strict=True):
      for frame, text in zip(video[[0, 3, 4]], captions, strict=True):
        assert text.decode() == f'{frame[0, 0, 0]} é {frame[0, 0, 1]}\0'


def codes(captions):
  """Tokens that say which caption they are of; picklable."""
  tokens = [[len(c), *c.encode()[:1], *c.encode()[-2:]] for c in captions]
  return {'tokens': np.array(tokens, np.int32), 'mask': np.array(tokens) > 0}


@pytest.mark.parametrize('loader', ['tf', 'threads', 'processes'])
def test_tokens_are_of_their_captions_at_any_start_and_host_count(loader):
  source = mixture_lib.Mixture([Fake(0, 9, sizes=(3,)), Fake(1, 9, sizes=(3,))],
                            [2, 1])
  whole = draw(source, encode=codes)
  for batch in whole:
    assert batch.keys() == {'video', 'captions', 'tokens', 'mask'}
    texts = [[c.decode() for c in row] for row in batch['captions']]
    want = [codes(row) for row in texts]
    for name in ('tokens', 'mask'):
      np.testing.assert_array_equal(batch[name], [w[name] for w in want])
  if loader == 'tf':
    pytest.importorskip('tensorflow')
  equal(draw(source, encode=codes, start=3, loader=loader), whole[3:])
  for host in range(2):
    part = draw(
        source, encode=codes, start=3, process_index=host, process_count=2
    )
    equal(part, [
        {name: x[2 * host : 2 * host + 2] for name, x in batch.items()}
        for batch in whole[3:]
    ])


@pytest.mark.parametrize(
    'second, images, fields',
    [
        (dict(), dict(), {'captions', 'labels'}),
        (dict(text=False), dict(), {'labels'}),
        (dict(sizes=(4,)), dict(), {'captions'}),
        (dict(), dict(text=False, sizes=()), set()),
    ],
)
def test_only_what_all_sources_share_is_in_a_batch(second, images, fields):
  images = mixture_lib.Mixture([Fake(2, 9, **(dict(sizes=(3,)) | images))], [1])
  mixture = mixture_lib.Mixture(
      [Fake(0, 9, sizes=(3,)), Fake(1, 9, **(dict(sizes=(3,)) | second))],
      [1, 1],
      images,
  )
  assert mixture.label_sizes == ((3,) if 'labels' in fields else ())
  assert draw(mixture)[0].keys() == {'video'} | fields


def test_further_arrays_of_all_sources_are_stacked():
  class Sized(Fake):

    def read(self, video, frames):
      example = super().read(video, frames)
      return example | {'size': np.float32(example['video'][0, 0, 0, 1])}

  batch = draw(Sized(0, 9))[0]
  assert batch['size'].shape == (4, 3, 1) and batch['size'].dtype == np.float32
  clips = batch['video'][:, [0, 3, 4], 0, 0, 1]
  np.testing.assert_array_equal(batch['size'][..., 0], clips)
  mixture = mixture_lib.Mixture([Sized(0, 9), Fake(1, 9)], [1, 1])
  assert 'size' not in draw(mixture)[0]


def test_images_follow_the_weights_and_avoid_the_video_of_their_clip():
  """10,000 batches: the share of each clip is within sampling error."""
  sources = [Fake(0, 9), Fake(1, 60), Fake(2, 1)]
  mixture = mixture_lib.Mixture(sources, [3, 2, 1])
  counts, shares = collections.Counter(), collections.Counter()
  given, rng = collections.Counter(), np.random.default_rng(0)
  for _ in range(10_000):
    i = int(mixture.draw(rng).name)
    given[i] += 1
    source = mixture.sources[i]
    index = int(rng.integers(source.num_examples))
    frame = pipeline._draw_image(
        mixture, source, index, source.video(index), rng
    )['video'][0, 0, 0]
    other, clip = int(frame[0]), int(frame[1])
    assert other != i or source.video(index) != source.video(clip)
    counts[other, clip] += 1
    shares[i, other] += 1
  for i, n in given.items():
    # Of source 2, one video, there is no other: the rest share its part.
    weights = np.array([3, 2, 0 if i == 2 else 1])
    for other, p in enumerate(weights / weights.sum()):
      sigma = np.sqrt(n * p * (1 - p))
      assert abs(shares[i, other] - n * p) <= 5 * sigma
  for source in mixture.sources:
    seen = [counts[source.name, j] for j in range(source.num_examples)]
    mean = np.mean(seen)
    assert np.abs(np.array(seen) - mean).max() < 5 * np.sqrt(mean)


def test_joint_batches_hold_no_image_of_the_clips_video():
  """The same by whole batches, 10,000 of them."""
  mixture = mixture_lib.Mixture([Fake(0, 6), Fake(1, 12)], [1, 3])
  clips, images = collections.Counter(), collections.Counter()
  for step in range(10_000):
    example = pipeline.joint_example(
        mixture, step, num_frames=3, num_images=2, seed=0
    )
    (name, clip, _), *others = example['video'][[0, 3, 4], 0, 0].tolist()
    clips[name, clip] += 1
    for other, image, _ in others:
      assert (other, image // 3) != (name, clip // 3)
      images[other, image] += 1
  for name, n in ((0, 6), (1, 12)):
    share = 10_000 * (0.25, 0.75)[name]
    assert all(abs(clips[name, j] - share / n) <= 1 for j in range(n))
    for j in range(n):
      mean = 2 * share / n
      assert abs(images[name, j] - mean) < 5 * np.sqrt(mean)


def test_image_sources_of_their_own():
  shared = Fake(0, 6)
  images = mixture_lib.Mixture([shared, Fake(5, 4, per_group=1)], [1, 1])
  mixture = mixture_lib.Mixture([shared, Fake(1, 9)], [1, 1], images)
  batches = draw(mixture, stop=50)
  clips, stills = pixels(batches, 0)[:, 0], pixels(batches, 1)
  assert set(clips[:, 0]) == {0, 1} and set(stills[..., 0].ravel()) == {0, 5}
  same = stills[..., 0] == clips[:, None, 0]
  assert np.all(stills[same][:, 1] // 3 != clips[np.nonzero(same)[0], 1] // 3)


def test_one_video_lends_itself_only_where_there_is_no_other():
  alone = mixture_lib.Mixture([Fake(0, 1)] * 2, [1, 1])
  assert set(pixels(draw(alone), 1)[..., 0].ravel()) == {0}
  pair = mixture_lib.Mixture([Fake(0, 1), Fake(1, 1)], [1, 1])
  batches = draw(pair)
  assert np.all(pixels(batches, 1)[..., 0] != pixels(batches, 0)[:, :1, 0])


def test_frameskips_reach_the_video_alone():
  frames = pixels(draw(three(), stop=50), 0)[..., 2]
  steps = np.diff(frames, axis=1)
  assert set(map(tuple, steps.tolist())) == {(1, 1), (2, 2)}
