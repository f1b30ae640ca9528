"""The starts of a video that configs train on, as docs/data.md has them."""
import re

import pytest

from benchmarks import windows
from tests.support.paths import ROOT


def test_clips_hid_most_starts_and_none_is_hidden_now():
  skipping = windows.row(windows.Case('text_64', 'frameskip_4', 300, 64))
  kinetics = windows.row(windows.Case('kinetics', 'paper', 300, 32))
  assert (skipping['before'], skipping['now'], skipping['starts']) == (
      16, 240, 240
  )
  assert (kinetics['before'], kinetics['now'], kinetics['starts']) == (
      153, 285, 285
  )
  for row in (skipping, kinetics):
    assert row['p before'] < 1e-9 and row['p now'] > 1e-3


@pytest.mark.parametrize('case', windows.CASES, ids=str)
def test_the_table_of_the_docs_is_of_the_configs(monkeypatch, case):
  monkeypatch.setattr(windows, 'DRAWS', 20)
  row = windows.row(case)
  names = ('config', 'epochs', 'frames', 'window', 'starts', 'before', 'now')
  line = '| ' + ' | '.join(str(row[name]) for name in names) + ' |'
  text = (ROOT / 'docs' / 'data.md').read_text().replace('`', '')
  assert line in re.sub(' +', ' ', text)
