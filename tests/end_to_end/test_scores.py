"""Scores of samples: in training, of a run, and of folders without a run."""
import functools
import json
import random
import signal

import numpy as np
import pytest

from tests.support.waiting import until
from video_diffusion import media

SCORED = (
    '--config.eval.metrics=("flicker",)', '--config.eval.num_samples=24',
    '--config.sample.batch_size=4', '--config.sample.num_steps=2',
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, run_main_here):
  """The folder of a run of six steps, scored in training at three of them."""
  folder = tmp_path_factory.mktemp('scored') / 'run'
  code, output = run_main_here(
      f'--workdir={folder}', '--config.train.steps=6', *SCORED,
      '--config.log.scores=("scores",)', '--config.log.score_every=2',
      '--config.log.score_samples=4', '--config.checkpoint.keep=1',
      '--config.checkpoint.best=score_flicker_of_luminance',
  )
  assert code == 0, output
  return folder, output


def test_training_scores_samples_and_keeps_the_best_checkpoint(trained):
  folder, output = trained
  points = [
      json.loads(line) for line in (folder / 'metrics.jsonl').open()
  ]
  name = 'score_flicker_of_luminance/ema'
  curve = {p['step']: p[name] for p in points if name in p}
  assert [*curve] == [2, 4, 6]
  best = min(curve, key=curve.get)
  kept = {int(p.name) for p in (folder / 'checkpoints').iterdir()}
  assert kept == {best, 6}
  assert f'Step {best} has the best score_flicker_of_luminance' in output
  for step in curve:
    report = folder / 'evaluation' / f'heldout_step_{step}_seed_0'
    assert sorted(p.name for p in report.iterdir()) == [
        'report.html', 'report.json',
    ]
  tables = {
      table['title']: [row[0] for row in table['rows']]
      for table in json.loads((report / 'report.json').read_text())['tables']
  }
  assert tables['Distance to the nearest training clip'] == [
      'samples', 'held-out clips',
  ]


def test_a_step_can_be_chosen(trained, run_main_here):
  folder, _ = trained
  best = min(int(p.name) for p in (folder / 'checkpoints').iterdir())
  code, output = run_main_here(
      f'--workdir={folder}', '--mode=evaluate', f'--step={best}',
      *SCORED, '--config.eval.num_samples=4', tiny=False,
  )
  assert code == 0, output
  assert json.loads((folder / 'evaluation.json').read_text())['step'] == best
  code, output = run_main_here(
      f'--workdir={folder}', '--mode=sample', '--step=77', tiny=False
  )
  assert code == 1
  assert 'holds no checkpoint of step 77; there are those of 6' in output


def scores_of(folder):
  report = json.loads((folder / 'report.json').read_text())
  return report['scores'], report['tables']


def has_chunks(folder, count):
  return len(list(folder.glob('*/chunk_*'))) >= count


def samples_of(folder):
  """number -> bytes of every sample on disk."""
  found = {}
  for path in folder.glob('samples_*/chunk_*.npz'):
    with np.load(path) as arrays:
      for number, video in zip(arrays['number'], arrays['video'], strict=True):
        assert number not in found
        found[int(number)] = video.tobytes()
  return found


def test_an_evaluation_that_is_killed_thrice(
    trained, run_main_here, start_main, tmp_path
):
  """It ends with the samples and the scores of an uninterrupted one."""
  folder, _ = trained
  flags = (
      f'--workdir={folder}', '--mode=evaluate',
      '--config.eval.evaluators=("scores",)', *SCORED,
  )
  code, output = run_main_here(
      *flags, '--config.eval.seed=5', tiny=False
  )
  assert code == 0, output
  whole = folder / 'evaluation' / 'heldout_step_6_seed_5'
  copy = tmp_path / 'copy'
  whole.rename(copy)
  rng = random.Random(3)
  for _ in range(3):
    process = start_main(*flags, '--config.eval.seed=5', tiny=False)
    wanted = len(list(whole.glob('*/chunk_*'))) + rng.randint(1, 2)
    until(functools.partial(has_chunks, whole, wanted), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
  assert not (whole / 'report.json').exists()
  first = {p: p.stat().st_mtime_ns for p in whole.glob('samples_*/chunk_*')}
  assert first
  code, output = run_main_here(*flags, '--config.eval.seed=5', tiny=False)
  assert code == 0, output
  for path, when in first.items():  # none is made twice
    assert path.stat().st_mtime_ns == when
  assert samples_of(whole) == samples_of(copy)
  assert sorted(samples_of(whole)) == [*range(24)]
  assert scores_of(whole) == scores_of(copy)


@pytest.fixture
def videos(tmp_path):
  """name -> a folder with four films of 9 frames."""
  def make(name, *, frames=9, size=(16, 16), count=4, seed=0):
    rng = np.random.default_rng(seed)
    (tmp_path / name).mkdir()
    for i in range(count):
      film = rng.integers(0, 256, (frames, *size, 3), np.uint8)
      media.write_mp4(tmp_path / name / f'{i}.mp4', film, fps=8)
    return tmp_path / name

  return make


def score_folders(run_main_here, samples, reference, *flags):
  return run_main_here(
      '--mode=evaluate', f'--samples={samples}', f'--reference={reference}',
      f'--workdir={samples}/../out', '--config.eval.metrics=("flicker",)',
      '--config.eval.frames=9', *flags, tiny=False,
  )


def test_folders_are_scored_without_a_run(videos, run_main_here, tmp_path):
  a, b = videos('a'), videos('b', seed=1)
  (a / 'broken.mp4').write_bytes(b'no video')
  code, output = score_folders(run_main_here, a, b)
  assert code == 0, output
  report = json.loads((tmp_path / 'out' / 'report.json').read_text())
  assert report['protocol']['samples: videos'] == 4
  [skipped] = [t for t in report['tables'] if 'not counted' in t['title']]
  assert skipped['rows'][0][:2] == ['samples', 'broken.mp4']
  assert (tmp_path / 'out' / 'report.html').exists()


def test_folders_that_cannot_be_scored_are_a_sentence(videos, run_main_here):
  good = videos('good')
  (good / '..' / 'empty').mkdir()
  for samples, reference, flags, sentence in (
      (good, good / '..' / 'empty', (), 'holds 0 videos of at least 9 frames'),
      (videos('one', count=1), good, (), 'holds 1 videos'),
      (videos('short', frames=8), good, (), '0.mp4 (it has 8 frames)'),
      (videos('small', size=(16, 32)), good, (), 'bring them to one size'),
      (good / 'nothing', good, (), 'which is no folder'),
      (good, good, ('--config.eval.frames=8',), 'needs at least 9'),
      (good, good, ('--config.eval.protocol=fvd',), "eval.protocol is 'fvd'"),
      (good, good, ('--config.eval.metrics=("fid",)',), "holds 'fid'"),
  ):
    code, output = score_folders(run_main_here, samples, reference, *flags)
    assert code == 1 and 'Traceback' not in output, output
    assert sentence in output, output
  code, output = run_main_here(
      '--mode=evaluate', f'--samples={good}', tiny=False
  )
  assert code == 1 and '--samples is given without --reference' in output
