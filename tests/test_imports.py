"""Who may import whom, read off the source without importing it."""
import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'video_diffusion'
OURS = 'video_diffusion'
ALWAYS = {'jax', 'numpy'}
ALWAYS_OURS = {'errors', 'files', 'locks'}
# Path prefix -> (outside packages, our modules by prefix). The first match
# counts; a module may always import its own folder.
TABLE = [
    ('diffusion/', set(), {'diffusion'}),
    ('metrics/', {'scipy'}, set()),
    ('models/', {'flax'}, {'models', 'partitioning'}),
    (
        'data/',
        {'av', 'PIL', 'tqdm', 'etils', 'sentencepiece', 'array_record',
         'tensorflow', 'tensorflow_datasets'},
        {'data'},
    ),
    ('errors.py', set(), set()),
    ('files.py', {'etils'}, set()),
    ('locks.py', {'absl', 'etils'}, set()),
    ('partitioning.py', set(), set()),
    ('optimizer.py', {'optax'}, set()),
    (
        'train_state.py',
        {'optax', 'flax'},
        {'diffusion', 'optimizer', 'partitioning'},
    ),
    ('digests.py', set(), {'partitioning'}),
    ('checkpoint.py', {'absl', 'orbax', 'etils'}, {'digests', 'parallel'}),
    ('preemption.py', {'absl'}, set()),
    ('parallel/', set(), {'parallel'}),
    ('distributed.py', {'absl'}, set()),
    ('checkpoints/', {'etils'}, {'checkpoints'}),
    (
        'weights.py',
        {'absl', 'etils', 'flax', 'safetensors'},
        {'checkpoints'},
    ),
    ('t5x_checkpoint.py', {'etils', 'flax', 'tensorstore'}, {'checkpoints'}),
    (
        't5_weights.py',
        {'etils', 'flax'},
        {'checkpoints', 'models', 't5x_checkpoint'},
    ),
    (
        'media.py',
        {'PIL', 'anyascii', 'etils', 'imageio', 'av', 'cv2'},
        set(),
    ),
    ('writers.py', {'absl', 'etils', 'tensorboard'}, set()),
    ('default_config.py', {'ml_collections'}, set()),
    (
        'config/',
        {'absl', 'etils', 'ml_collections'},
        {'checkpoints', 'config', 'data', 'default_config', 'workdirs'},
    ),
    ('main.py', {'absl', 'ml_collections'}, {''}),
    ('__init__.py', set(), set()),
    (
        'inspect.py',
        {'PIL', 'absl', 'etils', 'ml_collections'},
        {''},
    ),
    # The modes and what they share.
    ('', {'absl', 'clu', 'etils', 'ml_collections', 'tqdm'}, {''}),
]
# Too heavy, or not everywhere: only inside functions.
LAZY = {'tensorflow', 'tensorflow_datasets', 'array_record', 'av', 'PIL', 'cv2',
        'anyascii', 'imageio', 'tensorboard', 'tensorstore', 'safetensors',
        'sentencepiece'}
FILES = sorted(ROOT.rglob('*.py'))


def imports(path):
  """(name, at module level?) of every import, dotted names in full."""
  tree = ast.parse(path.read_text())
  inside = {
      id(node)
      for function in ast.walk(tree)
      if isinstance(function, ast.FunctionDef)
      for node in ast.walk(function)
  }
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    for name in names:
      yield name, id(node) not in inside


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
  relative = str(path.relative_to(ROOT))
  row = next(row for row in TABLE if relative.startswith(row[0]))
  _, outside, ours = row
  for name, _ in imports(path):
    top = name.split('.')[0]
    if top == OURS:
      inner = name[len(OURS) + 1 :]
      allowed = tuple(ours | ALWAYS_OURS)
      assert inner.startswith(allowed), name
    elif top not in sys.stdlib_module_names:
      assert top in ALWAYS | outside, f'{relative} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_inside_functions(path):
  for name, module_level in imports(path):
    if module_level:
      assert name.split('.')[0] not in LAZY, name


def test_flax_linen_is_fenced_in():
  for path in FILES:
    relative = str(path.relative_to(ROOT))
    if relative.startswith('models/') or relative == 'train_state.py':
      continue
    assert not any(name.startswith('flax.linen') for name, _ in imports(path))


def test_no_two_modules_import_each_other():
  graph = {}
  for path in FILES:
    module = '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts)
    graph[module] = {
        name for name, _ in imports(path) if name.startswith(OURS + '.')
    }

  def visit(module, trail):
    assert module not in trail, ' -> '.join([*trail, module])
    for name in graph.get(module, ()):
      if name in graph:
        visit(name, [*trail, module])

  for module in graph:
    visit(module, [])
