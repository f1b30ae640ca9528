"""Files whose content asks for trouble, and what decodes them.

Processes that decode import this module, so it imports little.
"""
import os
import pathlib
import signal
import time
from unittest import mock

from tests.support.waiting import LIMIT
from video_diffusion.data import record_writer
from video_diffusion.data import video
from video_diffusion.data.builders import beam
from video_diffusion.data.builders import file_plans
from video_diffusion.data.builders import shards
from video_diffusion.data.builders import video_files
from video_diffusion.data.builders import video_folder

SETTINGS = file_plans.Settings(
    height=8, width=8, clip_frames=10, min_frames=4
)
PATIENCE = 3.0
FEWEST_CLIPS = 2  # of a shard, so that there are some


def read(path, *, fps, limits):
  """Frames of a file, where neither its content nor the environment objects.

  KILL_LOG names a file that counts how often 05.gif has killed its process,
  which it does twice. READ_LOG names a file that counts what is read, which
  stands still at the fourth. HIDDEN names a folder that is not to be read.
  """
  if (hidden := os.environ.get('HIDDEN')) and str(path).startswith(hidden):
    raise AssertionError(f'{path} is read')
  content = path.read_bytes()
  if content.startswith(b'crash'):
    os.kill(os.getpid(), signal.SIGSEGV)
  if content.startswith(b'hang'):
    time.sleep(LIMIT)
  if path.name == '05.gif' and (log := os.environ.get('KILL_LOG')):
    with open(log, 'a') as out:
      out.write('killed\n')
    if len(pathlib.Path(log).read_text().split()) <= 2:
      os.kill(os.getpid(), signal.SIGKILL)
  if log := os.environ.get('READ_LOG'):
    with open(log, 'a') as out:
      out.write(f'{path.name}\n')
    if len(pathlib.Path(log).read_text().split()) > 3:
      time.sleep(LIMIT)  # until it is killed
  yield from video.read_timed(path, fps=fps, limits=limits)


def plan_of(folder, data_dir, *, fraction=1.0, **changed):
  """The plan of the records of a folder, decoded by `read`."""
  plan = video_folder.plan(
      folder, SETTINGS, data_dir=data_dir, fraction=fraction
  )
  return plan._replace(**{'read': read, 'patience': PATIENCE, **changed})


def decode_first_share(plan):
  """Decodes what the first of three tasks does."""
  plan.decode(plan.share(0, 3), part='0-of-3')


def pack(plan):
  """Packs, and stands still at the fourth shard; see READ_LOG."""
  write = shards.write

  def write_some(data_dir, folder, name):
    with open(os.environ['READ_LOG'], 'a') as out:
      out.write(f'{name}\n')
    if len(pathlib.Path(os.environ['READ_LOG']).read_text().split()) > 3:
      time.sleep(LIMIT)
    return write(data_dir, folder, name)

  with (
      mock.patch.object(shards, 'write', write_some),
      mock.patch.object(shards, 'SHARDS_OF_POOL', 100),  # in this process
      mock.patch.object(record_writer, 'FEWEST_CLIPS', FEWEST_CLIPS),
  ):
    video_files.pack(plan)


def die(*_):
  """Is killed in the place of `shards.write`."""
  os.kill(os.getpid(), signal.SIGKILL)


def decode_by_beam(plan):
  """Decodes by the default workers of Beam, in small batches."""
  with mock.patch.object(beam, 'FEWEST_BATCHES', 6):
    beam.decode(plan, '')
