import dataclasses

import numpy as np
import pytest

from video_diffusion.data import shapes
from video_diffusion.evaluation import shapes_clips
from video_diffusion.metrics import shapes_reader

SMALL = shapes.MovingShapes(
    split='test', seed=0, num_examples=1000, num_frames=8, height=16, width=16,
    radius=0.25, speed=0.04,
)
LARGE = shapes.MovingShapes(
    split='test', seed=1, num_examples=1000, num_frames=16, height=64, width=64,
)


def clips(source, n):
  rng = np.random.default_rng(0)
  examples = [source.example(i, rng, source.num_frames) for i in range(n)]
  return [np.stack([e[name] for e in examples]) for name in ('video', 'labels')]


@pytest.mark.parametrize('noise', [0, 25])
@pytest.mark.parametrize('source, n', [(SMALL, 400), (LARGE, 64)])
def test_real_clips_are_read_exactly_under_noise_too(source, n, noise):
  videos, labels = clips(source, n)
  rng = np.random.default_rng(1)
  noisy = np.clip(videos + rng.normal(0, noise, videos.shape), 0, 255)
  shares = shapes_reader.match_shares(
      shapes_clips.make_reader(source)(noisy.astype(np.uint8)), labels
  )
  assert min(shares.values()) > 0.99, shares


@pytest.mark.parametrize('noise', [0, 25])
@pytest.mark.parametrize('side, radius, speed, time, n', [
    (64, 0.15, 0.025, 16, 48), (32, 0.2, 0.035, 16, 96),
    (16, 0.25, 0.04, 8, 400),
])
def test_real_frames_are_read_exactly_one_by_one(
    side, radius, speed, time, n, noise
):
  """At the sizes of the configs: accelerator, text_small and laptop."""
  source = shapes.MovingShapes(
      split='test', seed=2, num_examples=1000, num_frames=time, height=side,
      width=side, radius=radius, speed=speed,
  )
  videos, labels = clips(source, n)
  wanted = np.full((n, time, len(shapes.COLOURS)), -1)
  for clip, objects in zip(wanted, labels, strict=True):
    for shape, colour, _ in objects:
      if shape >= 0:
        clip[:, colour] = shape
  noisy = videos + np.random.default_rng(1).normal(0, noise, videos.shape)
  found = shapes_clips.make_reader(source, subpixels=2).shapes(
      np.clip(noisy, 0, 255).astype(np.uint8)
  )
  assert (found == wanted).all(2).mean() >= 0.999


def test_frames_are_read_by_themselves():
  videos, labels = clips(SMALL, 32)
  reader = shapes_clips.make_reader(SMALL)
  one = int(np.flatnonzero(labels[:, 1, 0] < 0)[0])
  shape, colour, _ = labels[one, 0]
  video = videos[one].copy()
  video[3] = 0
  # A pixel in a frame is no object, and half of a shape is one.
  video[4] = 0
  video[4, 3, 3] = shapes.PALETTE['cyan']
  video[5] = videos[one, 5][..., ::-1]  # red and blue change places
  read = reader.shapes(video[None])[0]
  assert (read[[0, 1, 2, 6, 7], colour] == shape).all()
  assert (read[3:5] == -1).all()
  other = shapes.COLOURS.index({
      'red': 'blue', 'blue': 'red', 'yellow': 'cyan', 'cyan': 'yellow',
  }.get(shapes.COLOURS[colour], shapes.COLOURS[colour]))
  assert read[5, other] == shape
  assert (reader.shapes(np.zeros((2, 3, 16, 16, 3), np.uint8)) == -1).all()


def test_what_is_no_shape_is_not_read_as_one():
  rng = np.random.default_rng(0)
  blank = np.zeros((2, 8, 16, 16, 3), np.uint8)
  assert np.all(shapes_clips.make_reader(SMALL)(blank) == -1)
  # One stray pixel, and half of a shape in a minority of frames.
  blank[0, :, 3, 3] = 255, 0, 0
  blank[1, :3, 4:12, 4:12] = 0, 255, 0
  assert np.all(shapes_clips.make_reader(SMALL)(blank) == -1)
  labels = clips(SMALL, 32)[1]
  noise = rng.integers(0, 256, (32, 8, 16, 16, 3), np.uint8)
  read = shapes_clips.make_reader(SMALL)(noise)
  shares = shapes_reader.match_shares(read, labels)
  assert shares['all'] == 0.0


def test_a_clip_at_rest_or_played_backwards():
  videos, labels = clips(SMALL, 32)
  read = shapes_clips.make_reader(SMALL)
  still = read(np.repeat(videos[:, :1], 8, axis=1))
  shares = shapes_reader.match_shares(still, labels)
  assert shares['motion'] == 0.0 and shares['colour'] == 1.0
  there, back = read(videos), read(videos[:, ::-1])
  shown = there[..., 0] >= 0
  np.testing.assert_array_equal(
      back[shown][:, 2], (there[shown][:, 2] + 4) % 8
  )


def test_shares_by_hand():
  none = [-1, -1, -1]
  wanted = np.array([[[0, 1, 2], [1, 3, 4]]] * 4 + [[[0, 1, 2], none]])
  found = np.array([
      [[1, 3, 4], none, [0, 1, 2]],  # another order
      [[1, 1, 2], [0, 3, 4], none],  # shapes exchanged
      [[0, 1, 2], none, none],  # one is missing
      [[0, 1, 2], [1, 3, 5], none],  # one goes elsewhere
      [[0, 1, 2], [0, 1, 2], none],  # one too many
  ])
  assert shapes_reader.match_shares(found, wanted) == {
      'colour': 0.6, 'shape': 0.6, 'motion': 0.4, 'all': 0.2
  }


def test_only_heldout_or_only_seen_pairs_are_drawn():
  held = ('red triangle', 'green circle', 'blue square')
  want = shapes.parse_pairs(held)
  drawn = {}
  for pairs in shapes.PAIRS:
    source = dataclasses.replace(SMALL, heldout_pairs=held, pairs=pairs)
    labels = clips(source, 400)[1].reshape(-1, 3)
    drawn[pairs] = {(s, c) for s, c, _ in labels.tolist() if s >= 0}
  assert drawn['heldout'] == want and len(drawn['split']) == 18
  assert drawn['seen'] == drawn['split'] - want
  with pytest.raises(ValueError, match='heldout_pairs names no pair'):
    dataclasses.replace(SMALL, pairs='heldout')


def test_captions_are_those_that_clips_have():
  held = ('red triangle', 'green circle', 'blue square')
  source = dataclasses.replace(SMALL, split='train', heldout_pairs=held)
  every = list(source.captions())
  assert len(set(every)) == len(every)
  rng = np.random.default_rng(0)
  some = {source.example(i, rng, 8)['caption'] for i in range(200)}
  assert some < set(every)
  assert not any('green circle' in caption for caption in every)
