"""Samples of another program beside the held-out clips of a config."""
import json

import numpy as np
import pytest

from benchmarks import causes
from benchmarks import scores
from tests.support import scoring
from video_diffusion.data import shapes
from video_diffusion.evaluation import score_options

FIELDS = (
    '--config=moving_shapes:laptop', '--config.data.frames=9',
    '--config.data.height=16', '--config.data.width=16',
)


@pytest.fixture(name='folder')
def folder_of_samples(tmp_path, monkeypatch):
  make = score_options.features_lib
  monkeypatch.setattr(make, 'I3DFeatures', lambda *_, **__: scoring.Few())
  source = shapes.MovingShapes(
      split='train', seed=3, num_examples=20, num_frames=9, height=16,
      width=16,
  )
  rng = np.random.default_rng(0)
  videos = np.stack([source.example(i, rng, 9)['video'] for i in range(20)])
  folder = tmp_path / 'samples'
  folder.mkdir()
  np.savez(folder / 'samples_0000.npz', video=videos[:12])
  np.savez(folder / 'samples_0001.npz', video=videos[12:])
  return folder, videos


def test_scores_ink_and_coherence_of_a_folder(folder, capsys):
  folder, videos = folder
  found = scores.main([f'{folder}', *FIELDS, '--coherence'])
  assert found['ink']['samples'] == causes.figures(videos)
  assert {*found['ink']} == {*found['coherence']}
  assert {*found['ink']} == {'samples', 'real', 'unrelated'}
  assert found['coherence']['real']['one_kept'] == 1.0
  assert found['scores']['fvd'] > 0
  written = json.loads((folder / 'scores' / 'scores.json').read_text())
  assert written['scores'] == found['scores']
  report = json.loads((folder / 'scores' / 'report.json').read_text())
  assert report['protocol']['samples: videos'] == 20
  assert report['protocol']['command'].startswith('python -m benchmarks.scor')
  printed = capsys.readouterr().out
  for words in ('real against other real clips', 'unrelated', 'kvd', 'palette'):
    assert words in printed


@pytest.mark.parametrize('flag, sentence', [
    ('--config.eval.num_samples=4', 'eval.num_samples is 4, but all clips'),
    ('--config.data.height=32', 'the samples are 16x16, but the clips of the'),
    ('--config.data.frames=8', 'eval.frames: clips of 8 frames cannot be sc'),
    ('--nothing=1', "unknown argument '--nothing=1'"),
])
def test_what_does_not_fit_is_a_sentence(folder, flag, sentence):
  with pytest.raises(SystemExit, match=f'^scores: .*{sentence}'):
    scores.main([f'{folder[0]}', *FIELDS, flag])
