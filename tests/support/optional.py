"""Packages that only some machines have."""
import importlib

import pytest


def optional(name):
  """The module of that name; skips the test, with the reason, without it.

  RuntimeError is what torchvision raises beside a torch that it was not built
  for, and torch_fidelity imports torchvision.
  """
  try:
    return importlib.import_module(name)
  except (ImportError, RuntimeError) as error:
    pytest.skip(f'{name} does not import: {error}')
