import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import models
from video_diffusion import media
from video_diffusion.api import cascade as cascade_lib
from video_diffusion.diffusion import extension
from video_diffusion.inference import block_files
from video_diffusion.inference import rollout
from video_diffusion.inference import sampling_plan
from video_diffusion.parallel import sharding

DEVICES = jax.device_count()


def clip(frames, side=8):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (frames, side, side, 3), np.uint8)


GIVEN = clip(3)


def watch(model, before=lambda number: None):
  """The inputs of every block that a model samples, as a list that grows.

  Args:
    model: whose samplers are watched.
    before: called with the number of the block, from 1.
  """
  seen, stage = [], model.stage

  def watched(*args, **options):
    found = stage(*args, **options)

    def sample_block(*args, **inputs):
      seen.append(inputs)
      before(len(seen))
      return found.sample_block(*args, **inputs)

    return found._replace(sample_block=sample_block)

  model.stage = watched
  return seen


def test_a_next_frame_is_sampled_from_the_frames_before_it():
  mesh, seen = sharding.make_mesh(), []

  def sample_block(params, key, condition, *, previous, previous_mask):
    seen.append((np.asarray(previous)[0, :, 0, 0, 0], previous_mask))
    x = np.asarray(previous)[:, -1:] + 0.25
    return jax.device_put(x, sharding.batch_sharding(mesh))

  plan = extension.frame_by_frame(
      4, block_frames=4, context_frames=2, num_given=1
  )
  stage = rollout.Stage(sample_block, {}, None, (8, 8), {})
  video = rollout.run_batch(
      plan, [stage], jax.random.key(0),
      rollout.Batches(DEVICES, DEVICES, mesh),
      given=np.full((1, 8, 8, 3), -0.5, np.float32),
  )
  np.testing.assert_array_equal(video[:, :, 0, 0, 0], [
      [-0.5, -0.25, 0.0, 0.25]
  ] * DEVICES)
  for (frames, mask), want in zip(
      seen, ([-0.5], [-0.5, -0.25], [-0.25, 0.0]), strict=True
  ):
    assert mask.shape == (1, 2)
    np.testing.assert_array_equal(frames[mask[0]], want)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_frames_that_are_no_numbers_are_told_and_not_kept(tmp_path, value):
  mesh = sharding.make_mesh()

  def sample_block(*args, **inputs):
    x = np.zeros((DEVICES, 4, 8, 8, 3), np.float32)
    x[-1, 2, 3, 4, 1] = value
    return jax.device_put(x, sharding.batch_sharding(mesh))

  plan = sampling_plan.generate(4, block_frames=4, overlap=2)
  stage = rollout.Stage(sample_block, {}, None, (8, 8), {})
  with pytest.raises(rollout.NotFiniteError, match='frames that are no numb'):
    rollout.run(
        plan, [stage], rollout.Batches(DEVICES, DEVICES, mesh), seed=0,
        resume_dir=tmp_path,
    )
  assert not list(tmp_path.rglob('*.npy'))


def test_a_cascade_knows_what_was_sampled_before(tmp_path):
  """16 frames in blocks of 3 that overlap by 1, every fourth from the base."""
  base = models.make(fields=[('data', 'frameskips', (4,))])
  fine = models.make(frames=3, side=16, super_resolution_weight=30.0)
  seen = watch(base), watch(fine)
  video = cascade_lib.cascade(base, fine).sample(resume_dir=tmp_path)
  blocks = [
      np.load(tmp_path / 'blocks_0' / f'batch_0_block_{i}.npy')
      for i in range(10)
  ]
  assert len(seen[0]) == 1 and not seen[0][0] and len(seen[1]) == 9
  assert 'known' not in seen[1][0]
  starts = (0, 0, *range(2, 13, 2))
  places = [range(start, start + 3) for start in starts]
  for frames, given in zip(places, seen[1], strict=False):
    sparse = [f % 4 == 0 for f in frames]
    np.testing.assert_array_equal(given['low_res_mask'], [sparse])
    for i, frame in enumerate(frames):
      if sparse[i]:
        np.testing.assert_array_equal(
            given['low_res'][:, i], blocks[0][:, frame // 4]
        )
  # What is known of a block is what the block before has sampled: its first
  # frame where the same frames are sampled again, else its last. (The last
  # block moves back to end with the video.)
  for i, given in enumerate(seen[1][1:-1], start=1):
    np.testing.assert_array_equal(
        given['known'][:, 0], blocks[i][:, 0 if i == 1 else -1]
    )
  np.testing.assert_array_equal(video[:, :3], media.to_uint8(blocks[2]))


def test_blocks_of_a_cascade_overlap_as_its_second_run_says():
  base = models.make(fields=[('data', 'frameskips', (4,))], overlap=3)
  fine = models.make(frames=5, overlap=2, side=16)
  seen = watch(fine)
  cascade_lib.cascade(base, fine).sample()
  known = [given['known_mask'].sum() for given in seen[1:4]]
  assert 'known_mask' not in seen[0] and known == [1, 2, 2]


def test_an_interrupted_call_continues_and_another_call_starts_anew(tmp_path):
  blocks = 4
  whole = models.make().sample(frames=10)

  def interrupt(number):
    if number == 3:
      raise KeyboardInterrupt

  model = models.make()
  watch(model, interrupt)
  with pytest.raises(KeyboardInterrupt):
    model.sample(frames=10, resume_dir=tmp_path)
  model = models.make()
  seen = watch(model)
  again = model.sample(frames=10, resume_dir=tmp_path)
  assert len(seen) == blocks - 2
  np.testing.assert_array_equal(again, whole)
  seen.clear()
  other = model.sample(frames=10, resume_dir=tmp_path, seed=1)
  assert len(seen) == blocks and np.any(other != whole)


@pytest.mark.parametrize('change', [
    {},
    dict(given=GIVEN[:, :, ::-1]),
    dict(given=GIVEN[::-1]),
    dict(params=np.nextafter(np.float32(1), np.float32(2))),
    dict(labels=[(1,)]),
    dict(fields=[('diffusion', 'prediction', 'eps')]),
    dict(guidance_weight=3.0),
    dict(overlap=3),
])
def test_blocks_of_another_clip_model_or_condition_are_not_taken(
    tmp_path, change
):
  """Each change, at the same step, begins the call anew."""

  def attempt(
      *, given=GIVEN, params=1.0, fields=(), labels=((0,),), cut=False,
      **options
  ):
    """Number of blocks that a call samples."""
    model = models.make(params=params, fields=fields, label_sizes=(2,))
    seen = []

    def sample_block(*args, **inputs):
      if cut and seen:
        raise KeyboardInterrupt
      seen.append(inputs)
      return jnp.zeros((DEVICES, 4, 8, 8, 3))

    stage = model.stage
    model.stage = lambda *a, **k: stage(*a, **k)._replace(
        sample_block=sample_block
    )
    try:
      model.extend(
          given, frames=9, labels=labels, resume_dir=tmp_path, **options
      )
    except KeyboardInterrupt:
      assert cut
    return len(seen)

  assert attempt(cut=True) == 1
  blocks = 6 if 'overlap' in change else 3
  assert attempt(**change) == blocks - (not change)


def test_batches_are_cut_to_the_videos_and_take_their_conditions():
  mesh, n = sharding.make_mesh(), DEVICES + 1
  condition = {'labels': np.arange(n, dtype=np.int32)[:, None, None]}
  seen = []

  def sample_block(params, key, condition):
    seen.append(condition['labels'].ravel().tolist())
    return jnp.zeros((DEVICES, 4, 8, 8, 3))

  plan = sampling_plan.generate(4, block_frames=4, overlap=2)
  stage = rollout.Stage(sample_block, {}, condition, (8, 8), {})
  batches = rollout.Batches(n, DEVICES, mesh)
  videos = rollout.run(plan, [stage], batches, seed=0)
  assert len(videos) == n
  assert sum(seen, []) == [i % n for i in range(2 * DEVICES)]
  assert batches.own().tolist() == list(range(n))
  assert len(batches.first(videos, 1)) == 1
  assert len(batches.first(videos, n + 9)) == n


def test_the_folder_of_blocks_is_of_one_process(tmp_path):
  folder = block_files.folder_of(tmp_path)
  assert folder.name == 'blocks_0' and folder.parent == tmp_path
  mine = block_files.BlockFiles(folder, {'a': 1})
  mine.save(0, 2, np.arange(3))
  load = lambda call: block_files.BlockFiles(folder, call).load(0, 2, bool)
  np.testing.assert_array_equal(load({'a': 1}), np.arange(3))
  assert load({'a': 2}) is None and load({'a': 1}) is None
