"""Old names of fields: read in an old run, elsewhere refused."""
import json

from etils import epath
import pytest

from video_diffusion.config import defaults
from video_diffusion.config import fields
from video_diffusion.config import flags
from video_diffusion.config import renamed
from video_diffusion.config import run_dir
from video_diffusion.config import saved_config
from video_diffusion.errors import UserError


def test_the_table_leads_from_unknown_fields_to_known_ones():
  known = saved_config.flatten(fields.types())
  assert renamed.FIELDS
  for old, new in renamed.FIELDS.items():
    assert old not in known and new in known


@pytest.mark.parametrize('arguments', [
    ['--config.sample.num_clips=4'],
    ['--config.sample.num_clips', '4'],
    ['-config.sample.num_clips=4'],
    # Other flags are wrong as well; the old name is answered first.
    ['--mode=nope', '--config=nowhere.py', '--config.sample.num_clips=4'],
])
def test_an_old_name_on_the_command_line_is_answered_first(arguments):
  with pytest.raises(SystemExit) as error:
    flags.parse(['main', *arguments])
  assert error.value.code == (
      'video_diffusion: --config.sample.num_clips has been renamed; use '
      '--config.sample.num_videos instead.'
  )


def test_what_follows_two_dashes_is_no_flag():
  assert list(renamed.flag_names(['--a', '--', '--config.sample.x=1'])) == []


def test_an_old_name_in_a_config_file_or_a_call_is_refused(tmp_path):
  config = defaults.get_config()
  config.sample.init_video = 'a.mp4'
  with pytest.raises(UserError, match='^sample.init_video has been renamed; '
                     'use sample.video instead.$'):
    fields.check(config)
  workdir = epath.Path(tmp_path)
  run_dir.claim(defaults.get_config(), workdir, '')
  with pytest.raises(UserError, match='--config.sample.num_clips has been ren'):
    saved_config.load({'sample.num_clips': 4}, workdir, ('sample',))


def save_old(workdir, **more):
  """A run of an earlier version, as it wrote config.json."""
  run_dir.claim(defaults.get_config(), workdir, '')
  file = workdir / 'config.json'
  saved = json.loads(file.read_text())
  for name in ('num_videos', 'video'):
    del saved['sample'][name]
  saved['sample'] |= {'num_clips': 7, 'init_video': '/theirs.mp4'} | more
  file.write_text(json.dumps(saved))


def test_an_old_run_is_read_with_the_new_names(tmp_path, caplog):
  workdir = epath.Path(tmp_path)
  save_old(workdir)
  got = saved_config.load({}, workdir, ())
  assert got.sample.num_videos == 7 and 'num_clips' not in got.sample
  assert 'does not have' not in caplog.text
  # A file that only the run names is not opened, whatever the field's name.
  assert got.sample.video == ''
  with caplog.at_level('INFO'):
    saved_config.tell_places({}, workdir)
  assert "names sample.video '/theirs.mp4', which is not used" in caplog.text
  given = saved_config.load({'sample.num_videos': 2}, workdir, ('sample',))
  assert given.sample.num_videos == 2
  (workdir / 'weights').mkdir()
  run_dir.claim(defaults.get_config(), workdir, '')  # the training goes on


def test_a_field_by_both_names_is_one_sentence(tmp_path):
  workdir = epath.Path(tmp_path)
  save_old(workdir, num_videos=3)
  with pytest.raises(UserError, match='config.json: sample.num_clips has been '
                     r'renamed to sample.num_videos, and both are set \(to 7 '
                     r'and 3\); remove sample.num_clips.$'):
    saved_config.load({}, workdir, ())


@pytest.mark.parametrize('sample', [None, [], 3])
def test_a_damaged_group_is_left_to_the_check_of_types(sample):
  assert renamed.with_new_names({'sample': sample}) == {'sample': sample}
