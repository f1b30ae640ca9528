import numpy as np
import pytest

from video_diffusion.data import shapes


def make(**fields):
  options = dict(
      split='train', seed=0, num_examples=1000, num_frames=8, height=32,
      width=32,
  )
  return shapes.MovingShapes(**(options | fields))


def example(source, index, num_frames=None):
  return source.example(
      index, np.random.default_rng(0), num_frames or source.num_frames
  )


def test_a_clip_follows_from_seed_split_and_index():
  a, b = example(make(), 7), example(make(), 7)
  np.testing.assert_array_equal(a['video'], b['video'])
  for other in (make(seed=1), make(split='test')):
    assert np.any(example(other, 7)['video'] != a['video'])
  assert np.any(example(make(), 8)['video'] != a['video'])


def test_every_pixel_is_background_or_a_palette_colour():
  allowed = {shapes.BACKGROUND, *shapes.PALETTE.values()}
  for i in range(50):
    video = example(make(), i)['video']
    assert video.shape == (8, 32, 32, 3) and video.dtype == np.uint8
    assert {tuple(p) for p in video.reshape(-1, 3).tolist()} <= allowed


def test_labels_say_what_is_seen():
  """Area, colour and the centroid's path, read off the pixels."""
  source, seen = make(num_frames=16, height=64, width=64), set()
  for i in range(200):
    clip = example(source, i)
    labels = clip['labels']
    assert labels.dtype == np.int32 and labels.shape == (2, 3)
    if labels[1, 0] >= 0:
      seen.add('two')
      assert labels[0, 1] != labels[1, 1]
      continue
    seen.add('one')
    shape, colour, direction = labels[0]
    mask = np.all(clip['video'] == list(shapes.PALETTE.values())[colour], -1)
    np.testing.assert_array_equal(mask, clip['video'].any(-1))
    yx = np.array([np.argwhere(m).mean(0) for m in mask])
    path = yx[-1] - yx[0]
    np.testing.assert_allclose(
        np.linalg.norm(path), 15 * source.speed * 64, rtol=0.05
    )
    want = np.array(shapes.DIRECTIONS[shapes.DIRECTION_NAMES[direction]])
    cosine = path @ want / np.linalg.norm(path) / np.linalg.norm(want)
    assert cosine > 0.99
    radius = source.radius * 64
    area = {'circle': np.pi, 'square': 1.7**2, 'triangle': 0.5 * 1.9**2}
    np.testing.assert_allclose(
        mask.sum((1, 2)), area[shapes.SHAPES[shape]] * radius**2, rtol=0.12
    )
  assert seen == {'one', 'two'}


def test_captions():
  labels = np.array([[0, 0, 0], [1, 2, 6]])
  assert shapes.caption(labels) == (
      'a red circle moves right, a blue square moves up'
  )
  labels[1] = -1
  assert shapes.caption(labels) == 'a red circle moves right'


def test_two_shapes_hardly_overlap_and_stay_inside():
  source = make()
  for i in range(300):
    objects = source._draw_objects(i)
    masks = [source.mask(shape, path) for shape, _, path, _ in objects]
    for _, _, path, _ in objects:
      radius = source.radius * 32
      assert path.min() >= radius - 1e-9 and path.max() <= 32 - radius + 1e-9
    if len(masks) == 2:
      both = (masks[0] & masks[1]).sum((1, 2))
      smaller = np.minimum(masks[0].sum((1, 2)), masks[1].sum((1, 2)))
      assert np.all(both <= 0.25 * smaller)


def test_bouncing_stays_inside_and_turns():
  source = make(bounce=True, speed=0.1, num_frames=40)
  turned = 0
  for i in range(20):
    for _, _, path, steps in source._draw_objects(i):
      radius = source.radius * 32
      assert path.min() >= radius - 1e-9 and path.max() <= 32 - radius + 1e-9
      turned += len(np.unique(np.sign(steps), axis=0)) > 1
      moved = np.abs(np.diff(path, axis=0))
      assert np.all(moved <= np.abs(steps[:-1]) + 1e-9)
  assert turned > 15


def test_heldout_pairs_are_of_the_test_split_alone():
  held = ('red circle', 'blue square')
  pairs = shapes.parse_pairs(held)

  def count(split):
    source = make(split=split, heldout_pairs=held)
    labels = np.concatenate([example(source, i)['labels'] for i in range(300)])
    return sum((s, c) in pairs for s, c, _ in labels.tolist())

  assert count('train') == 0
  assert count('test') > 20


def test_windows_start_anywhere():
  source = make(num_frames=8)
  starts = set()
  whole = example(source, 3)['video']
  for seed in range(100):
    rng = np.random.default_rng(seed)
    frame = source.example(3, rng, 1)['video'][0]
    starts |= {t for t in range(8) if np.array_equal(whole[t], frame)}
  assert starts == set(range(8))


@pytest.mark.parametrize(
    'fields, named',
    [
        (dict(split='valid'), 'valid'),
        (dict(heldout_pairs=('red hexagon',)), 'red hexagon'),
        (dict(radius=0.4, speed=0.1), '^radius 0.4 and speed'),
        (dict(heldout_pairs=tuple(
            f'{c} {s}' for c in shapes.COLOURS for s in shapes.SHAPES
        )), 'leaves no'),
    ],
)
def test_bad_fields(fields, named):
  with pytest.raises(ValueError, match=named):
    make(**fields)


def test_captions_are_parsed_to_the_labels_they_were_made_of():
  source = shapes.MovingShapes(
      split='train', seed=0, num_examples=100, num_frames=2, height=8, width=8,
      radius=0.25,
  )
  every = list(source.captions())
  assert len(every) > 1000
  for text in every:
    assert shapes.caption(shapes.parse_caption(text)) == text
  for text in ('', 'a red circle', 'a red dog moves up', every[1] + ', a b'):
    with pytest.raises(ValueError, match='is no caption'):
      shapes.parse_caption(text)
