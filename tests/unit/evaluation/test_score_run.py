"""Scores of a model's samples, and of the same samples in files."""
import dataclasses

import jax
import numpy as np
import pytest

from tests.support import models
from tests.support import scoring
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import extractors as extractors_lib
from video_diffusion.evaluation import folder_clips
from video_diffusion.evaluation import score_options
from video_diffusion.evaluation import score_run

COUNT, FRAMES, SIDE = 16, 9, 8
EXTRACTORS = {'flicker': extractors_lib.Flicker(), 'i3d': scoring.Few()}
OPTIONS = score_options.Options(num_samples=COUNT)


def source_of(split):
  return shapes.MovingShapes(
      split=split, seed=0, num_examples=100, num_frames=FRAMES, height=SIDE,
      width=SIDE,
  )


def write(folder, videos):
  """Two files of one set."""
  folder.mkdir()
  for name, part in (('a', videos[:5]), ('b', videos[5:])):
    np.savez(folder / f'{name}.npz', video=part)
  return folder_clips.FolderClips(folder, 'SAMPLES', frames=FRAMES)


def score_clips(clips, folder, options=OPTIONS):
  return score_run.score_clips(
      clips, source_of, options, EXTRACTORS, folder, program='tests'
  )


def test_files_of_samples_have_the_scores_of_the_run_that_made_them(tmp_path):
  model = models.make(
      frames=FRAMES, side=SIDE, batch_size=4 * jax.device_count()
  )
  found = score_run.score_run(
      model, source_of, OPTIONS, EXTRACTORS, tmp_path / 'run'
  )
  samples = {}
  for path in (tmp_path / 'run').glob('samples_*/chunk_*.npz'):
    with np.load(path) as arrays:
      samples |= zip(arrays['number'].tolist(), arrays['video'], strict=True)
  videos = np.stack([samples[i] for i in range(COUNT)])
  again = score_clips(write(tmp_path / 'files', videos), tmp_path / 'again')
  plain = lambda of: [
      dataclasses.asdict(part) for part in (*of.scores, *of.tables, *of.curves)
  ]
  assert plain(again) == plain(found)
  assert again.protocol['held-out clips compared with'] == (
      found.protocol['held-out clips compared with']
  )
  assert again.protocol['command'].startswith('python -m tests ')
  assert found.protocol['command'].startswith('python -m video_diffusion.main ')


def test_scores_tell_other_real_clips_from_noise(tmp_path):
  source, rng = source_of('test'), np.random.default_rng(0)
  real = np.stack([
      source.example(i, rng, FRAMES)['video'] for i in range(40, 40 + COUNT)
  ])
  noise = rng.integers(0, 256, real.shape, np.uint8)
  found = {}
  for name, videos in (('real', real), ('noise', noise)):
    clips = write(tmp_path / name, videos)
    found[name] = score_clips(clips, tmp_path / f'{name}_out')
  fvd = {name: score_run.values(of)['fvd'] for name, of in found.items()}
  assert 0 < 20 * fvd['real'] < fvd['noise']
  controls = [
      next(t for t in of.tables if t.title == 'FVD of real clips').rows
      for of in found.values()
  ]
  assert controls[0] == controls[1]  # whatever the samples are
  # As many other clips are there, so that no halves are compared.
  assert [row[2] for row in controls[0]] == [COUNT] * 3


def test_what_cannot_be_compared_is_a_sentence(tmp_path):
  large = np.zeros((COUNT, FRAMES, SIDE, 2 * SIDE, 3), np.uint8)
  clips = write(tmp_path / 'large', large)
  with pytest.raises(UserError, match='samples are 16x8, but the clips of the'):
    score_clips(clips, tmp_path / 'out')
  known = dataclasses.replace(OPTIONS, protocol='bair_1to15')
  with pytest.raises(UserError, match="'bair_1to15' gives the model 1 frames"):
    score_clips(clips, tmp_path / 'out', known)
