"""launch/colab_demo.ipynb is run from top to bottom, and committed clean."""
import base64
import io
import json
import re

import nbclient.exceptions
import nbformat
from PIL import Image
import pytest

from benchmarks import notebook as notebook_lib
from tests.conftest import FIRST
from tests.conftest import TINY
from tests.support import models
from tests.support.waiting import LIMIT
import video_diffusion
from video_diffusion.config import config_files

PATH = notebook_lib.PATH
MAX_BYTES = 200_000
MAX_LINES = 12  # of a cell that is a step
# Code cells that are no steps, and so show no picture.
BEFORE = ('install', 'parameters', 'setup')
# Code cell -> how many frames its picture has.
STEPS = {
    'sample': 16, 'extend': 64, 'interpolate': 61, 'enlarge': 16, 'train': 4,
    'videos': 16, 'own': 4, 'evaluate': 4,
}
NETWORK = {n: v for n, v in TINY.items() if n.startswith('model.')}
# Fields that make a training small.
SMALL = {n: v for n, v in TINY.items() if n != 'data.radius'} | {
    'data.frames': 4, 'batch_size': 2, 'train.steps': 2,
    'sample.num_videos': 2, 'sample.batch_size': 2,
}


@pytest.fixture
def notebook():
  return nbformat.read(PATH, as_version=4)


@pytest.fixture
def parameters(tmp_path):
  """A cell with the smallest settings.

  A tiny model stands for the one in the package, which takes minutes to
  compile. Its videos have as many frames.
  """
  folder = tmp_path / 'model'
  folder.mkdir()
  config = config_files.get_config('moving_shapes:demo')
  config.update_from_flattened_dict(
      NETWORK | {'model.cond_dim': 8, 'data.height': 8, 'data.width': 8}
  )
  models.write_random(folder, config)
  shapes = SMALL | {'model.cond_dim': 8, 'data.radius': 0.25}
  own = SMALL | {'model.cond_dim': 0}
  evaluation = {'eval.num_clips': 4, 'eval.batch_size': 4}
  return f'''
{FIRST}
MODEL = {str(folder)!r}
PROMPTS, STEPS, NUM_VIDEOS = PROMPTS[:2], 2, 2
SHAPES, SHAPES_FIELDS, OWN_FIELDS = 'moving_shapes:text', {shapes}, {own}
EVALUATION = {evaluation}
'''


def code_cells(notebook):
  """Name -> code cell, in order."""
  return {c.id: c for c in notebook.cells if c.cell_type == 'code'}


def text_of(cell, stream):
  """What a cell wrote to 'stdout' or 'stderr'."""
  return ''.join(o.text for o in cell.outputs if o.get('name') == stream)


def pictures(cell):
  """The animated GIFs among the outputs of a cell."""
  return [
      Image.open(io.BytesIO(base64.b64decode(output.data['image/gif'])))
      for output in cell.outputs if 'image/gif' in output.get('data', {})
  ]


def test_from_top_to_bottom(notebook, parameters, tmp_path):
  folder = tmp_path / 'work'
  folder.mkdir()
  done = notebook_lib.execute(
      notebook, folder, parameters=parameters, limit=LIMIT
  )
  cells = code_cells(done)
  # With the cell of the settings above, and without that of the installation.
  assert [c.execution_count for c in cells.values()] == [
      *range(1, len(BEFORE) + len(STEPS) + 1)
  ]
  assert [row['cell'] for row in notebook_lib.rows(done)][2:] == [
      *BEFORE[2:], *STEPS, 'all'
  ]
  for name, frames in STEPS.items():
    [picture] = pictures(cells[name])
    assert picture.n_frames == frames, name
    assert any(low < high for low, high in picture.convert('RGB').getextrema())
  # What the steps say they do has left its traces.
  runs = folder / 'runs'
  for run in ('shapes', 'own'):
    lines = (runs / run / 'metrics.jsonl').read_text().splitlines()
    assert max(json.loads(line)['step'] for line in lines) == 2
  log = text_of(cells['own'], 'stderr')
  assert f'EMA weights of step 1 in {tmp_path / "model"}' in log
  assert 'CheckpointManager' not in log  # what Orbax says of each save
  report = json.loads((runs / 'shapes' / 'evaluation.json').read_text())
  said = text_of(cells['evaluate'], 'stdout')
  assert f'held-out loss: {report["losses"]["loss"]}\n' in said
  assert len(list((runs / 'notebook' / 'videos').glob('*.mp4'))) == 2


def test_a_broken_cell_fails(notebook, parameters, tmp_path):
  cell = code_cells(notebook)['sample']
  assert 'model.sample(' in cell.source
  cell.source = cell.source.replace('model.sample(', 'model.sampel(')
  with pytest.raises(nbclient.exceptions.CellExecutionError, match='sampel'):
    notebook_lib.execute(
        notebook, tmp_path, parameters=parameters, limit=LIMIT
    )


def test_it_is_committed_without_outputs(notebook):
  nbformat.validate(notebook)
  text = PATH.read_text()
  assert len(text.encode()) < MAX_BYTES
  assert not re.search(r'/(work|home|root|tmp|Users|content|mnt)\b', text)
  assert set(notebook.metadata) == {'kernelspec', 'language_info'}
  for cell in notebook.cells:
    assert set(cell.metadata) <= {'tags'}
    assert cell.get('execution_count') is None and not cell.get('outputs')
  # Saved as nbformat saves it, so that a change is a small difference.
  assert nbformat.writes(notebook) + '\n' == text


def test_its_form(notebook):
  """A few sentences, then a short cell, and again."""
  assert [*code_cells(notebook)] == [*BEFORE, *STEPS]
  for tag in ('install', 'parameters'):
    at = notebook_lib.tagged(notebook, tag)
    assert [notebook.cells[i].id for i in at] == [tag]
  kinds = [cell.cell_type for cell in notebook.cells]
  assert kinds == ['markdown'] + ['markdown', 'code'] * (len(kinds) // 2)
  for name, cell in code_cells(notebook).items():
    if name in STEPS:
      assert len(cell.source.splitlines()) <= MAX_LINES, name
      assert 'show(' in cell.source, name


def test_it_needs_public_names_alone(notebook):
  for cell in code_cells(notebook).values():
    for name in re.findall(r'video_diffusion\.(\w+)', cell.source):
      assert name in video_diffusion.__all__
    assert not re.search(r'(from|import) video_diffusion\.', cell.source)


def test_its_configs_and_fields_exist(notebook):
  """The names of configs for an accelerator, which no test runs, exist too."""
  cell = code_cells(notebook)['parameters']
  for name in re.findall(r"'(\w+:\w+)'", cell.source):
    config = config_files.get_config(name)
  config = config_files.get_config('video_folder:demo')
  for field in re.findall(r"'(\w+\.\w+)':", cell.source):
    group, name = field.split('.')
    assert name in config[group], field
