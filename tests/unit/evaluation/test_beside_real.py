"""Figures of samples beside those of real clips, with a model of a formula."""
import logging
import types

import jax
import numpy as np
import pytest

from tests.support import models
from video_diffusion.errors import UserError
from video_diffusion.evaluation import beside_real

BATCH = 8 * jax.device_count()
CLIPS = 2 * BATCH


def flat(index, rng, num_frames, frameskips=(1,)):
  """Clip `index`: every frame is of its own level."""
  del rng, frameskips
  return {'video': np.full((num_frames, 8, 8, 3), index, np.uint8)}


SOURCE = types.SimpleNamespace(num_examples=CLIPS - 3, example=flat)


def model(**options):
  return models.make(**options, fields=[
      ('eval', 'num_clips', CLIPS), ('eval', 'batch_size', BATCH),
  ])


def figures(videos):
  return {
      'clips': float(len(videos)),
      'frames': float(videos.shape[1]),
      'mean': float(videos.mean()),
      'still': float((np.diff(videos.astype(int), axis=1) == 0).mean()),
  }


def test_samples_are_those_of_the_fields_of_the_run():
  run = model(num_steps=2, seed=5, sampler='ddim')
  videos = beside_real.samples(run)
  np.testing.assert_array_equal(
      videos, run.sample(num_videos=CLIPS, batch_size=BATCH, seed=5)
  )
  assert models.programs(run) == [1]
  # Longer ones are extended, block by block.
  longer = model()
  longer.config.sample.frames = 6
  assert beside_real.samples(longer).shape == (CLIPS, 6, 8, 8, 3)


def test_three_sets_are_measured_alike():
  measure = beside_real.BesideReal('flat', SOURCE, figures)
  values = dict(measure(model()))
  assert [*values] == [
      f'{kind}{name}' for kind in ('', 'real_', 'unrelated_')
      for name in ('clips', 'frames', 'mean', 'still')
  ]
  for kind in ('', 'real_', 'unrelated_'):
    assert values[f'{kind}clips'] == CLIPS and values[f'{kind}frames'] == 4
  # The held-out clips begin again after the last one.
  levels = np.arange(CLIPS) % SOURCE.num_examples
  assert values['real_mean'] == values['unrelated_mean'] == levels.mean()
  assert values['real_still'] == 1.0 and values['unrelated_still'] < 0.5


def test_real_clips_are_measured_once(monkeypatch):
  lengths = []

  def counted(videos):
    lengths.append(len(videos))
    return figures(videos)

  measure = beside_real.BesideReal('flat', SOURCE, counted)
  first = dict(measure(model()))
  second = dict(measure(model(params=0.5)))
  assert lengths == [CLIPS] * 4
  assert first['mean'] != second['mean']
  assert first['real_mean'] == second['real_mean']


def test_samples_that_are_not_finite_have_no_values(caplog):
  measure = beside_real.BesideReal('figures', SOURCE, figures)
  with caplog.at_level(logging.ERROR):
    values = dict(measure(model(params=np.nan)))
  assert values['mean'] is None and values['real_still'] == 1.0
  assert [*values] == [*dict(measure(model()))]
  assert 'No figures of step 7: sampling gave frames' in caplog.text


def test_a_batch_that_devices_cannot_share_names_its_field():
  odd = model()
  odd.config.eval.batch_size = jax.device_count() + 1
  if jax.device_count() > 1:
    with pytest.raises(UserError, match='^eval.batch_size is'):
      beside_real.samples(odd)
