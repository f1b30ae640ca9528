"""Samples what forms ask for, one at a time, and can be stopped."""
from collections.abc import Callable
import contextlib
import itertools
import pathlib
import re
import shutil
import threading

from absl import logging

from video_diffusion import media
from video_diffusion.api import model as model_lib
from video_diffusion.config import answers
from video_diffusion.errors import UserError
from video_diffusion.web import forms

SIDE = 256  # pixels; smaller results are enlarged to look at
KEPT = 32  # newest results that are kept on the disk


class Stopped(Exception):
  """The visitor has stopped the work, or has gone."""


class Worker:
  """A model that samples for visitors, one after the other."""

  def __init__(
      self,
      model: model_lib.Model,
      folder: pathlib.Path,
      limits: forms.Limits = forms.LIMITS,
  ):
    """Makes a worker.

    Args:
      model: what is sampled from.
      folder: an empty folder for the results.
      limits: what a visitor may ask for.
    """
    self.model, self.limits = model, limits
    self._folder = folder
    self._one = threading.Lock()
    self._stops = {}  # visitor -> the event that stops the work for that one
    self._numbers = itertools.count()

  def run(
      self,
      visitor: str,
      form: forms.Form,
      on_step: Callable[[int, int], None],
  ) -> pathlib.Path:
    """Samples what a form asks for.

    Args:
      visitor: a name of the visitor, for `stop`.
      form: what the visitor has filled in.
      on_step: called with (steps done, steps in all).

    Returns:
      The MP4.

    Raises:
      UserError: one sentence for the visitor.
      Stopped: see `stop`.
    """
    stop = self._stops[visitor] = threading.Event()

    def step(done, total):
      if stop.is_set():
        logging.info('Stopped after %d of %d steps.', done, total)
        raise Stopped
      on_step(done, total)

    try:
      with _sentences():
        call = forms.prepare(self.model, form, self.limits)
        # One that was stopped may still be compiling.
        with self._one:
          if stop.is_set():
            raise Stopped
          video = call(on_step=step)[0]
          return self._write(form, video)
    finally:
      if self._stops.get(visitor) is stop:
        del self._stops[visitor]

  def stop(self, visitor: str) -> bool:
    """Ends the work for a visitor at its next step; whether there was any."""
    event = self._stops.get(visitor)
    if event is not None:
      event.set()
    return event is not None

  def _write(self, form, video):
    number = next(self._numbers)
    shutil.rmtree(self._folder / str(number - KEPT), ignore_errors=True)
    folder = self._folder / str(number)
    folder.mkdir()
    words = re.findall(r'[a-z0-9]+', (form.prompt or form.task).lower())
    path = folder / f'{"_".join(words)[:60]}_seed_{int(form.seed)}.mp4'
    media.write_mp4(
        path, media.enlarge(video, SIDE), fps=self.model.config.sample.fps,
        comment=(form.prompt or '').strip(),
    )
    return path


@contextlib.contextmanager
def _sentences():
  """Turns what goes wrong into one sentence for the visitor."""
  try:
    with forms.titled():
      yield
  except (UserError, Stopped):
    raise
  except Exception as error:
    sentence = answers.of(error, 'this page')
    if sentence is None:
      logging.exception('A video could not be made.')
      sentence = (
          'The program has failed; its terminal shows the error, which is not '
          'of your making.'
      )
    raise UserError(sentence) from error
