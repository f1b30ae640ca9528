import json
import types

import numpy as np
import pytest

from benchmarks import table_cases
from benchmarks import table_report
from benchmarks import table_rows
from benchmarks import tables
from tests.conftest import TINY
from video_diffusion.evaluation import extractors
from video_diffusion.filesystem import locks

OWN = ('data.images', 'train.steps')  # fields that a call may not set
FIELDS = {name: value for name, value in TINY.items() if name not in OWN} | {
    # Five frames may be known, and one is left to sample.
    'data.frames': 6, 'model.cond_dim': 8, 'sample.num_steps': 2,
    'data.loader': 'processes',  # as in moving_shapes:demo
    # Two steps at the usual rate leave what begins at zero near zero.
    'optim.lr': 0.1,
}
# Rows that are measured here: of two models, by few compiled programs.
ROWS = {
    'joint': ['K = 4'],
    'guidance': ['w = 0', 'w = 5'],
    'extension': ['guidance', 'replacement'],
    'summary': ['the paper', 'annealed Langevin, 64 steps'],
    'summary_extension': ['the paper'],
    'prediction': ['5 known, 64 calls, Langevin'],
}


class StandIn:
  """Thumbnails of two frames, in place of features by the I3D."""

  description = 'thumbnails'

  def __init__(self, weights, *, resize):
    assert weights is None and resize == 'reference'

  def __call__(self, videos):
    return extractors.Thumbnails()(videos[:, ::5])[:, ::16]


@pytest.fixture(autouse=True)
def few(monkeypatch):
  """Fewer rows, and the stand-in."""
  monkeypatch.setattr(tables.features_lib, 'I3DFeatures', StandIn)
  for name, rows in ROWS.items():
    table = table_cases.TABLES[name]
    monkeypatch.setitem(table_cases.TABLES, name, table._replace(
        rows={row: table.rows[row] for row in rows}
    ))


def run(out, *arguments, seeds='0', samples=8):
  tables.main([
      *arguments, f'--out={out}', f'--seeds={seeds}', '--steps=2',
      f'--samples={samples}',
      *(f'--config.{name}={value}' for name, value in FIELDS.items()),
  ])


def figures(out, table, row, seed=0):
  return json.loads((out / f'{table}_seed_{seed}.json').read_text())[
      'rows'
  ][row]


@pytest.mark.parametrize('model, names', [
    ('k_4', ('joint', 'guidance', 'summary')),
    ('free', ('extension', 'summary_extension', 'prediction')),
])
def test_tables_of_a_tiny_model(tmp_path, capsys, model, names):
  first, *others = names
  run(tmp_path, first)
  folder = tmp_path / 'runs' / f'{model}_seed_0'
  curves = (folder / 'metrics.jsonl').read_text()
  # Other tables need this model, and do not train it again.
  assert (folder / 'checkpoints').exists()
  capsys.readouterr()
  run(tmp_path, *others)
  assert curves == (folder / 'metrics.jsonl').read_text()
  assert not (folder / 'checkpoints').exists()
  printed = capsys.readouterr().out
  assert '\n| real clips | 1 |' in printed and 'FVD by thumbnails' in printed

  for name in names:
    columns = table_cases.TABLES[name].columns
    rows = {
        row: figures(tmp_path, name, row) for row in table_cases.rows(name)
    }
    for found in rows.values():
      assert {'seconds', 'date', 'device', 'jax', *columns} <= found.keys()
      # Where no clip shows an object, none can last.
      assert all(found[c] is None or np.isfinite(found[c]) for c in columns)
    assert rows['real clips']['palette'] == 1
    score = next(c for c in columns if c.startswith('fvd'))
    worse = rows[ROWS[name][-1]][score]
    # Clips of which five frames are known may be as near as real ones.
    least = 0 if name == 'prediction' else rows['real clips'][score]
    assert rows['real clips'][score] > 0 and worse > least
  if model == 'k_4':
    # Both tables sample by the same captions and noise.
    one, other = (
        figures(tmp_path, 'joint', 'K = 4'),
        figures(tmp_path, 'guidance', 'w = 0'),
    )
    columns = table_cases.TABLES['joint'].columns
    assert [one[c] for c in columns] == [other[c] for c in columns]
    # So does the third, and by another sampler.
    same, other = (
        figures(tmp_path, 'summary', row) for row in ROWS['summary']
    )
    assert [one[c] for c in columns] == [same[c] for c in columns]
    assert other['fvd'] != same['fvd']
    # Where v is predicted, the error of x_hat is sigma^2 of the loss.
    assert 0 < same['heldout_x'] < same['heldout_loss']
    assert same['heldout_loss'] == other['heldout_loss']
  else:
    # Both rows begin with the same block.
    one, other = (figures(tmp_path, first, row) for row in ROWS[first])
    assert one['fvd_1'] == other['fvd_1'] and one['fvd_4'] != other['fvd_4']
    # The paper's way is the same row in both tables of extension.
    known = figures(tmp_path, 'summary_extension', 'the paper')
    assert known['fvd_4'] == one['fvd_4'] and known['heldout_loss'] > 0
    assert known['heldout_next'] is None and known['frame_seconds'] > 0
    assert known['parameters_m'] > 0


LOSSES = dict.fromkeys(table_rows.SIZE_AND_LOSSES, 0.5) | {
    'heldout_next': 0.25
}


class FrameByFrame:
  """Stands in for a model that extends frame by frame: it samples noise."""

  def __init__(self, config):
    self.config = config
    self.config.extension.context = 'aligned'

  def batches(self, num_videos):
    return types.SimpleNamespace(size=num_videos // 2)

  def sample(self, *, num_videos, frames, overlap, seed, progress):
    assert overlap is None
    for _ in range(2 * (1 + frames - self.config.data.frames)):
      progress(1, 1)
    shape = (num_videos, frames, 8, 8, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_a_model_that_extends_frame_by_frame_is_measured(monkeypatch):
  monkeypatch.setattr(table_rows, 'size_and_losses', lambda model: LOSSES)
  config = table_cases.make_config(
      'free', config='moving_shapes:demo', seed=0, steps=2,
      fields=[f'--config.{name}={value}' for name, value in FIELDS.items()],
  )
  table = table_cases.TABLES['summary_extension']
  measure = table.measure(config, 8, StandIn(None, resize='reference'))
  found = measure.measure(FrameByFrame(config))
  assert set(table.columns) <= found.keys() == measure.real().keys()
  assert (found['heldout_loss'], found['heldout_next']) == (0.5, 0.25)
  assert found['frame_seconds'] >= 0
  # Noise changes alike within the first block and where a frame is added.
  assert found['change_within'] == pytest.approx(
      found['change_at_seams'], rel=0.1
  )


class Fake:
  """Measures nothing, and notes what it is asked for."""

  protocol = 'nothing is sampled'
  asked, ends_at = [], None

  def __init__(self, config, clips, features):
    del features
    self.seed, self.clips = config.seed, clips

  def real(self):
    return self.note('real clips')

  def measure(self, model, **settings):
    return self.note(model + str(settings))

  def note(self, what):
    if what == self.ends_at:
      raise KeyboardInterrupt
    self.asked.append((self.seed, what))
    return {'fvd': 10.0 + self.seed, 'seen': None}


@pytest.fixture
def fake(monkeypatch):
  """The table 'joint' by `Fake`, of which models are their own names."""
  table = table_cases.TABLES['joint']._replace(
      measure=Fake, columns=('fvd', 'seen'),
      rows={str(k): table_cases.Row(f'k_{k}', {}) for k in (0, 8)},
  )
  monkeypatch.setattr(Fake, 'asked', [])
  monkeypatch.setitem(table_cases.TABLES, 'joint', table)

  def train(self, name, seed):
    (self._run_dir(name, seed) / 'checkpoints').mkdir(parents=True)
    return name

  monkeypatch.setattr(tables.Runner, '_train', train)
  return Fake


def test_a_call_that_was_stopped_continues(tmp_path, monkeypatch, fake):
  with monkeypatch.context() as patch:
    patch.setattr(fake, 'ends_at', 'k_8{}')
    with pytest.raises(KeyboardInterrupt):
      run(tmp_path, 'joint', seeds='0,1')
  assert fake.asked == [(0, 'real clips'), (0, 'k_0{}')]
  checkpoints = tmp_path / 'runs' / 'k_8_seed_0' / 'checkpoints'
  assert checkpoints.exists()
  checkpoints.rmdir()
  run(tmp_path, 'joint', seeds='0,1')
  assert fake.asked[2:] == [
      (0, 'k_8{}'), (1, 'real clips'), (1, 'k_0{}'), (1, 'k_8{}'),
  ]
  assert not [*tmp_path.glob('runs/*/checkpoints')]
  run(tmp_path, 'joint', seeds='0,1')
  assert len(fake.asked) == 6


def test_a_seed_that_another_call_measures_is_passed_over(
    tmp_path, fake, capsys
):
  with locks.Lock(tmp_path / 'held' / 'seed_0'):
    run(tmp_path, 'joint', seeds='0,1')
  assert {seed for seed, _ in fake.asked} == {1}
  assert 'Seed 0 is passed over' in capsys.readouterr().out


def test_rows_of_other_arguments_are_not_mixed(tmp_path, fake, capsys):
  run(tmp_path, 'joint')
  with pytest.raises(SystemExit, match='rows of samples 8, not 9; pass ano'):
    run(tmp_path, 'joint', samples=9)
  path = tmp_path / 'joint_seed_0.json'
  other = json.loads(path.read_text()) | {'network': 'another'}
  (tmp_path / 'joint_seed_1.json').write_text(json.dumps(other))
  with pytest.raises(SystemExit, match="joint_seed_1.json has network 'ano"):
    tables.main(['--report', f'--out={tmp_path}'])


def test_the_report_is_of_the_seeds_that_are_there(tmp_path, fake, capsys):
  assert 'nothing is measured' in table_report.report(
      tmp_path, 'joint', 'Title', ['fvd'], ['0']
  )
  run(tmp_path, 'joint', seeds='0,1,4')
  path = tmp_path / 'joint_seed_1.json'
  part = json.loads(path.read_text())
  del part['rows']['8']
  path.write_text(json.dumps(part))
  capsys.readouterr()
  tables.main(['joint', '--report', f'--out={tmp_path}'])
  lines = capsys.readouterr().out.splitlines()
  error = np.std([10, 11, 14], ddof=1) / 3**0.5
  assert f'| 0 | 3 | {np.mean([10, 11, 14]):.1f} ± {error:.1f} | - |' in lines
  assert '| 8 | 2 | 12.0 ± 2.0 | - |' in lines


def test_mean_and_standard_error():
  values = np.random.default_rng(0).normal(size=5)
  mean, error = table_report.mean_and_error([*values[:2], None, *values[2:]])
  assert mean == pytest.approx(values.mean())
  # The mean squared deviation over n - 1, of n that are averaged.
  squares = ((values - values.mean()) ** 2).sum()
  assert error == pytest.approx(np.sqrt(squares / 4 / 5))
  assert table_report.mean_and_error([3.0]) == (3.0, None)
  assert table_report.mean_and_error([None]) is None


@pytest.mark.parametrize('model', table_cases.MODELS)
def test_every_model_is_a_config_that_trains(model):
  config = table_cases.make_config(
      model, config='moving_shapes:demo', seed=3, steps=50,
      fields=['--config.optim.lr=0.5', '--config.model.cond_dim=32'],
  )
  assert (config.seed, config.sample.seed, config.optim.lr) == (3, 3, 0.5)
  assert (config.train.steps, config.optim.decay_steps) == (50, 50)
  # A call cannot change the fields that a model sets.
  assert config.model.cond_dim == (0 if 'free' in model else 32)
  assert config.data.images == (4 if 'free' in model else int(model[2]))


@pytest.mark.parametrize('arguments, sentence', [
    (['nothing'], "'nothing' is no table; there are joint, guidance, ext"),
    ([], 'name a table, one of joint, guidance, extension, summary'),
    (['joint', '--steps=0'], '--steps: is 0; it must be at least 1'),
    (['joint', '--seeds=0,-1'], '--seeds: is 0,-1; each must be at least 0'),
    (['joint', '--config.data.images=3'], 'data.images must not be given; tab'),
])
def test_wrong_arguments_are_a_sentence(tmp_path, capsys, arguments, sentence):
  with pytest.raises(SystemExit):
    tables.main([*arguments, f'--out={tmp_path}'])
  assert sentence in capsys.readouterr().err


@pytest.mark.parametrize('arguments, sentence', [
    (['--config=moving_shapes:laptop'], "'moving_shapes:laptop'; it must be a"),
    (['--config.optim.nothing=1'], '--config.optim.nothing'),
    (['--config.optim.lr=-1'], 'optim.lr'),
    (['--fast'], "unknown argument '--fast'"),
])
def test_wrong_configs_are_a_sentence(tmp_path, arguments, sentence):
  with pytest.raises(SystemExit, match=sentence):
    tables.main(['joint', *arguments, f'--out={tmp_path}'])
  assert not [*tmp_path.glob('*.json')]
