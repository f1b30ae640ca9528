"""The laptop recipe in torch: its arguments, and its agreement with ours."""
import pytest

from benchmarks import laptop_torch
from tests.support.optional import optional


def test_sides_are_names_of_known_ones(capsys):
  assert laptop_torch.parse(['--sides=ours,compile']).sides == [
      'ours', 'compile'
  ]
  with pytest.raises(SystemExit):
    laptop_torch.parse(['--sides=theirs'])
  assert "'theirs' is none of ours, eager" in capsys.readouterr().err


def test_output_loss_gradients_and_updates_are_ours():
  optional('torch')
  differences = laptop_torch.check()
  assert len(differences) == 20
  for what, difference in differences.items():
    assert difference < 1e-4, what
