import math

import pytest

from video_diffusion.config import defaults as defaults_lib
from video_diffusion.config import validate


def config(**fields):
  c = defaults_lib.get_config()
  for name, value in fields.items():
    c[name] = value
  return c


@pytest.mark.parametrize(
    'name, value, sentence',
    [
        ('data.images', -1, 'data.images is -1'),
        ('model.channel_mults', (), 'model.channel_mults is ()'),
        ('model.base_channels', 7, 'model.base_channels is 7'),
        ('model.dropout', 1.5, 'model.dropout is 1.5'),
        ('diffusion.cond_drop', -0.1, 'diffusion.cond_drop is -0.1'),
        ('diffusion.logsnr_min', 30.0, 'diffusion.logsnr_min must be below'),
        ('data.flip', True, 'data.flip is set'),
        ('checkpoint.export', 'int8', "checkpoint.export is 'int8'"),
        ('sample.num_steps', 0, 'sample.num_steps is 0'),
        ('sample.guidance_weight', -2.0, 'must be at least -1'),
        ('sample.guidance_weight', math.nan, 'sample.guidance_weight is nan'),
        ('sample.guidance_weight', math.inf, 'inf; it must be finite'),
        ('text.dtype', 'float16', "text.dtype is 'float16'"),
        ('data.loader', 'grain', "data.loader is 'grain'"),
    ],
)
def test_every_bad_field_is_one_sentence(name, value, sentence):
  c = config()
  group, field = name.split('.')
  c[group][field] = value
  with pytest.raises(ValueError) as error:
    validate.check(c)
  assert sentence in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'patch_size, attention, sentence',
    [
        (2, (4, 8, 16), None),
        (2, (64,), 'the levels have (32, 16, 8, 4)'),
        (16, (4,), 'with 4 levels and model.patch_size 16 it must divide by'),
        (3, (8,), 'data.height is 64; with 4 levels and model.patch_size 3'),
    ],
)
def test_patches_shrink_the_levels(patch_size, attention, sentence):
  c = config()
  c.model.patch_size = patch_size
  c.model.attention_resolutions = attention
  if sentence is None:
    validate.check(c)
    return
  with pytest.raises(ValueError) as error:
    validate.check(c)
  assert sentence in str(error.value)


def test_the_defaults_pass():
  validate.check(config())


@pytest.mark.parametrize(
    'name, value, sentence',
    [
        ('optim.clip_norm', 0.0, 'optim.clip_norm must be above 0'),
        ('optim.beta1', 1.5, 'optim.beta1 is 1.5'),
        ('optim.ema_decay', 2.0, 'optim.ema_decay is 2.0'),
        ('sample.frames', -1, 'sample.frames is -1'),
        ('sample.fps', 0.0, 'sample.fps is 0.0'),
        ('model.emb_dim', 0, 'model.emb_dim is 0'),
        ('model.channel_mults', (1, 0), 'model.channel_mults is (1, 0)'),
        ('eval.num_clips', 100, 'eval.num_clips is 100; it must divide by'),
        ('train.max_minutes', -1.0, 'train.max_minutes is -1.0'),
        ('distill.teacher', 'runs/a', 'goes with --mode=distill'),
        ('distill.num_steps', 4, 'is set without distill.teacher; --mode=dis'),
        ('distill.teacher_prediction', 'eps', 'set without distill.teacher'),
        ('model.conditioning', 'text', "one of ('labels',)"),
        ('sample.clip', 'soft', "sample.clip is 'soft'"),
        ('diffusion.logsnr_min', -30.0, 'within [-20, 20]'),
    ],
)
def test_values_out_of_range(name, value, sentence):
  c = config()
  group, field = name.split('.')
  c[group][field] = value
  with pytest.raises(ValueError) as error:
    validate.check(c)
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_a_cosine_rate_must_last_as_long_as_the_run():
  c = config()
  c.optim.schedule, c.optim.decay_steps = 'cosine', c.train.steps - 1
  with pytest.raises(ValueError, match='optim.decay_steps'):
    validate.check(c)
  validate.check(c, 'sample')
  c.optim.decay_steps = c.train.steps
  validate.check(c)


def test_each_mode_needs_its_own_batch_size_alone(monkeypatch):
  monkeypatch.setattr(
      validate.sharding, 'batch_devices', lambda mesh: 16
  )
  c = config()
  c.batch_size = 4
  for mode in ('sample', 'evaluate'):
    validate.check(c, mode)
  with pytest.raises(ValueError, match='batch_size is 4.*16 devices'):
    validate.check(c)


@pytest.mark.parametrize('fields, sentence', [
    ({'model.heads': 'both'}, "model.heads is 'both'; it must be one of"),
    ({'model.heads': 'separate', 'data.images': 0}, 'but data.images is 0'),
    ({'model.conv': '3d'}, "model.conv is '3d'; it must be one of"),
    ({'model.conv': 'full_3d', 'data.frames': 1}, 'but data.frames is 1'),
    ({'extension.context': 'all'}, "extension.context is 'all'; it must be"),
    (
        {'extension.context': 'aligned', 'data.frames': 1},
        'data.frames is 1, so that',
    ),
    (
        {'extension.context': 'aligned', 'extension.context_frames': 16},
        'extension.context_frames is 16; it must be below data.frames, 16',
    ),
    ({'extension.next_frames': 2}, "next_frames is set, but extension.context"),
    ({'extension.context_frames': 2}, "context is 'known', which has no next"),
    ({'text.injection': 'input'}, "text.injection is 'input'; it must be one"),
    ({'text.injection': 'output'}, "but text.encoder is '', so that"),
])
def test_variants_that_make_no_sense_are_one_sentence(fields, sentence):
  c = config()
  c.update_from_flattened_dict(fields)
  for mode in ('train', 'sample', 'evaluate', 'inspect'):
    with pytest.raises(ValueError) as error:
      validate.check(c, mode)
    assert sentence in str(error.value) and '\n' not in str(error.value)
