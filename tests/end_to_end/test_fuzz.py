"""Damaged files of every kind; longer by --fuzz_seconds."""
import json
import os
import random
import subprocess
import sys

from tests.support import fuzz
from tests.support.paths import ROOT
from video_diffusion.errors import UserError

TRIES = 40  # of each kind


def test_every_damaged_file_ends_in_a_result_or_a_sentence(
    tmp_path, pytestconfig, capsys
):
  seconds = pytestconfig.getoption('--fuzz_seconds')
  out, log = tmp_path / 'out', tmp_path / 'log'
  with out.open('w') as stdout, log.open('w') as stderr:
    process = subprocess.run(
        [sys.executable, '-m', 'tests.support.fuzz', f'--tries={TRIES}',
         f'--seconds={seconds}'],
        cwd=ROOT, stdout=stdout, stderr=stderr, timeout=1200 + 2 * seconds,
        env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'}, check=False,
    )
  end = '\n'.join(log.read_text().splitlines()[-20:])
  assert process.returncode in (0, 1), end  # else it fell, in the last try
  found = json.loads(out.read_text())
  if seconds:
    with capsys.disabled():
      print(json.dumps(found['kinds'], indent=1))
  assert not found['failures'], '\n'.join(found['failures'])
  assert found['kinds'].keys() == fuzz.KINDS.keys()
  for kind, counts in found['kinds'].items():
    assert counts['tries'] >= TRIES
    assert counts['sentence'] > TRIES / 4, kind  # the damage is felt


def test_what_is_no_result_and_no_sentence_is_told(monkeypatch):
  def outcome(error):
    def read(rng):
      if error:
        raise error

    return fuzz.attempt(read, 'x')

  assert outcome(None).word == 'result'
  assert outcome(UserError('a.mp4 is no video.')).word == 'sentence'
  assert outcome(UserError('two\nlines of text')).word == 'failure'
  assert outcome(UserError('x' * 2000)).word == 'failure'
  for error in (KeyError('a'), MemoryError(), RecursionError(), ValueError()):
    assert outcome(error).text.startswith(type(error).__name__)
  monkeypatch.setattr(fuzz, 'CPU_SECONDS', 0.1)

  def slow(rng):
    while True:
      pass

  assert 'CPU' in fuzz.attempt(slow, 'x').text


def test_a_try_can_be_repeated():
  tree = {'a': [1, {'b': 2}], 'c': 'd'}
  made = [fuzz.damage_json(tree, random.Random(f'config {i}')) for i in (3, 3)]
  assert made[0] == made[1]
  assert len({fuzz.damage_json(tree, random.Random(i)) for i in range(9)}) > 5
