"""Reads prepared records by number, without tf.data."""
from collections.abc import Iterator, Sequence
import hashlib
import io
import logging
import os
from typing import Any
import zipfile

from etils import epath
import numpy as np

from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data import record_files
from video_diffusion.data import sides
from video_diffusion.data import stretches as stretches_lib
from video_diffusion.data import windows
from video_diffusion.errors import UserError

FILE = 'videos.npz'  # which frames the records hold; see `stretches`
OLD_FILE = 'video_ids.npz'  # the same in VERSION 2.0.0: videos alone


class VideoRecords(mixture_lib.Source):
  """Videos of a prepared data set.

  Safe to call from several threads at once. To read a frame is to read the clip
  that it is stored in, and a window reads the few clips that it reaches over.

  Attributes:
    num_examples: number of examples in an epoch; see `windows.Examples`.
    num_videos: number of videos.
    epoch: what an epoch runs over.
    stretches: what windows may reach over.
    frame_size: (height, width).
    shortest: frames of the shortest stretch of video of all splits.
    class_names: names of the classes, in the order of the labels; () without
      labels.
    label_sizes: (number of classes,), () without labels.
    fingerprint: says what the data are, see `packing.pack`; of records that
      were made before there was a digest of the content, a digest of the
      report, hence of the numbers of files, clips and frames alone.
  """

  num_videos = 0  # `__init__` counts them

  def __init__(
      self,
      directory: str | os.PathLike,
      split: str,
      *,
      epoch: str = 'videos',
      min_frames: int = 1,
  ):
    """Opens the records.

    Args:
      directory: what `packing.pack` returned, or a copy of it in a bucket.
      split: 'train' or 'test'.
      epoch: one of `windows.EPOCHS`.
      min_frames: frames that the shortest window spans.

    Raises:
      UserError: `directory` holds no prepared records, or no such split, or no
        window of a split, or they are damaged.
    """
    directory = epath.Path(directory)
    if not any((directory / name).exists() for name in (FILE, OLD_FILE)):
      raise UserError(
          f'{directory} holds no records of this package (no {FILE}); '
          'give a directory that --mode=prepare named.'
      )
    self._directory, self._split, self.epoch = directory, split, epoch
    self._report = record_files.read_report(directory, split)
    self._records = record_files.Records(directory, split)
    self.frame_size = self._records.frame_size
    stretches = self._load_stretches()
    if epoch == 'clips':
      stretches = stretches.clips(min_frames)
    self.stretches = stretches
    self._examples = windows.Examples(
        stretches, epoch=epoch, min_frames=min_frames
    )
    self.num_examples = self._examples.num_examples
    if not self.num_examples:
      raise UserError(
          f'{directory} holds no {"clip" if epoch == "clips" else "video"} of '
          f'{min_frames} frames, which a window spans, in its split {split!r}.'
      )
    self.num_videos = len(np.unique(stretches.videos))
    self.fingerprint = self._find_fingerprint()
    self.shortest = self._report['shortest']
    self.class_names = tuple(self._report['class_names'])
    self.label_sizes = (len(self.class_names),) if self.class_names else ()

  @property
  def summary(self) -> dict[str, Any]:
    """The number of frames, and more, for a table: name -> value.

    epoch, what an epoch runs over; frames of this split; seconds (None where
    the origin has no clock), size 'height x width' of the stored frames, and
    videos skipped and missing, over all splits.
    """
    height, width = self.frame_size
    return {
        'epoch': self.epoch,
        'frames': self._report['frames'][self._split],
        'seconds': self._report.get('seconds'),
        'size': f'{height} x {width}',
        'skipped': len(self._report.get('skipped', ())),
        'missing': self._report.get('missing', 0),
    }

  @property
  def clips_without_caption(self) -> int:
    """Number of clips of all splits without a caption; 0 if no clip has one."""
    captions = self._report['captions']
    return captions and sum(self._report['clips'].values()) - captions

  def sides(self) -> sides.Found:
    """Returns the captions of all splits that name a side."""
    # Records that were made before they were counted are read.
    found = self._report.get('captions_naming_sides')
    return sides.Found(*found) if found else sides.find(self.captions())

  def video(self, index: int) -> int | None:
    """Returns the video of example `index`; None if its window decides."""
    return self._examples.video(index)

  def window(
      self,
      index: int,
      rng: np.random.Generator,
      num_frames: int,
      frameskips: Sequence[int] = (1,),
  ) -> windows.Window:
    """Returns a random window of example `index`; see `mixture.Source`."""
    try:
      return self._examples.window(index, rng, num_frames, frameskips)
    except UserError as error:
      name = os.fspath(self._directory)
      if self.video(index) is not None:
        record = self._records.read(self.stretches.records[index])
        name = os.fsdecode(record['file'])
      raise UserError(f'{name}: {error}') from error

  def read(self, video: int, frames: np.ndarray) -> dict[str, Any]:
    """Returns frames of a video.

    Args:
      video: number of the video.
      frames: int64 [n], which of its frames, ascending and in one stretch.

    Returns:
      'video': uint8 [n, height, width, 3], a copy; where the data set has
      classes, 'labels': int32 [1], -1 for none; where a video of the data set
      has a caption, 'caption': str, '' for none.

    Raises:
      UserError: the records are damaged.
    """
    stretch = self.stretches.find(video, frames[0])
    _, first, _, chunk, number = (int(each[stretch]) for each in self.stretches)
    clips, offsets = np.divmod(frames - first, chunk)
    pixels = np.empty((len(frames), *self.frame_size, 3), np.uint8)
    features = record_files.PIXELS | record_files.TEXTS
    example, start = {'video': pixels}, 0
    while start < len(frames):
      clip = int(clips[start])
      stop = int(np.searchsorted(clips, clip, 'right'))
      record = self._records.read(number + clip, features)
      if offsets[stop - 1] >= len(record['video']):
        raise record_files.damaged(
            self._directory, f'record {number + clip} of {self._split!r} has '
            f'fewer frames than {FILE} says',
        )
      # One copy: 'clip' does not clip here, but 'raise' would copy twice.
      np.take(
          record['video'], offsets[start:stop], 0, out=pixels[start:stop],
          mode='clip',
      )
      if self.label_sizes and not start:
        example['labels'] = np.array([record['label']], np.int32)
      if self._report['captions'] and not start:
        example['caption'] = record['caption'].decode()
      features, start = record_files.PIXELS, stop
    return example

  def captions(self) -> Iterator[str]:
    """Yields the caption of each clip; yields nothing without captions."""
    if not self._report['captions']:
      return
    for i in range(len(self._records)):
      yield self._records.read(i, record_files.TEXTS)['caption'].decode()

  def _find_fingerprint(self) -> str:
    if self.epoch == 'clips' and 'content_of_clips' in self._report:
      return self._report['content_of_clips']
    found = self._report.get('content')
    if found is None:
      found = _digest((self._directory / 'report.json').read_bytes())[:16]
    old = not (self._directory / FILE).exists()
    if old and self.epoch != 'clips':
      if self.num_videos < len(self.stretches.videos):
        # The same videos, but with fewer windows than they have elsewhere.
        found = mixture_lib.CONTENT + _digest(f'clips of {found}'.encode())[:32]
    return found

  def _load_stretches(self) -> stretches_lib.Stretches:
    """Where the records begin and end; those of an earlier version are read."""
    try:
      if (self._directory / FILE).exists():
        content = io.BytesIO((self._directory / FILE).read_bytes())
        with np.load(content) as tables:
          table = tables[self._split]
        return stretches_lib.from_table(table, len(self._records))
      content = io.BytesIO((self._directory / OLD_FILE).read_bytes())
      with np.load(content) as ids:
        video_ids = ids[self._split]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
      raise record_files.damaged(self._directory, e) from e
    if video_ids.shape != (len(self._records),):
      raise record_files.damaged(
          self._directory, f'{OLD_FILE} is of other records'
      )
    logging.warning(
        '%s holds records of an earlier version, which do not say where in a '
        'video a clip begins: no window reaches over two clips. All of them '
        'are read now to count their frames. Prepare the videos again to have '
        'every window.', self._directory,
    )
    return stretches_lib.from_clips(video_ids, np.array([
        len(self._records.read(i, record_files.PIXELS)['video'])
        for i in range(len(video_ids))
    ]))


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
