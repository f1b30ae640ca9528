"""Runs a notebook without a server, by the Python that runs the tests."""
import os
import pathlib

from jupyter_client import kernelspec
from jupyter_client import manager
import nbclient
import nbformat

from tests.support.paths import ROOT
from tests.support.waiting import LIMIT


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
) -> nbformat.NotebookNode:
  """Runs all cells from top to bottom, and keeps their outputs.

  Args:
    notebook: a notebook, which stays as it is.
    folder: the working directory.
    skip: tag of the cells that are left out.
    parameters: a cell that is run after the one tagged 'parameters'.

  Returns:
    The notebook that was run, with its outputs.

  Raises:
    CellExecutionError: a cell fails.
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
      notebook, km=kernel, timeout=LIMIT,
      resources={'metadata': {'path': str(folder)}},
  )
  # It ends the kernel, too, though that was made here.
  client.execute(cleanup_kc=True, env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'IPYTHONDIR': str(settings / 'ipython'),
      'JUPYTER_CONFIG_DIR': str(settings / 'config'),
      'TFDS_DATA_DIR': str(settings / 'data'),
  })
  return notebook
