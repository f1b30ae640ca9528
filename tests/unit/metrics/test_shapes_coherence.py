"""Figures of readings that are written by hand."""
import numpy as np
import pytest

from video_diffusion.metrics import shapes_coherence


def reading(*frames, colours=4):
  """int [time, colours] of frames, each {colour: shape}."""
  found = np.full((len(frames), colours), -1)
  for row, objects in zip(found, frames, strict=True):
    for colour, shape in objects.items():
      row[colour] = shape
  return found


def figures(*clips):
  return shapes_coherence.figures(np.stack(clips))


def test_clips_of_one_object():
  found = figures(
      reading({0: 2}, {0: 2}, {0: 2}),  # kept
      reading({0: 2}, {0: 1}, {0: 2}),  # of another shape in between
      reading({0: 2}, {1: 2}, {1: 2}),  # of another colour from then on
      reading({0: 2}, {}, {0: 2}),  # gone in between
      reading({0: 2}, {0: 2}, {0: 2, 3: 1}),  # a second one appears
      reading({0: 2}, {0: 2}, {0: 0}),  # of another shape in the end
      reading({}, {0: 2}, {0: 2}),  # begins with nothing
      reading({0: 2, 1: 2, 2: 0}, {0: 2}, {0: 2}),  # begins with three
  )
  assert found == {
      'one': 6 / 8, 'one_kept': pytest.approx(1 / 6),
      'one_colours': pytest.approx(3 / 6), 'one_last': pytest.approx(4 / 6),
      'two': 0.0, 'two_kept': None, 'two_colours': None, 'two_last': None,
  }


def test_clips_of_two_objects():
  pair = {0: 2, 3: 1}
  found = figures(
      reading(pair, pair, pair),
      reading(pair, {0: 1, 3: 2}, pair),  # they exchange their shapes
      reading(pair, {0: 1, 3: 2}, {0: 1, 3: 2}),  # for good
      reading(pair, {0: 2}, pair),  # one is gone in between
      reading(pair, pair, {0: 2}),  # in the end
  )
  assert found == {
      'one': 0.0, 'one_kept': None, 'one_colours': None, 'one_last': None,
      'two': 1.0, 'two_kept': 1 / 5, 'two_colours': 3 / 5, 'two_last': 3 / 5,
  }
