"""Mirrored clips and words that name a side; clips without a caption."""
import logging

import numpy as np
import pytest

from tests.unit.data.builders import test_video_folder
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import inputs
from video_diffusion.data import records
from video_diffusion.data import sides
from video_diffusion.errors import UserError


@pytest.mark.parametrize('text', [
    'a ball moves left', 'RIGHT', 'the upper-right corner', 'left-to-right',
    'it drifts rightwards.', 'leftward', 'Clockwise', 'anti-clockwise',
    'a counterclockwise turn', 'turn_left', 'TurnLeft', 'LeftTurn', '3_right',
    'a left-handed batter', 'a righthander', 'the leftmost of three',
    'bottomright', 'all right', "the left's", 'nach rechts', 'à droite',
    '向左移动', 'мяч летит вправо',
])
def test_words_that_name_a_side(text):
  assert sides.find(['a red ball', text, text]) == (2, text)


@pytest.mark.parametrize('text', [
    '', 'a bright cleft', 'upright', 'a copyright notice', 'lefse', 'theft',
    'the clock', 'frightened', 'righteous', 'a wright', 'MacBright', 'XLEFTX',
])
def test_words_that_name_none(text):
  assert sides.find([text]) == (0, '')


def test_an_example_shows_the_word():
  found = sides.find(['word ' * 1000 + 'left' + ' word' * 1000])
  assert ' left ' in found.example and len(found.example) <= 4 + 2 * 60


@pytest.fixture(name='folder')
def captioned_folder(tmp_path):
  """Three videos, two of them with captions, one of which names a side."""
  folder = tmp_path / 'videos'
  for i, name in enumerate(['turn_left/a.gif', 'turn_left/b.gif', 'up/c.gif']):
    test_video_folder.write_gif(folder / name, 4, 20 * i)
  (folder / 'captions.csv').write_text(
      'file,caption\nturn_left/a.gif,a ball\nup/c.gif,it moves Right\n'
  )
  return folder


def config(folder, tmp_path, **fields):
  c = defaults_lib.get_config()
  c.data.update(dict(
      name='video_folder', path=str(folder), dir=str(tmp_path / 'data'),
      clip_frames=4, fps=0.0, short_clips='drop', classes=False,
      keep_cache=True, frames=2, height=8, width=8,
  ))
  with c.unlocked():
    c.update_from_flattened_dict(fields)
  return c


CAPTIONS = (
    'data.flip is set, but a mirrored clip contradicts 1 of the captions of '
    "{}, which name a side, for instance 'it moves Right'; set data.flip=False."
)
CLASSES = (
    'data.flip is set, but a mirrored clip contradicts 1 of the classes of '
    "data, which name a side, for instance 'turn_left'; set data.flip=False."
)


@pytest.mark.parametrize('fields, refused, warned', [
    ({'text.encoder': 'table'}, [CAPTIONS.format('data')], []),
    ({}, [], [CAPTIONS.format('data')]),
    ({'data.classes': True, 'model.cond_dim': 8}, [CLASSES],
     [CAPTIONS.format('data')]),
    ({'data.classes': True}, [], [CAPTIONS.format('data'), CLASSES]),
    ({'text.encoder': 'table', 'data.flip': False}, [], []),
])
def test_mirrored_clips_do_not_contradict_their_condition(
    folder, tmp_path, caplog, fields, refused, warned
):
  c = config(folder, tmp_path, **{'data.flip': True, **fields})
  try:
    inputs.make_source(c, 'train')
    said = []
  except UserError as error:
    said = [str(error)]
  assert said == refused
  found = [m for m in caplog.messages if m.startswith('data.flip')]
  assert found == [
      f'{sentence} The run is not conditioned on them.' for sentence in warned
  ]


@pytest.mark.parametrize('group', ['mixture', 'image_mixture'])
def test_a_mixture_names_the_data_set(folder, tmp_path, group):
  other = tmp_path / 'other'
  test_video_folder.write_gif(other / 'a.gif', 4)
  (other / 'captions.csv').write_text('file,caption\na.gif,a ball\n')
  c = config(other, tmp_path, **{'data.flip': True, 'text.encoder': 'table'})
  inputs.make_source(c, 'train')
  fields = {
      name: c.data[name] for name in (
          'name', 'dir', 'clip_frames', 'fps', 'short_clips', 'classes',
          'keep_cache',
      )
  }
  c.data[group].more = fields | {'path': str(folder)}
  with pytest.raises(UserError) as error:
    inputs.make_source(c, 'train')
  assert str(error.value) == CAPTIONS.format(f'data.{group}.more')
  inputs.make_source(c, 'test')  # nothing is mirrored there


def test_clips_without_a_caption_are_told(folder, tmp_path, caplog):
  sentence = (
      'data has clips without a caption, 1 in both splits together; the run '
      'trains on them without a condition.'
  )
  with caplog.at_level(logging.WARNING):
    inputs.make_source(config(folder, tmp_path), 'train')
    assert sentence not in caplog.messages
    c = config(folder, tmp_path, **{'text.encoder': 'table'})
    inputs.make_source(c, 'train')
  assert sentence in caplog.messages


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_run_with_text_needs_captions(folder, tmp_path, split):
  """Preparation says so already."""
  (folder / 'captions.csv').unlink()
  inputs.make_source(config(folder, tmp_path), split)
  c = config(folder, tmp_path, **{'text.encoder': 'table'})
  with pytest.raises(UserError) as error:
    inputs.make_source(c, split)
  assert str(error.value) == (
      "text.encoder is 'table', but the clips of data have no captions; a "
      'folder has them in captions.jsonl or captions.csv.'
  )


def test_older_records_are_read_for_their_sides(folder, tmp_path):
  source = inputs.make_source(config(folder, tmp_path), 'train')
  assert source.sides() == (1, 'it moves Right')
  del source._report['captions_naming_sides']
  assert isinstance(source, records.VideoRecords)
  assert source.sides() == sides.find(source.captions())
  assert np.sum([bool(text) for text in source.captions()]) >= 1
