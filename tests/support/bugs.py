"""Mistakes as our own code could make them."""


def bug_in(module):
  """A function that fails as a mistake in the code of `module` would."""
  code = 'def bug(*args):\n  return dict(zip([1], [1, 2], strict=True))'
  names = {}
  exec(compile(code, module.__file__, 'exec'), names)
  return names['bug']
