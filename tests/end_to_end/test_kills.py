"""What `benchmarks.kills` would not let pass; the killing is its own run."""
from benchmarks import kill_trials
from benchmarks import kills


def trial(**fields):
  return kill_trials.Trial(moment='step', phase='steps', **fields)


def test_a_life_that_loses_a_checkpoint_is_told():
  good = trial(complete=10, resumed=10, first=11, last=13)
  killed_early = trial(complete=10)
  assert not kills.wrong([good, killed_early])
  [text] = kills.wrong([trial(complete=10, resumed=5, first=6)])
  assert 'the checkpoint of step 10 was complete' in text
  [text] = kills.wrong([trial(complete=5, resumed=7, first=8)])
  assert 'continued from step 7' in text
  [text] = kills.wrong([trial(complete=5, resumed=5, first=7)])
  assert 'began with step 7, not 6' in text
  [text] = kills.wrong([trial(complete=0, words=['damaged'])])
  assert 'said damaged' in text
  ended = kill_trials.Trial(moment='step', complete=0, phase='exit code 1')
  assert 'ended by itself: exit code 1' in kills.wrong([ended])[0]


def test_one_bit_of_one_line_is_told():
  whole = [
      {'step': 1, 'loss': 0.5, 'grad_norm': 1.0, 'goodput': 1.0},
      {'step': 2, 'loss': 0.25, 'grad_norm': 1.0, 'goodput': 1.0},
      {'step': 2, 'heldout_loss/ema': 0.5},
  ]
  again = [whole[0], {**whole[0], 'goodput': 0.3}, *whole[1:]]
  found, counts = kills.compare(whole, again)
  assert not found and counts == {
      'points': 3, 'points_written': 4, 'points_written_again': 1,
  }
  other = [whole[0], {**whole[0], 'loss': 0.5000000001}, *whole[1:]]
  assert len(kills.compare(whole, other)[0]) == 1
  [text] = kills.compare(whole, whole[:2])[0]
  assert text == 'Step 2 is missing.'
  [text] = kills.compare(whole, [*whole, {'step': 3, 'loss': 1.0}])[0]
  assert 'Step 3' in text


def test_points_tolerate_a_line_cut_off(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 2}\n{"st')
  assert kill_trials.points(tmp_path) == ([{'step': 1}, {'step': 2}], 1)
  assert kill_trials.points(tmp_path, skip=12) == ([{'step': 2}], 1)
