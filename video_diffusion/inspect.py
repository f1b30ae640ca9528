"""What training would draw and take.

One real batch as a picture and a table, the rate of the data, and a forecast of
the memory and the time of the training.
"""
import itertools
import json
import multiprocessing
import pathlib
import resource
import sys
import time
from typing import Any

from absl import logging
from etils import epath
import ml_collections
import numpy as np

from video_diffusion import media
from video_diffusion.config import data_table
from video_diffusion.config import forecast as forecast_lib
from video_diffusion.config import inputs
from video_diffusion.config import validate
from video_diffusion.errors import UserError
from video_diffusion.filesystem import files
from video_diffusion.training import writers

MAX_ROWS = 8  # examples in the picture, from the start of the batch
SECONDS = 3.0  # of the measurement
WARM_UP = 3  # batches before it


def resident_bytes() -> int:
  """Memory that this process and its workers hold now.

  Shared pages count in each of them. Where there is no /proc it is the most
  that this process alone has held.
  """
  pids = ['self', *(str(p.pid) for p in multiprocessing.active_children())]
  try:
    return sum(
        int(pathlib.Path('/proc', pid, 'statm').read_text().split()[1])
        for pid in pids
    ) * resource.getpagesize()
  except FileNotFoundError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == 'darwin' else 1024)


def rate(batches, *, batch_size: int, seconds: float) -> tuple[float, int]:
  """(clips a second, batches drawn) over at least so long.

  Batches that lie ready at the start are of the warm-up's work: WARM_UP of
  them are drawn before the clock starts.
  """
  for batch in itertools.islice(batches, WARM_UP):
    del batch
  began, n = time.perf_counter(), 0
  while time.perf_counter() - began < seconds:
    next(batches)
    n += 1
  return n * batch_size / (time.perf_counter() - began), n


def texts(batch: dict[str, np.ndarray], row: int) -> list[str]:
  """Of the clip and of each image: the caption, else the labels, else ''."""
  if 'captions' in batch:
    return [text.decode() for text in batch['captions'][row]]
  if 'labels' in batch:
    return [f'label {" ".join(map(str, x))}' for x in batch['labels'][row]]
  return [''] * len(batch['video'][row])


def picture(batch: dict[str, np.ndarray], num_images: int) -> np.ndarray:
  """The first MAX_ROWS examples, one a row, uint8 [T, height, width, 3].

  From the left: the clip, which moves, and its `num_images` images, each with
  its text beneath.
  """
  videos = media.enlarge(batch['video'][:MAX_ROWS], min_side=96)
  n, total, h, w, _ = videos.shape
  t = total - num_images
  rows = [texts(batch, i) for i in range(n)]
  written = any(text for row in rows for text in row)
  cells = []
  for video, row in zip(videos, rows, strict=True):
    parts = [video[:t], *(video[i : i + 1] for i in range(t, total))]
    for part, text in zip(parts, row, strict=False):
      cell = np.broadcast_to(part, (t, h, w, 3))
      if written:
        label = media.text_strip(text, width=w)
        label = np.broadcast_to(label, (t, *label.shape))
        cell = np.concatenate([cell, label], axis=1)
      cells.append(cell)
  return media.grid(np.stack(cells), columns=1 + num_images)


def _write_picture(config, batch, folder):
  """Writes the picture of a batch to a folder, as GIF and MP4."""
  video = picture(batch, config.data.images)
  folder.mkdir(parents=True, exist_ok=True)
  media.write_gif(folder / 'batch.gif', video, fps=config.sample.fps)
  media.write_mp4(folder / 'batch.mp4', video, fps=config.sample.fps)
  logging.info(
      'Wrote %s: %d of %d examples.',
      folder / 'batch.gif',
      min(MAX_ROWS, config.batch_size),
      config.batch_size,
  )


def _measure_input(config, source):
  """(the first batch, what inspect.json says of it and of the loading)."""
  began = time.perf_counter()
  # Far longer than the measurement.
  batches = inputs.make_batches(config, source, start=0, stop=2**31)
  batch = next(batches)
  first = time.perf_counter() - began
  clips_per_second, drawn = rate(
      batches, batch_size=config.batch_size, seconds=SECONDS
  )
  result = {
      'loader': config.data.loader,
      'batch_size': config.batch_size,
      'shapes': {name: list(value.shape) for name, value in batch.items()},
      'seconds_to_first_batch': first,
      'clips_per_second': clips_per_second,
      'batches_measured': drawn,
      'resident_bytes': resident_bytes(),
      'texts': [texts(batch, i) for i in range(config.batch_size)],
  }
  logging.info(
      'Input: %.1f clips/s by loader %r, first batch after %.2f s, %.2f GiB '
      'of memory.',
      clips_per_second,
      config.data.loader,
      first,
      result['resident_bytes'] / 2**30,
  )
  return batch, result


def inspect(config: ml_collections.ConfigDict, run_dir: str) -> dict[str, Any]:
  """Writes run_dir/inspect/: batch.gif, batch.mp4 and inspect.json.

  The batch is the first that `train` would draw. Then the train step is
  compiled, and a few steps are measured on the devices that train. With
  log.forecast_steps=0 nothing is compiled, and no accelerator is touched. The
  folder stays free for any run.

  Returns:
    What inspect.json holds: the rows of the table, the input rate in clips a
    second with the loader of the config, memory in bytes, the texts, and
    'forecast' as `forecast.make` returns it. Where that is None, 'no_forecast'
    is a sentence that says why.

  Raises:
    UserError: a bad config, data that are missing, or a batch or a network that
      does not fit into the devices. What concerns the data is written before.
  """
  # Devices are counted, and a GPU's memory would be taken on that occasion.
  why_not = forecast_lib.start_devices(config)
  validate.check(config, 'inspect')
  run_dir = epath.Path(files.expand(run_dir, '--workdir', bucket=True))
  source = inputs.make_source(config, 'train')
  rows = data_table.rows(config, source)
  writers.log_lines(data_table.as_text(rows))
  batch, measured = _measure_input(config, source)
  result = {'data': rows} | measured
  folder = run_dir / 'inspect'
  _write_picture(config, batch, folder)
  path = folder / 'inspect.json'
  result |= {'forecast': None, 'no_forecast': why_not}
  files.write(path, json.dumps(result, indent=1))
  try:
    if not why_not:
      result['forecast'] = forecast_lib.make(
          config, run_dir, source, clips_per_second=result['clips_per_second']
      )
      writers.log_lines(forecast_lib.as_text(result['forecast']))
  except UserError as error:
    result['no_forecast'] = str(error)
    if not isinstance(error, forecast_lib.NoForecastError):
      raise  # too large for the devices
  finally:
    files.write(path, json.dumps(result, indent=1))
  if result['no_forecast']:
    logging.info(
        'No forecast of memory and time: %s.',
        result['no_forecast'].removesuffix('.'),
    )
  return result
