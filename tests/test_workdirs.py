import json

from etils import epath
import pytest

from video_diffusion import default_config
from video_diffusion import workdirs


def config(**fields):
  c = default_config.get_config()
  for name, value in fields.items():
    c[name] = value
  return c


def test_a_workdir_belongs_to_one_run(tmp_path):
  workdir = epath.Path(tmp_path / 'run')
  workdirs.claim(config(batch_size=512), workdir, '')
  # That batch did not fit: nothing came of it, and another may be tried.
  workdirs.claim(config(), workdir, '')
  (workdir / 'checkpoints' / '5').mkdir(parents=True)
  free = config()
  free.sample.num_steps, free.log.every, free.checkpoint.every = 9, 9, 9
  free.train.steps, free.eval.num_clips, free.data.loader = 9, 9, 'threads'
  free.model.remat = (64,)
  workdirs.claim(free, workdir, '')
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['train']['steps'] == 9
  for name in ('seed', 'batch_size', 'data.frames', 'model.dropout',
               'diffusion.prediction', 'optim.lr'):
    other = config()
    holder = other
    *groups, field = name.split('.')
    for group in groups:
      holder = holder[group]
    holder[field] = 'v' if field == 'prediction' else 3
    with pytest.raises(ValueError, match=f'another {name} '):
      workdirs.claim(other, workdir, '')
  with pytest.raises(ValueError, match='was trained on other data'):
    workdirs.claim(config(), workdir, 'other data')


def mixed(**fields):
  c = config()
  c.data.mixture.more = dict(
      name='video_folder', path='/a', dir='/b', clip_frames=9
  )
  c.data.mixture.more.update(fields)
  return c


def test_a_mixture_comes_back_and_only_its_places_may_change(tmp_path):
  workdir = epath.Path(tmp_path)
  workdirs.claim(mixed(), workdir, '')
  (workdir / 'metrics.jsonl').touch()
  workdirs.claim(mixed(path='/c', dir='/d'), workdir, '')
  with pytest.raises(ValueError, match=r'data.mixture.more.clip_frames \(9'):
    workdirs.claim(mixed(clip_frames=8), workdir, '')
  with pytest.raises(ValueError, match='another data.mixture.more.clip_frames'):
    workdirs.claim(config(), workdir, '')
  call = {'data.mixture.more.path': '/e'}
  got = workdirs.saved_config(call, workdir, ('sample',))
  want = mixed(path='/e', dir='/d').data
  assert got.data.to_dict() == want.to_dict()
  assert got.data.frameskips == (1,)
  with pytest.raises(ValueError, match='data.mixture.more.weight cannot be'):
    workdirs.saved_config({'data.mixture.more.weight': 2}, workdir, ())


def test_a_run_from_before_a_field_goes_on_with_its_default(tmp_path):
  workdir = epath.Path(tmp_path)
  workdirs.claim(config(), workdir, '')
  (workdir / 'weights').mkdir()
  old = json.loads((workdir / 'config.json').read_text())
  del old['data']['frameskips'], old['data']['mixture']
  (workdir / 'config.json').write_text(json.dumps(old))
  workdirs.claim(config(), workdir, '')
  (workdir / 'config.json').write_text(json.dumps(old))
  other = config()
  other.data.frameskips = (2,)
  with pytest.raises(ValueError, match='another data.frameskips'):
    workdirs.claim(other, workdir, '')


def test_a_workdir_that_cannot_be_used_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='file cannot be written'):
    workdirs.claim(config(), epath.Path(tmp_path / 'file'), '')
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(ValueError, match='config.json cannot be read'):
    workdirs.claim(config(), epath.Path(tmp_path), '')


def test_sampling_takes_the_config_of_the_run(tmp_path):
  workdir = epath.Path(tmp_path)
  with pytest.raises(ValueError, match='holds no run'):
    workdirs.saved_config({}, workdir, ('sample',))
  trained = config(seed=3)
  trained.model.base_channels = 32
  trained.sample.gamma = 0.7
  workdirs.claim(trained, workdir, '')
  call = {'sample.num_steps': 7, 'data.loader': 'threads'}
  got = workdirs.saved_config(call, workdir, ('sample',))
  assert (got.seed, got.model.base_channels) == (3, 32)
  assert (got.sample.num_steps, got.sample.gamma) == (7, 0.7)
  assert got.data.loader == 'threads'
  assert got.model.channel_mults == (1, 2, 4, 8)
  for name in ('model.base_channels', 'seed', 'eval.num_clips'):
    with pytest.raises(ValueError, match=f'--config.{name} cannot be set'):
      workdirs.saved_config({name: 1}, workdir, ('sample',))


def test_a_workdir_that_is_the_data_is_refused(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path)
  for path in (tmp_path, tmp_path / 'link', tmp_path / 'runs' / '..'):
    (tmp_path / 'runs').mkdir(exist_ok=True)
    with pytest.raises(ValueError, match='is data.mixture.more.path: samples'):
      workdirs.require_apart(mixed(path=str(path)), epath.Path(tmp_path))
  workdirs.require_apart(
      mixed(path=str(tmp_path)), epath.Path(tmp_path / 'runs' / 'x')
  )


def test_a_fingerprint_of_the_old_form_is_accepted_once(tmp_path, caplog):
  workdir = epath.Path(tmp_path)
  old, new = '0123456789abcdef', 'sha256:1'
  workdirs.claim(config(), workdir, f'{old}-sha256:2-')
  (workdir / 'metrics.jsonl').touch()
  workdirs.claim(config(), workdir, f'{new}-sha256:2-')
  assert sum('is of the old form' in line for line in caplog.messages) == 1
  workdirs.claim(config(), workdir, f'{new}-sha256:2-')
  assert len(caplog.messages) == 1
  for other in (f'{old}-sha256:2-', f'{new}-sha256:3-', new, '', 'sha256:1--'):
    with pytest.raises(ValueError, match='was trained on other data: since'):
      workdirs.claim(config(), workdir, other)
