"""setup.py allows the versions with which CI runs the core tests, no lower."""
import runpy
from unittest import mock

import setuptools

from tests.support.paths import ROOT

# What tests/floors.txt alone pins; it gives the reason.
BESIDE = {'tensorflow-metadata'}


def test_the_pins_are_the_floors_of_setup_py():
  with mock.patch.object(setuptools, 'setup') as setup:
    runpy.run_path(str(ROOT / 'setup.py'))
  fields = setup.call_args.kwargs
  floors = {
      requirement.replace('>=', '==')
      for requirement in (
          *fields['install_requires'],
          *fields['extras_require']['text'],
          *fields['extras_require']['test'],
      )
  }
  lines = (ROOT / 'tests' / 'floors.txt').read_text().splitlines()
  pins = {line for line in lines if line and not line.startswith('#')}
  assert floors <= pins
  assert {pin.partition('==')[0] for pin in pins - floors} == BESIDE
