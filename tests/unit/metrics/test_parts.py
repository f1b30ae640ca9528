"""Connected parts of frames that are painted by hand."""
import builtins

import numpy as np
import pytest

from video_diffusion.errors import UserError
from video_diffusion.metrics import parts


def test_parts_are_found_frame_by_frame():
  frames = np.zeros((3, 12, 16))
  frames[0, 1:4, 1:6] = 200  # 3 x 5
  frames[0, 4, 6] = 64  # touches it by a corner
  frames[0, 8:11, 10:12] = 255
  frames[2, 1:4, 1:6] = 100  # where frame 0 has one; frame 1 is empty
  frames[2, 6, 6] = 63  # darker than a quarter of white
  found = parts.find(frames, smallest=1)
  np.testing.assert_array_equal(found.frame, [0, 0, 2])
  np.testing.assert_array_equal(found.side, [6, 3, 5])
  for part, (frame, area) in enumerate([(0, 16), (0, 6), (2, 15)]):
    shown = found.pixels[part] > 0
    assert shown.sum() == area
    np.testing.assert_array_equal(
        found.pixels[part][shown], frames[frame][shown]
    )
  np.testing.assert_allclose(
      parts.centres(found.pixels)[1:], [[9, 10.5], [2, 3]]
  )


def test_specks_are_no_parts():
  frames = np.zeros((1, 8, 8))
  frames[0, 0, :3] = 255
  frames[0, 4, :4] = 255
  assert parts.find(frames, smallest=4).side.tolist() == [4]
  assert not len(parts.find(frames, smallest=5).frame)
  none = parts.find(np.zeros((2, 8, 8)), smallest=1)
  assert none.pixels.shape == (0, 8, 8)
  assert parts.centres(none.pixels).shape == (0, 2)


def test_a_choice_of_parts():
  frames = np.eye(3).reshape(3, 1, 3) * 255
  found = parts.find(frames, smallest=1).where(np.array([True, False, True]))
  assert found.frame.tolist() == [0, 2]
  np.testing.assert_array_equal(found.pixels, frames[[0, 2]])


def test_without_scipy_it_is_one_sentence(monkeypatch):
  known = builtins.__import__

  def without(name, *args, **kwargs):
    if name.startswith('scipy'):
      raise ImportError(name)
    return known(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without)
  with pytest.raises(UserError, match=r'SciPy, which is not installed; inst'):
    parts.find(np.zeros((1, 8, 8)), smallest=1)
