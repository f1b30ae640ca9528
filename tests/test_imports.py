"""Who may import whom, read off the source without importing it."""
import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'video_diffusion'
OURS = 'video_diffusion'
# Bottom to top. A folder or module of a row may import itself and any row below
# its own; those of one row do not import each other.
ROWS = (
    ('errors', 'callable_module'),
    ('filesystem',),
    ('media',),
    ('parallel', 'metrics'),
    ('diffusion',),
    ('models', 'data'),
    ('checkpoints',),
    ('text',),
    ('training', 'inference'),
    ('config',),
    ('api',),
    ('evaluation', 'web'),
    ('train', 'sample', 'evaluate', 'prepare', 'inspect', 'serve'),
    ('distill',),
    ('main',),
)
# What may import less than all the rows below.
ONLY = {
    'filesystem': {'errors'},
    'media': {'errors', 'filesystem'},
    'parallel': {'errors', 'filesystem'},
    'metrics': {'errors'},
    'diffusion': {'errors'},
    'models': {'errors', 'parallel', 'diffusion'},
    'data': {'errors', 'filesystem', 'media'},
}
# Packages from outside, beside numpy.
OUTSIDE = {
    '__init__': set(),
    'errors': set(),
    'callable_module': set(),
    'filesystem': {'absl', 'etils'},
    'media': {'PIL', 'anyascii', 'av', 'cv2', 'etils', 'imageio'},
    'parallel': {'absl', 'jax', 'orbax'},
    'metrics': {'scipy'},
    'diffusion': {'jax'},
    'models': {'flax', 'jax'},
    'data': {
        'PIL', 'apache_beam', 'array_record', 'av', 'etils', 'tensorflow',
        'tensorflow_datasets', 'tqdm',
    },
    'checkpoints': {
        'absl', 'etils', 'flax', 'google_crc32c', 'jax', 'orbax', 'safetensors',
        'tensorstore',
    },
    'text': {'absl', 'etils', 'jax', 'sentencepiece', 'tqdm'},
    'training': {'absl', 'etils', 'flax', 'jax', 'optax', 'tensorboard'},
    'inference': {'absl', 'etils', 'jax'},
    'config': {'absl', 'etils', 'jax', 'ml_collections'},
    'api': {'etils', 'huggingface_hub', 'jax', 'ml_collections'},
    'evaluation': {
        'absl', 'etils', 'jax', 'torch', 'torch_fidelity', 'tqdm',
    },
    'web': {'absl', 'fastapi', 'gradio', 'uvicorn'},
    'train': {'absl', 'clu', 'etils', 'jax', 'ml_collections'},
    'distill': {'absl', 'etils', 'ml_collections'},
    'sample': {'absl', 'etils', 'jax', 'tqdm'},
    'evaluate': {'absl', 'etils', 'jax', 'ml_collections'},
    'prepare': {'absl', 'jax', 'ml_collections'},
    'inspect': {'absl', 'etils', 'jax', 'ml_collections'},
    'serve': {'absl', 'etils'},
    'main': {'absl', 'jax'},
}
# Too heavy, or not everywhere: only inside functions.
LAZY = {'apache_beam', 'tensorflow', 'tensorflow_datasets', 'array_record',
        'av', 'PIL', 'cv2', 'anyascii', 'imageio', 'tensorboard', 'tensorstore',
        'safetensors', 'sentencepiece', 'google_crc32c', 'torch',
        'torch_fidelity', 'huggingface_hub', 'gradio', 'fastapi', 'uvicorn',
        'scipy'}
FILES = sorted(ROOT.rglob('*.py'))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def unit(path):
  """The folder of the package that a file is in, or the name of its module."""
  return path.relative_to(ROOT).with_suffix('').parts[0]


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


def allowed(name):
  """Those folders and modules of the package that one of them may import."""
  row = next((i for i, row in enumerate(ROWS) if name in row), 0)
  below = {other for lower in ROWS[:row] for other in lower}
  return {name} | (ONLY.get(name, below) & below)


def test_every_folder_and_module_has_its_row():
  units = {unit(path) for path in FILES}
  assert units == {name for row in ROWS for name in row} | {'__init__'}
  assert units == set(OUTSIDE)
  assert len([n for row in ROWS for n in row]) == len(units) - 1
  for name, others in ONLY.items():
    assert name in units and others <= allowed(name)


@pytest.mark.parametrize('path', FILES, ids=NAMES)
def test_imports_follow_the_rows(path):
  name = unit(path)
  for imported, _ in imports(path):
    top, *inner = imported.split('.')
    if top == OURS:
      assert inner and inner[0] in allowed(name), imported
    elif top not in sys.stdlib_module_names:
      assert top in OUTSIDE[name] | {'numpy'}, imported


@pytest.mark.parametrize('path', FILES, ids=NAMES)
def test_heavy_packages_are_imported_inside_functions(path):
  for name, module_level in imports(path):
    if module_level:
      assert name.split('.')[0] not in LAZY, name


def test_flax_linen_is_fenced_in():
  for path, relative in zip(FILES, NAMES, strict=True):
    if not relative.startswith('models/') and relative != 'training/state.py':
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
