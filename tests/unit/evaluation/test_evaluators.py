import pytest

from tests.support import models
from video_diffusion.errors import UserError
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.training import writers


class Scale:
  """Yields the weights of a stand-in model, and a value that is not there."""

  key, prefix, raw = 'scale', 'scale_', False

  def __init__(self, run):
    self.run = run

  def __call__(self, model):
    yield 'mean', float(model.params)
    yield 'nothing', None


class RawScale(Scale):
  key, prefix, raw = 'raw_scale', 'raw_', True


@pytest.fixture
def evaluators(monkeypatch):
  monkeypatch.setattr(
      evaluators_lib, 'EVALUATORS', {'scale': Scale, 'raw': RawScale}
  )
  model = models.make(fields=[('eval', 'evaluators', ('raw', 'scale'))])
  return evaluators_lib.make(models.run_of(model, 'clips'))


def test_those_of_the_list_are_made_in_its_order(evaluators):
  assert [*evaluators] == ['raw', 'scale']
  assert evaluators['scale'].run.source == 'clips'


def test_an_unknown_name_is_a_sentence():
  model = models.make(fields=[('eval', 'evaluators', ('heldout_los',))])
  with pytest.raises(
      UserError, match="eval.evaluators holds 'heldout_los'; there are heldout"
  ):
    evaluators_lib.make(models.run_of(model))


def test_scores_of_a_training_are_listed_by_a_field_of_their_own():
  model = models.make(fields=[('log', 'scores', ('heldout_los',))])
  with pytest.raises(UserError, match="log.scores holds 'heldout_los'"):
    evaluators_lib.make(models.run_of(model), 'log.scores')


def test_values_become_a_table_and_curves(evaluators, caplog, tmp_path):
  sets = {'raw': models.make(params=0.5), 'ema': models.make(params=0.25)}
  with caplog.at_level('INFO'):
    results = evaluators_lib.run(evaluators, sets)
  assert results == {
      'raw': {
          'raw': {'mean': 0.5, 'nothing': None},
          'ema': {'mean': 0.25, 'nothing': None},
      },
      'scale': {'ema': {'mean': 0.25, 'nothing': None}},
  }
  rows = [line.split() for line in caplog.text.splitlines()]
  assert any(row[-3:] == ['raw', '0.5000', '-'] for row in rows)
  curves = evaluators_lib.as_curves(evaluators, results)
  assert curves == {
      'raw_mean/raw': 0.5, 'raw_mean/ema': 0.25, 'scale_mean/ema': 0.25
  }
  writer = writers.Writer(tmp_path)
  writer.scalars(3, {'raw_mean/raw': 0.5})
  ran = lambda *names: evaluators_lib.have_run(
      [evaluators[name] for name in names], tmp_path, 3
  )
  assert ran('raw') and not ran('raw', 'scale') and ran()
  writer.scalars(3, curves)
  assert ran('raw', 'scale')
  assert not evaluators_lib.have_run(evaluators.values(), tmp_path, 4)
  writer.close()


def test_other_clips_than_samples_have_rows_of_their_own():
  values = {'a': 0.5, 'b': None, 'real_a': 1.0, 'real_b': 0.25}
  table = evaluators_lib.as_table('figures', {'raw': values, 'ema': values})
  rows = [line.split() for line in table.splitlines()]
  want = [['figures', 'a', 'b'], ['raw', '0.5000', '-'],
          ['real', '1.0000', '0.2500'], ['ema', '0.5000', '-']]
  assert [row for row in rows if row in want][:4] == want
  other = evaluators_lib.as_table('figures', {'ema': {'a': 0.5, 'real_b': 1.0}})
  assert other.splitlines()[0].split() == ['figures', 'a', 'real_b']


def test_the_best_checkpoint_is_by_a_curve_that_there_is():
  model = models.make(fields=[('checkpoint', 'best', 'scale_mean')])
  assert evaluators_lib.best_curve(model.config, [Scale]) == 'scale_mean/ema'
  with pytest.raises(UserError, match="best is 'scale_mean'; .* raw_, of the"):
    evaluators_lib.best_curve(model.config, [RawScale])
  assert not evaluators_lib.best_curve(models.make().config, [])
