from video_diffusion.diffusion import extension
from video_diffusion.inference import sampling_plan


def test_one_block_is_as_long_as_the_video():
  for frames in (1, 3, 4):
    plan = sampling_plan.generate(frames, block_frames=4, overlap=2)
    assert plan.num_frames == frames and not plan.given
    [block] = plan.blocks
    assert block.frames == tuple(range(frames)) and not any(block.known)


def test_longer_videos_are_extensions():
  plan = sampling_plan.generate(9, block_frames=4, overlap=1)
  assert plan == extension.extend(9, block_frames=4, overlap=1)


def test_a_model_with_a_context_extends_frame_by_frame():
  lengths = dict(block_frames=4, overlap=2, context_frames=3)
  plan = sampling_plan.generate(9, **lengths)
  assert [len(block.frames) for block in plan.blocks] == [4, 1, 1, 1, 1, 1]
  assert len(sampling_plan.generate(4, **lengths).blocks) == 1
  plan = sampling_plan.extend(1, **lengths)
  assert plan.num_frames == 5
  assert [block.frames for block in plan.blocks] == [(1,), (2,), (3,), (4,)]


def test_an_extension_adds_one_block_unless_told_otherwise():
  lengths = dict(block_frames=4, overlap=1)
  assert sampling_plan.extend(3, **lengths).num_frames == 6
  plan = sampling_plan.extend(3, num_frames=9, backwards=True, **lengths)
  assert plan.given == (6, 7, 8)
