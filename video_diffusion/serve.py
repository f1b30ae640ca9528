"""The mode serve: a page in which a browser on this machine samples."""
import importlib.util
import pathlib
import shutil
import tempfile
from typing import Any

from absl import logging
from etils import epath

from video_diffusion.api import load as load_lib
from video_diffusion.config.validate import require
from video_diffusion.filesystem import files
from video_diffusion.training import preemption
from video_diffusion.web import page as page_lib
from video_diffusion.web import server
from video_diffusion.web import work

# Fields that the page has controls for, or no use of.
_OTHERS = ('refine_workdir', 'video', 'prompts')


def serve(
    overrides: dict[str, Any],
    run_dir: epath.PathLike,
    watch: preemption.Preemption,
    *,
    port: int,
    step: int | None = None,
) -> None:
  """Serves the page of the run in run_dir, until the process is told to end.

  Args:
    overrides: config fields of the command line; those of the group sample are
      what the controls begin with.
    run_dir: folder of the run, local or gs://.
    watch: ends the process.
    port: of 127.0.0.1; 0 takes a free one.
    step: step of the checkpoint; None takes the newest.

  Raises:
    UserError: gradio is absent, no run or no checkpoint in run_dir, a field
      that the page cannot use, or the port is taken.
  """
  require(
      importlib.util.find_spec('gradio') is not None,
      '--mode=serve needs gradio: pip install \'video_diffusion[demo]\'',
  )
  for name in _OTHERS:
    require(
        f'sample.{name}' not in overrides,
        f'sample.{name} goes with --mode=sample; the page asks for a prompt '
        'and a clip.',
    )
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  model = load_lib.load(run_dir, overrides, step=step)
  with server.listen(port) as listener:
    model.step  # noqa: B018 - weights are read before somebody waits for them
    folder = pathlib.Path(tempfile.mkdtemp(prefix='video_diffusion_serve_'))

    def clean():
      shutil.rmtree(folder, ignore_errors=True)
      return 'the videos of the page are deleted'

    watch.before_exit(clean)
    try:
      server.prepare_environment(folder)
      (folder / 'results').mkdir()
      worker = work.Worker(model, folder / 'results')
      page = page_lib.make(worker, run_dir.name)
      with server.serving(page, listener, **page_lib.looks()) as thread:
        logging.info(
            'Open http://%s:%d in a browser on this machine. Ctrl-C ends the '
            'page.', *listener.getsockname(),
        )
        thread.join()
    finally:
      clean()
