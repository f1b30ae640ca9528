import itertools
import json
import logging
import types

import jax
import numpy as np
import pytest

from tests.support import models
from video_diffusion.api import model as model_lib
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import shapes
from video_diffusion.errors import UserError
from video_diffusion.evaluation import alignment
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.evaluation import shapes_clips
from video_diffusion.evaluation import shapes_figures
from video_diffusion.inference import conditioning

HELD = ('red triangle', 'green circle', 'blue square')
BATCH = 8 * jax.device_count()
CLIPS = 2 * BATCH


def source(side=16, **fields):
  return shapes.MovingShapes(**{
      'split': 'test', 'seed': 0, 'num_examples': 1000, 'num_frames': 4,
      'height': side, 'width': side, 'radius': 0.25, 'speed': 0.08,
      'heldout_pairs': HELD,
  } | fields)


def encode(captions, prompts=()):
  """The labels of captions, as the stand-in network takes them."""
  labels = [shapes.parse_caption(caption).ravel() for caption in captions]
  return {'labels': np.stack(labels)}


def text_model(*, fields=(), **options):
  """A stand-in model that takes captions."""
  model = models.make(side=16, **options, fields=[
      ('text', 'encoder', 'table'),
      ('eval', 'evaluators', ('alignment',)),
      ('eval', 'num_clips', CLIPS),
      ('eval', 'batch_size', BATCH),
      *fields,
  ])
  return model_lib.Model(
      model.config, model.network, lambda: (model.params, 7),
      conditioning.Conditioner(None, encode=encode), model.mesh,
  )


def evaluator(model, clips=None):
  return evaluators_lib.make(models.run_of(model, clips or source()))[
      'alignment'
  ]


def clips_of(captions, clips):
  """Real clips in the order of captions, of a source that has them."""
  known = {}
  for clip in shapes_clips.real_clips(clips, frames=4):
    known.setdefault(clip['caption'], clip['video'])
    if known.keys() >= set(captions):
      return np.stack([known[caption] for caption in captions])


def test_samples_of_a_model_have_values_in_evaluation_json():
  model = text_model(guidance_weight=1.0)
  measure = evaluator(model)
  results = evaluators_lib.run({'alignment': measure}, {'ema': model})
  values = results['alignment']['ema']
  assert [*values] == [
      f'{pairs}_{name}' for pairs in ('seen', 'heldout')
      for name in ('real_all', 'real_frames', *alignment.COLUMNS)
  ]
  assert json.loads(json.dumps(values)) == values
  for pairs in ('seen', 'heldout'):
    assert values[f'{pairs}_real_all'] == 1.0
    assert all(0 <= values[f'{pairs}_{c}'] <= 1 for c in alignment.COLUMNS[:5])
    # The stand-in draws noise, further away than other real frames are.
    assert values[f'{pairs}_all'] < 1
    assert values[f'{pairs}_frames'] > values[f'{pairs}_real_frames'] > 0
  # Again, and with the weights of another step: the same program and captions.
  assert dict(measure(model)) == values
  other = dict(measure(model.with_weights(jax.numpy.float32(0.5), 8)))
  assert other['seen_frames'] != values['seen_frames']
  assert other['seen_real_frames'] == values['seen_real_frames']
  assert models.programs(model) == [1]
  curves = evaluators_lib.as_curves({'alignment': measure}, results)
  assert 'alignment_heldout_all/ema' in curves


def test_clips_that_show_their_captions_have_all_shares(monkeypatch):
  asked = []

  def sample(model, conditions, weight, batch_size):
    asked.append((conditions.num_videos, weight, batch_size))
    parts = shapes_clips.by_pairs(source())
    return clips_of(conditions.captions, [*parts.values()][len(asked) - 1])

  monkeypatch.setattr(alignment, 'sample', sample)
  model = text_model(guidance_weight=2.5)
  values = dict(evaluator(model)(model))
  for pairs in ('seen', 'heldout'):
    for column in alignment.COLUMNS[:5]:
      assert values[f'{pairs}_{column}'] == 1.0
  assert asked == 2 * [(CLIPS, 2.5, BATCH)]


def test_every_weight_has_a_row_by_one_program_and_the_same_noise():
  model = text_model()
  scores = alignment.make_scores(source(), 8, frames=4)
  rows = list(alignment.rows(model, scores, (0.0, 3.0)))
  assert [(row.pairs, row.weight) for row in rows] == [
      (pairs, w) for pairs in ('seen', 'heldout') for w in (None, 0.0, 3.0)
  ]
  assert models.programs(model) == [1]
  real, unguided, guided = rows[:3]
  assert real.columns['all'] == 1.0 and real.videos is None
  assert real.captions == list(unguided.captions) == list(guided.captions)
  assert not np.array_equal(unguided.videos, guided.videos)
  assert guided.videos.shape == (8, 4, 16, 16, 3) and guided.seconds > 0
  for row in (unguided, guided):
    want = model.sample(
        prompts=row.captions, guidance_weight=row.weight,
        seed=model.config.sample.seed,
    )
    # The weight is an argument here and a constant there: roundings differ.
    assert np.abs(row.videos.astype(int) - want).max() <= 1


def test_captions_are_of_the_kinds_of_pairs():
  held = shapes.parse_pairs(HELD)
  pairs = {
      kind: {
          (int(s), int(c))
          for caption in score.captions
          for s, c, _ in shapes.parse_caption(caption) if s >= 0
      }
      for kind, score in alignment.make_scores(source(), 60, frames=4).items()
  }
  assert pairs['heldout'] == held and not pairs['seen'] & held
  none = source(heldout_pairs=())
  assert [*alignment.make_scores(none, 2, frames=4)] == ['seen']


def test_the_palette_of_blocks_is_that_of_all_clips(monkeypatch):
  rng = np.random.default_rng(0)
  videos = np.stack([
      clip['video'] for clip in
      itertools.islice(shapes_clips.real_clips(source(), frames=4), 7)
  ])
  videos[::2] = rng.integers(0, 256, videos[::2].shape)
  videos[3] = 0
  want = shapes_figures.figures(videos)['palette']
  for block in (1, 3, 64):
    monkeypatch.setattr(alignment, 'BLOCK', block)
    assert alignment.palette_share(videos) == pytest.approx(want, rel=1e-12)
  assert alignment.palette_share(np.zeros_like(videos)) == 0.0


def test_frames_are_shrunk_by_area():
  rng = np.random.default_rng(0)
  videos = rng.integers(0, 256, (2, 3, 16, 24, 3), np.uint8)
  small = alignment.small_frames(videos)
  assert small.shape == (6, 192)
  want = videos[1, 2, 2:4, 3:6].mean((0, 1)) / 255
  np.testing.assert_allclose(small[5].reshape(8, 8, 3)[1, 1], want, rtol=1e-12)


def test_samples_that_are_not_finite_have_no_values(caplog):
  model = text_model(params=np.nan)
  with caplog.at_level(logging.ERROR):
    values = dict(evaluator(model)(model))
  assert values['seen_real_all'] == 1.0
  assert values['seen_all'] is None and values['heldout_frames'] is None
  assert 'No alignment of step 7: sampling gave frames' in caplog.text


def test_a_run_that_cannot_be_read_is_one_sentence():
  model = text_model()
  begin = "^eval.evaluators holds 'alignment', which "
  two = mixture_lib.Mixture([source(), source(seed=1)], [1, 1])
  with pytest.raises(UserError, match=f"{begin}.* 'moving_shapes', mixed with"):
    evaluator(model, two)
  model.config.data.name = 'video_folder'
  with pytest.raises(UserError, match=f"{begin}.*data.name is 'video_folder'"):
    evaluator(model, types.SimpleNamespace(num_examples=1))
  with pytest.raises(UserError, match=f'{begin}.*the run takes no text'):
    evaluator(text_model(fields=[('text', 'encoder', '')]))
  with pytest.raises(UserError, match=f'{begin}.*must divide by 8'):
    evaluator(text_model(fields=[('data', 'height', 12)]), source(12))
  # Images of other data do not matter.
  images = mixture_lib.Mixture([source(seed=1)], [1])
  evaluator(text_model(), mixture_lib.Mixture([source()], [1], images))


def test_a_batch_that_devices_cannot_share_names_its_field():
  odd = jax.device_count() + 1
  model = text_model(fields=[('eval', 'batch_size', odd)])
  if jax.device_count() > 1:
    with pytest.raises(UserError, match='^eval.batch_size is'):
      dict(evaluator(model)(model))
