"""The demonstration notebook from top to bottom, with the seconds of each cell.

  python -m benchmarks.notebook --out DIR [--parameters CODE]

Runs launch/colab_demo.ipynb in DIR by the Python of this process, at its own
settings or at those that CODE, a cell after its cell of settings, sets. The
notebook with its outputs is DIR/colab_demo.ipynb, and the table is printed.
The cell that installs the package is left out, since it is already there.
"""
import argparse
import datetime
import os
import pathlib
import platform

from jupyter_client import kernelspec
from jupyter_client import manager
import nbclient
import nbformat

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]
PATH = ROOT / 'launch' / 'colab_demo.ipynb'
COLUMNS = {'cell': 'cell', 'seconds': 'seconds'}


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[int]:
  """Indices of the cells with a tag."""
  return [
      i for i, cell in enumerate(notebook.cells)
      if tag in cell.metadata.get('tags', ())
  ]


def execute(
    notebook: nbformat.NotebookNode,
    folder: pathlib.Path,
    *,
    skip: str = 'install',
    parameters: str = '',
    limit: float | None = None,
) -> nbformat.NotebookNode:
  """Runs all cells from top to bottom, and keeps their outputs and times.

  Args:
    notebook: a notebook, which stays as it is.
    folder: the working directory.
    skip: tag of the cells that are left out.
    parameters: a cell that is run after the one tagged 'parameters'.
    limit: seconds that a cell may take; None is no limit.

  Returns:
    The notebook that was run.

  Raises:
    CellExecutionError: a cell fails.
    CellTimeoutError: a cell takes longer than the limit.
  """
  notebook = nbformat.from_dict(notebook)
  [at] = tagged(notebook, 'parameters')
  if parameters:
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(parameters))
  for i in reversed(tagged(notebook, skip)):
    del notebook.cells[i]
  settings = folder / 'jupyter'
  (settings / 'ipython').mkdir(parents=True)
  kernel = manager.AsyncKernelManager(
      # Without folders of kernels, python3 is the Python of this process,
      # whatever kernels the person has installed.
      kernel_name='python3',
      kernel_spec_manager=kernelspec.KernelSpecManager(kernel_dirs=[]),
      connection_file=str(settings / 'kernel.json'),
  )
  client = nbclient.NotebookClient(
      notebook, km=kernel, timeout=limit, record_timing=True,
      resources={'metadata': {'path': str(folder)}},
  )
  path = os.pathsep.join(
      filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))
  )
  # It ends the kernel, too, though that was made here.
  client.execute(cleanup_kc=True, env={
      **os.environ,
      'PYTHONPATH': path,
      'IPYTHONDIR': str(settings / 'ipython'),
      'JUPYTER_CONFIG_DIR': str(settings / 'config'),
      'TFDS_DATA_DIR': str(settings / 'data'),
  })
  return notebook


def seconds(cell: nbformat.NotebookNode) -> float:
  """How long a cell took, from the times that `execute` recorded."""
  times = cell.metadata.execution
  began, ended = (
      datetime.datetime.fromisoformat(times[name].replace('Z', '+00:00'))
      for name in ('iopub.execute_input', 'shell.execute_reply')
  )
  return (ended - began).total_seconds()


def rows(notebook: nbformat.NotebookNode) -> list[dict]:
  """A row for each code cell of a notebook that was run, and their sum."""
  found = [
      {'cell': cell.id, 'seconds': round(seconds(cell), 1)}
      for cell in notebook.cells if cell.cell_type == 'code'
  ]
  total = sum(row['seconds'] for row in found)
  return [*found, {'cell': 'all', 'seconds': round(total, 1)}]


def main(argv: list[str] | None = None) -> None:
  """Runs the notebook and prints its table."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--parameters', default='')
  args = parser.parse_args(argv)
  args.out.mkdir(parents=True, exist_ok=True)
  done = execute(
      nbformat.read(PATH, as_version=4), args.out, parameters=args.parameters
  )
  nbformat.write(done, args.out / PATH.name)
  print(f'{timing.today()}, {platform.python_version()}')
  timing.print_table(rows(done), COLUMNS)


if __name__ == '__main__':
  main()
