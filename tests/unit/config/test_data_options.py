import json

from etils import epath
import pytest

from video_diffusion.config import data_options
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import fields
from video_diffusion.config import run_dir
from video_diffusion.config import saved_config
from video_diffusion.data import datasets
from video_diffusion.errors import UserError


def short_config():
  """A config that names data sets, and gives one option."""
  config = defaults_lib.get_config()
  config.data.mixture.own = dict(name='video_folder', clip_frames=9)
  config.data.image_mixture.digits = dict(name='mnist')
  return config.lock()


def test_options_that_are_left_out_have_their_defaults():
  data = data_options.complete(short_config()).data
  assert (data.radius, data.heldout_pairs) == (0.15, ())
  own = data.mixture.own
  assert (own.clip_frames, own.short_clips, own.fps) == (9, 'drop', 0.0)
  assert data.image_mixture.digits.train_split == 'train'
  for each in (data, own, data.image_mixture.digits):
    assert datasets.options_of(each.name).keys() <= {*each.keys()}


def test_the_config_of_a_run_is_whole(tmp_path):
  run_dir.claim(short_config(), epath.Path(tmp_path), '')
  data = json.loads((tmp_path / 'config.json').read_text())['data']
  assert data['heldout_pairs'] == [] and data['radius'] == 0.15
  assert data['mixture']['own']['keep_cache'] is True
  # The same whether the options are given or left out.
  (tmp_path / 'metrics.jsonl').touch()
  given = data_options.complete(short_config())
  run_dir.claim(given, epath.Path(tmp_path), '')


def test_a_run_of_before_keeps_its_epochs(tmp_path):
  """Its config.json does not say what they run over: then it was clips."""
  workdir = epath.Path(tmp_path)
  config = data_options.complete(short_config())
  run_dir.claim(config, workdir, '')
  (workdir / 'metrics.jsonl').touch()
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['data']['mixture']['own'].pop('epoch') == 'windows'
  (workdir / 'config.json').write_text(json.dumps(saved))
  again = saved_config.read(workdir)['data']['mixture']['own']
  assert again['epoch'] == 'clips'
  with pytest.raises(UserError, match=(
      r"data.mixture.own.epoch \('clips' there, 'windows' now\); pass another "
      '--workdir, or the fields of that run'
  )):
    run_dir.claim(config, workdir, '')
  config.data.mixture.own.epoch = 'clips'
  run_dir.claim(config, workdir, '')


@pytest.mark.parametrize('epoch', ['', 'window', 'videos|clips'])
def test_an_epoch_runs_over_something_known(epoch):
  config = data_options.complete(short_config())
  config.data.mixture.own.epoch = epoch
  with pytest.raises(UserError, match=(
      r"own.epoch is .*; it must be one of \('windows', 'videos', 'clips'\)"
  )):
    fields.check(config)


def test_an_unknown_data_set_is_left_to_the_checks():
  config = defaults_lib.get_config()
  config.data.name = 'imagenet'
  assert data_options.complete(config) == config.copy_and_resolve_references()
  assert 'radius' not in config.data


def test_options_of_one_name_have_one_type_and_the_same_bounds():
  seen = {}
  for name in datasets.NAMES:
    for key, option in datasets.options_of(name).items():
      assert isinstance(option.default, option.kind), (name, key)
      rule = option._replace(default=None)
      assert seen.setdefault(key, rule) == rule, (name, key)
