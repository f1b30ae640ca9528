"""Sets of clips: real ones by an order, altered ones, folders."""
import numpy as np
import pytest

from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import folder_clips


class Numbers:
  """Clip i shows its own number in every pixel of frame 0, and time behind."""

  num_examples = 10

  def example(self, index, rng, num_frames, frameskips=(1,)):
    start = rng.integers(4)
    frames = np.arange(num_frames) + start
    frames[0] = index
    video = np.zeros((num_frames, 2, 2, 3), np.uint8)
    return {'video': video + frames[:, None, None, None].astype(np.uint8)}


def real(count, **fields):
  fields = {'split': 'test', 'frames': 3, **fields}
  return clip_sets.RealClips(Numbers(), count=count, **fields)


def numbers(clips):
  return clips.read(0, len(clips))[:, 0, 0, 0, 0].tolist()


def test_without_replacement_every_clip_comes_once_before_one_comes_again():
  clips = real(25)
  found = numbers(clips)
  assert sorted(found[:10]) == sorted(found[10:20]) == [*range(10)]
  assert len(set(found[20:])) == 5 and clips.distinct == 10
  assert found[:10] != [*range(10)] and found[:10] != found[10:20]


def test_with_replacement_clips_are_drawn_anew():
  clips = real(200, replacement=True)
  counts = np.bincount(numbers(clips), minlength=10)
  assert counts.min() > 5 and len(set(counts)) > 1 and clips.distinct == 10
  assert real(5, replacement=True).distinct == len(
      set(numbers(real(5, replacement=True)))
  )


def test_a_clip_is_the_same_wherever_the_set_is_read():
  clips = real(20)
  whole = clips.read(0, 20)
  np.testing.assert_array_equal(clips.read(7, 9), whole[7:9])
  np.testing.assert_array_equal(real(20).read(0, 20), whole)
  assert (real(20, seed=1).read(0, 20) != whole).any()
  later = real(10, first=10)
  np.testing.assert_array_equal(later.read(0, 10), whole[10:])
  assert later.identity != clips.identity


def test_controls_keep_pixels_and_lose_time():
  source = shapes.MovingShapes(
      split='test', seed=0, num_examples=4, num_frames=9, height=16, width=16,
      radius=0.2, speed=0.05,
  )
  clips = clip_sets.RealClips(source, split='test', count=4, frames=9)
  videos = clips.read(0, 4)
  mixed = clip_sets.shuffled_frames(clips)
  assert len(mixed) == 4 and mixed.identity['of'] == clips.identity
  found = mixed.read(0, 4)
  assert (found != videos).any()
  for a, b in zip(found, videos, strict=True):
    assert sorted(f.tobytes() for f in a) == sorted(f.tobytes() for f in b)
  np.testing.assert_array_equal(mixed.read(2, 3)[0], found[2])
  still = clip_sets.repeated_frame(clips).read(0, 4)
  np.testing.assert_array_equal(still, np.repeat(videos[:, 4:5], 9, 1))


def test_arrays_of_sample_mode_are_read_in_place_of_the_files_beside(tmp_path):
  videos = np.random.default_rng(0).integers(
      0, 256, (3, 10, 4, 6, 3), np.uint8
  )
  np.savez(tmp_path / 'samples.npz', video=videos)
  (tmp_path / 'grid.mp4').write_bytes(b'not looked at')
  clips = folder_clips.FolderClips(tmp_path, '--samples', frames=9)
  np.testing.assert_array_equal(clips.read(0, 3), videos[:, :9])
  assert clips.size == (4, 6) and not clips.skipped


@pytest.mark.parametrize('arrays, reason', [
    ({'clips': np.zeros((3, 9, 4, 4, 3), np.uint8)}, "no array 'video'"),
    ({'video': np.zeros((3, 9, 4, 4, 3))}, 'is float64 [3, 9, 4, 4, 3]'),
    ({'video': np.array([{}])}, "no array 'video'"),  # a pickle
])
def test_arrays_of_another_kind_are_not_counted(tmp_path, arrays, reason):
  np.savez(tmp_path / 'samples.npz', **arrays)
  with pytest.raises(UserError, match='holds 0 videos') as error:
    folder_clips.FolderClips(tmp_path, '--samples', frames=9)
  assert reason in str(error.value)
