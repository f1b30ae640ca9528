import json

import pytest

from video_diffusion import default_config
from video_diffusion import validation


def config(**fields):
  c = default_config.get_config()
  for name, value in fields.items():
    c[name] = value
  return c


@pytest.mark.parametrize(
    'name, value, sentence',
    [
        ('data.images', -1, 'data.images is -1'),
        ('model.channel_mults', (), 'model.channel_mults is empty'),
        ('model.base_channels', 7, 'model.base_channels is 7'),
        ('model.dropout', 1.5, 'model.dropout is 1.5'),
        ('diffusion.cond_drop', -0.1, 'diffusion.cond_drop is -0.1'),
        ('diffusion.logsnr_min', 30.0, 'diffusion.logsnr_min must be below'),
        ('data.flip', True, 'data.flip is set'),
        ('checkpoint.export', 'int8', "checkpoint.export is 'int8'"),
        ('sample.num_steps', 0, 'sample.num_steps is 0'),
        ('data.loader', 'grain', "data.loader is 'grain'"),
    ],
)
def test_every_bad_field_is_one_sentence(name, value, sentence):
  c = config()
  group, field = name.split('.')
  c[group][field] = value
  with pytest.raises(ValueError) as error:
    validation.check(c)
  assert sentence in str(error.value) and '\n' not in str(error.value)


def test_the_defaults_pass():
  validation.check(config())


def test_a_workdir_belongs_to_one_run(tmp_path):
  workdir = validation.epath.Path(tmp_path / 'run')
  validation.claim_workdir(config(), workdir)
  free = config()
  free.sample.num_steps, free.log.every, free.checkpoint.every = 9, 9, 9
  free.train.steps, free.eval.num_clips, free.data.loader = 9, 9, 'threads'
  free.model.remat = True
  validation.claim_workdir(free, workdir)
  assert json.loads((workdir / 'config.json').read_text())['train'][
      'steps'
  ] == 9
  for name in ('seed', 'batch_size', 'data.frames', 'model.dropout',
               'diffusion.prediction', 'optim.lr'):
    other = config()
    holder = other
    *groups, field = name.split('.')
    for group in groups:
      holder = holder[group]
    holder[field] = 'v' if field == 'prediction' else 3
    with pytest.raises(ValueError, match=f'another {name} '):
      validation.claim_workdir(other, workdir)


def test_sampling_takes_the_model_of_the_run(tmp_path):
  workdir = validation.epath.Path(tmp_path)
  with pytest.raises(ValueError, match='holds no run'):
    validation.saved_config(config(), workdir)
  trained = config(seed=3)
  trained.model.base_channels = 32
  validation.claim_workdir(trained, workdir)
  call = config()
  call.sample.num_steps = 7
  got = validation.saved_config(call, workdir)
  assert (got.seed, got.model.base_channels) == (3, 32)
  assert got.sample.num_steps == 7
  assert tuple(got.model.channel_mults) == (1, 2, 4, 8)
