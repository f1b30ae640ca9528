"""Chunks on disk: kept for the same computation, and for no other."""
import numpy as np

from video_diffusion.evaluation import chunk_files
from video_diffusion.evaluation import feature_files


def test_chunks_are_those_of_their_computation(tmp_path):
  chunks = chunk_files.ChunkFiles(tmp_path / 'a', {'seed': 1})
  chunks.save(3, x=np.arange(4))
  chunks.save(3, 1, x=np.arange(2))
  again = chunk_files.ChunkFiles(tmp_path / 'a', {'seed': 1})
  assert [part['x'].tolist() for part in again.parts(3)] == [
      [0, 1, 2, 3], [0, 1],
  ]
  other = chunk_files.ChunkFiles(tmp_path / 'a', {'seed': 2})
  assert not other.path(3).exists() and not [*other.parts(3)]


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
  chunk_files.ChunkFiles(tmp_path / 'a', {})
  (tmp_path / 'a' / '.chunk_000001_0000.part-0123456789ab.npz').write_bytes(b'')
  chunk_files.ChunkFiles(tmp_path / 'a', {})
  assert [path.name for path in (tmp_path / 'a').iterdir()] == ['identity.json']


class Means:
  """The mean of a clip, and how often it was asked for."""

  name, identity, description = 'means', {'means': 1}, 'means'
  asked = 0

  def __call__(self, videos):
    self.asked += len(videos)
    means = videos.mean((1, 2, 3, 4), dtype=np.float64)
    return means.astype(np.float32)[:, None]


class Clips:
  identity = {'clips': 'some'}

  def __len__(self):
    return feature_files.CHUNK * 2 + 3

  def read(self, start, stop):
    return np.full((stop - start, 1, 1, 1, 3), 0, np.uint8) + np.arange(
        start, stop, dtype=np.uint8
    )[:, None, None, None, None]


def test_features_of_finished_chunks_are_not_made_again(tmp_path):
  means, seen = Means(), []
  found = feature_files.features(
      Clips(), means, tmp_path, lambda *done: seen.append(done)
  )
  np.testing.assert_array_equal(found[:, 0], np.arange(len(Clips())))
  n, size = len(Clips()), feature_files.CHUNK
  assert seen == [(0, n), (size, n), (2 * size, n), (n, n)]
  [chunk] = tmp_path.glob('means_*/chunk_000001_*')
  chunk.unlink()
  again = Means()
  np.testing.assert_array_equal(
      feature_files.features(Clips(), again, tmp_path), found
  )
  assert again.asked == size
