"""Runs that an earlier version trained: they go on, and they are sampled."""
import json
import shutil

import numpy as np
import pytest

from tests.support import old_runs

for module in ('PIL', 'av', 'tensorflow_datasets', 'array_record'):
  pytest.importorskip(module)


@pytest.fixture(params=sorted(old_runs.FLAGS))
def run(request, tmp_path, monkeypatch):
  """(its name, its folder, the flags that trained it); the videos it saw."""
  old_runs.write_videos(tmp_path / 'videos')
  # Its flags name configs/ and videos/.
  (tmp_path / 'configs').symlink_to(old_runs.ROOT / 'configs')
  monkeypatch.chdir(tmp_path)
  name = request.param
  return name, old_runs.unpack(name, tmp_path), old_runs.FLAGS[name]


def logged(path):
  """{(step, name): value} of what a run has logged of its losses."""
  return {
      (line['step'], name): value
      for line in map(json.loads, path.read_text().splitlines())
      for name, value in line.items()
      if name in ('loss', 'grad_norm', 'heldout_loss/raw', 'heldout_loss/ema')
  }


def test_training_continues_as_it_did_then(run, run_main_here):
  """Parameters, moments, EMA, data and noise are those of that version."""
  name, folder, flags = run
  code, output = run_main_here(
      *flags, f'--workdir={folder}', '--config.train.steps=4', tiny=False
  )
  assert code == 0 and 'from step 2' in output, output
  # The form of its fingerprint is known, and said once.
  assert output.count('of the old form') == (name == 'folder')
  then = logged(old_runs.STORED / f'{name}_continued.jsonl')
  now = logged(folder / 'metrics.jsonl')
  assert len(then) == 6
  # Not to the bit: which instructions a CPU has decides how XLA adds.
  for key, value in then.items():
    assert now[key] == pytest.approx(value, rel=1e-5), key


@pytest.mark.parametrize('without', ['checkpoints', 'weights'])
def test_samples_are_those_of_that_version(run, run_main_here, without):
  name, folder, _ = run
  shutil.rmtree(folder / without)
  code, output = run_main_here(
      '--mode=sample', f'--workdir={folder}', tiny=False
  )
  assert code == 0, output
  with np.load(folder / 'samples' / 'step_2_seed_0' / 'samples.npz') as now:
    with np.load(old_runs.STORED / f'{name}_samples.npz') as then:
      assert now['video'].std() > 10
      # Rounding to whole numbers may fall to either side.
      np.testing.assert_allclose(
          now['video'].astype(int), then['video'].astype(int), atol=1
      )
      if name == 'shapes':
        np.testing.assert_array_equal(now['labels'], then['labels'])
