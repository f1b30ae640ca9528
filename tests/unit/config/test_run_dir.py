"""Whose folder a run is, and what may be written there."""
import json
import os

from etils import epath
import pytest

from tests.support.configs import config
from tests.support.configs import mixed
from video_diffusion.config import run_dir
from video_diffusion.errors import UserError


def test_a_workdir_belongs_to_one_run(tmp_path):
  workdir = epath.Path(tmp_path / 'run')
  run_dir.claim(config(batch_size=512), workdir, '')
  # That batch did not fit: nothing came of it, and another may be tried.
  run_dir.claim(config(), workdir, '')
  (workdir / 'checkpoints' / '5').mkdir(parents=True)
  free = config()
  free.sample.num_steps, free.log.every, free.checkpoint.every = 9, 9, 9
  free.train.steps, free.eval.num_clips, free.data.loader = 9, 9, 'threads'
  free.model.remat = (64,)
  run_dir.claim(free, workdir, '')
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['train']['steps'] == 9
  for name in ('seed', 'batch_size', 'data.frames', 'model.dropout',
               'diffusion.prediction', 'extension.next_frames', 'optim.lr'):
    other = config()
    holder = other
    *groups, field = name.split('.')
    for group in groups:
      holder = holder[group]
    holder[field] = 'v' if field == 'prediction' else 3
    for refuse in (run_dir.require_same, lambda *run: run_dir.claim(*run, '')):
      with pytest.raises(ValueError, match=f'another {name} '):
        refuse(other, workdir)
  with pytest.raises(ValueError, match='was trained on other data'):
    run_dir.claim(config(), workdir, 'other data')
  run_dir.require_same(config(), workdir)


def test_a_run_from_before_a_field_goes_on_with_its_default(tmp_path):
  workdir = epath.Path(tmp_path)
  run_dir.claim(config(), workdir, '')
  (workdir / 'weights').mkdir()
  old = json.loads((workdir / 'config.json').read_text())
  del old['data']['frameskips'], old['data']['mixture'], old['extension']
  (workdir / 'config.json').write_text(json.dumps(old))
  run_dir.claim(config(), workdir, '')
  (workdir / 'config.json').write_text(json.dumps(old))
  other = config()
  other.data.frameskips = (2,)
  with pytest.raises(ValueError, match='another data.frameskips'):
    run_dir.claim(other, workdir, '')


def test_a_workdir_that_cannot_be_used_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='file cannot be written'):
    run_dir.claim(config(), epath.Path(tmp_path / 'file'), '')
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(ValueError, match='config.json is no valid JSON .line 1'):
    run_dir.claim(config(), epath.Path(tmp_path), '')


def test_a_workdir_that_is_the_data_is_refused(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path)
  for path in (tmp_path, tmp_path / 'link', tmp_path / 'runs' / '..'):
    (tmp_path / 'runs').mkdir(exist_ok=True)
    with pytest.raises(ValueError, match='is data.mixture.more.path: samples'):
      run_dir.require_apart(mixed(path=str(path)), epath.Path(tmp_path))
  run_dir.require_apart(
      mixed(path=str(tmp_path)), epath.Path(tmp_path / 'runs' / 'x')
  )


def test_a_fingerprint_of_the_old_form_is_accepted_once(tmp_path, caplog):
  workdir = epath.Path(tmp_path)
  old, new = '0123456789abcdef', 'sha256:1'
  run_dir.claim(config(), workdir, f'{old}-sha256:2-')
  (workdir / 'metrics.jsonl').touch()
  run_dir.claim(config(), workdir, f'{new}-sha256:2-')
  assert sum('is of the old form' in line for line in caplog.messages) == 1
  run_dir.claim(config(), workdir, f'{new}-sha256:2-')
  assert len(caplog.messages) == 1
  for other in (f'{old}-sha256:2-', f'{new}-sha256:3-', new, '', 'sha256:1--'):
    with pytest.raises(ValueError, match='was trained on other data: since'):
      run_dir.claim(config(), workdir, other)


@pytest.mark.parametrize('link', [
    'samples', 'samples/step_1_seed_0', 'samples/step_1_seed_0/blocks_0',
    'samples/step_1_seed_0/clip_0000.mp4',
])
def test_nothing_is_written_through_a_link_out_of_the_run(tmp_path, link):
  run, other = tmp_path / 'run', tmp_path / 'home'
  other.mkdir()
  path = run / link
  path.parent.mkdir(parents=True)
  folder = run / 'samples' / 'step_1_seed_0'
  run_dir.require_own(epath.Path(folder), epath.Path(run))
  os.symlink(other, path)
  with pytest.raises(UserError, match=f'is a link to {other}.*, out of'):
    run_dir.require_own(epath.Path(folder), epath.Path(run))
  # A run that lies behind a link as a whole is the person's own choice.
  path.unlink()
  os.symlink(run, tmp_path / 'mine')
  mine = epath.Path(tmp_path / 'mine')
  run_dir.require_own(mine / 'samples' / 'step_1_seed_0', mine)
