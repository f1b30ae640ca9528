"""Distances to training clips that are known by construction."""
import numpy as np
import pytest

from video_diffusion.evaluation import nearest_clips


class Array:
  """A set of clips in memory."""

  def __init__(self, name, videos):
    self.identity, self._videos = {'name': name}, videos

  def __len__(self):
    return len(self._videos)

  def read(self, start, stop):
    assert stop - start <= 32
    return self._videos[start:stop]


def flat(*levels):
  """Clips of flat grey."""
  levels = np.array(levels, np.uint8)[:, None, None, None, None]
  return np.broadcast_to(levels, (len(levels), 3, 16, 16, 3))


def find(tmp_path, samples, heldout, **options):
  train = Array('train', flat(*range(0, 250, 50)))
  return nearest_clips.find(
      Array('samples', samples), Array('heldout', heldout), train, tmp_path,
      **options,
  )


def test_copies_are_nearer_than_heldout_clips(tmp_path):
  table, clips = find(
      tmp_path, flat(50, 101, 50, 100), flat(75, 125, 65), shown=3
  )
  assert [row[:2] for row in table.rows] == [
      ['samples', 4], ['held-out clips', 3]
  ]
  assert table.rows[0][2] == 0 and table.rows[0][4] == 0
  least, twentieth, median = table.rows[1][2:]
  assert least == pytest.approx(15 / 255, abs=1e-4)
  assert median == pytest.approx(25 / 255, abs=1e-4)
  assert least < twentieth < median
  assert 'of 5 training clips' in table.note
  assert len(clips.groups) == 3
  (_, sample), (caption, nearest) = clips.groups[1].items()
  assert caption == 'nearest training clip, 0.004 away'
  assert (sample == 101).all() and (nearest == 100).all()


def test_the_first_of_many_clips_are_compared(tmp_path, monkeypatch):
  monkeypatch.setattr(nearest_clips, 'COMPARED', 40)
  samples = np.concatenate([flat(*[100] * 40), flat(*[125] * 9)])
  table, clips = find(tmp_path, samples, samples[::-1], shown=2)
  assert [row[1] for row in table.rows] == [40, 40]
  assert table.rows[0][4] == 0 and len(clips.groups) == 2
