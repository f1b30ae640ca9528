"""Several data sets in one config, and modes that run on them."""
import json

import jax
import numpy as np
import pytest

from video_diffusion.config import build
from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import inputs
from video_diffusion.config import validate
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.models import conditioning as conditioning_models
from video_diffusion.parallel import collectives
from video_diffusion.parallel import sharding

DRAWN = dict(
    train_clips=40, test_clips=5, radius=0.2, speed=0.02, bounce=False,
    heldout_pairs=(),
)


def config():
  c = defaults_lib.get_config()
  c.data.update(DRAWN)
  c.data.mixture.other = DRAWN | dict(name='moving_shapes', weight=3)
  c.data.frames, c.data.height, c.data.width = 3, 8, 8
  c.model.attention_resolutions = (8,)
  c.eval.num_clips = c.eval.batch_size = 16
  return c


def test_a_config_with_several_data_sets_is_one_source():
  c = config()
  c.data.mixture.other.speed = 0.03
  # The videos' own data set again: one source, so its videos are avoided.
  other = c.data.mixture.other.to_dict()
  c.data.image_mixture.same = other
  c.data.image_mixture.stills = other | dict(radius=0.3, weight=2.0)
  mixture = inputs.make_source(c, 'train')
  assert mixture.num_examples == 80
  assert [s.speed for s in mixture.sources] == [0.02, 0.03]
  assert mixture.images.sources[0] is mixture.sources[1]
  assert mixture.images.sources[1].num_frames == 1
  assert inputs.label_sizes(mixture) == shapes.LABEL_SIZES
  assert [mixture.place(i)[0] for i in range(4)].count(1) == 3
  assert inputs.synthetic(c)
  c.data.mixture.other.name = 'video_folder'
  assert not inputs.synthetic(c)


def test_heldout_batches_and_labels_are_of_the_mixture():
  c = config()
  c.data.mixture.other.speed = 0.03
  heldout = inputs.make_source(c, 'test')
  batch, = inputs.heldout_batches(c, heldout)
  assert batch['video'].shape == (16, 3, 8, 8, 3)
  c.model.cond_dim, c.sample.num_videos = 4, 10
  model = build.make_model(c, inputs.label_sizes(heldout))
  conditioner = inputs.make_conditioner(c, model, heldout, None)
  np.testing.assert_array_equal(
      conditioner(10).arrays['labels'], batch['labels'][:10]
  )
  assert heldout.distinct(16) == 4 + 5
  device = collectives.global_batch(batch, sharding.make_mesh())
  assert device.keys() == {'video', 'labels'}


def test_one_data_set_stays_a_plain_source():
  c = config()
  del c.data.mixture.other
  assert isinstance(inputs.make_source(c, 'test'), shapes.MovingShapes)
  c.data.frameskips = (1, 2)
  assert inputs.make_source(c, 'test').num_frames == 5


@pytest.mark.parametrize(
    'field, value, sentence',
    [
        ('name', 'nope', "data.mixture.other.name is 'nope'"),
        ('name', 'video_folder', 'no option data.mixture.other.bounce, '),
        ('colour', 1, 'data.mixture.other.colour'),
        ('weight', 0.0, 'data.mixture.other.weight is 0.0'),
        ('weight', 'much', "data.mixture.other.weight is 'much'"),
        ('radius', 0.9, 'data.mixture.other.radius 0.9'),
        ('heldout_pairs', ('red',), 'data.mixture.other.heldout_pairs'),
    ],
)
def test_a_bad_member_is_one_sentence_that_names_its_field(
    field, value, sentence
):
  c = config()
  with c.ignore_type():
    c.data.mixture.other[field] = value
  with pytest.raises(ValueError) as error:
    validate.check(c, 'inspect')
    inputs.make_source(c, 'train')
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_more_checks():
  for frameskips in ((), (0,), (1, 1.5)):
    c = config()
    with c.ignore_type():
      c.data.frameskips = frameskips
    with pytest.raises(ValueError, match='data.frameskips'):
      validate.check(c, 'inspect')
  c = config()
  c.data.flip, c.data.name = True, 'ucf101'
  with pytest.raises(ValueError, match='data.mixture.other.name is moving_sh'):
    validate.check(c, 'inspect')
  c = config()
  del c.data.mixture.other['name']
  with pytest.raises(ValueError, match='data.mixture.other has no field name'):
    validate.check(c, 'inspect')


MIXED = '''
import runpy

def get_config():
  config = runpy.run_path('configs/moving_shapes.py')['get_config']()
  fields = dict(name='moving_shapes', train_clips=20, test_clips=5, radius=0.2,
                speed=0.02, bounce=False, heldout_pairs=(), weight=1.0)
  config.data.mixture.other = fields
  config.data.image_mixture.stills = dict(fields, weight=2.0, radius=0.3)
  config.data.frameskips = (1, 2)
  return config
'''


def test_a_mixture_trains_and_is_evaluated(run_main, tiny_flags, tmp_path):
  (tmp_path / 'mixed.py').write_text(MIXED)
  workdir = tmp_path / 'run'
  few = (
      f'--config={tmp_path / "mixed.py"}', f'--workdir={workdir}', *tiny_flags,
      '--config.train.steps=2',
      '--config.data.loader=threads', '--config.data.mixture.other.weight=3.0',
  )
  code, output = run_main(*few, tiny=False)
  assert code == 0, output
  saved = json.loads((workdir / 'config.json').read_text())['data']
  assert saved['mixture']['other']['weight'] == 3.0
  assert saved['image_mixture']['stills']['radius'] == 0.3
  assert (workdir / 'samples' / 'step_2.gif').exists()
  code, output = run_main('--mode=evaluate', f'--workdir={workdir}', tiny=False)
  assert code == 0, output
  result = json.loads((workdir / 'evaluation.json').read_text())
  assert result['data'] == 'moving_shapes + moving_shapes'
  # 16 windows: 4 of `data`, 12 of the 5 held-out clips of the other.
  assert (result['windows'], result['clips']) == (16, 4 + 5)


def test_clips_must_have_what_conditions_the_network(monkeypatch):
  class Speeds(conditioning_models.LabelEncoder):

    def arrays(self):
      return {'speed': jax.ShapeDtypeStruct((), 'float32')}

  monkeypatch.setitem(conditioning_models.KINDS, 'speed', Speeds)
  c = config()
  c.model.cond_dim, c.model.conditioning = 4, 'speed'
  source = inputs.make_source(c, 'train')
  with pytest.raises(
      UserError, match="^model.conditioning is 'speed', but .* have no speed"
  ):
    inputs.require_arrays(c, build.make_model(c), source)
  c.model.conditioning = 'labels'
  sizes = inputs.label_sizes(source)
  inputs.require_arrays(c, build.make_model(c, sizes), source)
  with pytest.raises(UserError, match='the network was trained with .9,.'):
    inputs.require_arrays(c, build.make_model(c, (9,)), source)
