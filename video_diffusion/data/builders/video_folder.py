"""A folder of video files, decoded once into records that are read by id.

`prepare` writes the records, `data.records` reads them. They are a TFDS data
set in ArrayRecord format; TensorFlow Datasets is imported when it is used.
"""
from collections.abc import Sequence
import hashlib
import itertools
import json
import logging
import os
import pathlib
import tempfile
from typing import BinaryIO, NamedTuple

import numpy as np

from video_diffusion.data import records
from video_diffusion.data import video

NAME = 'video_folder'
VERSION = '1.0.0'  # a part of the path: raise it when the records change
TEST_EVERY = 20  # clips 0, 20, 40, ... of the folder are the test split


class Clip(NamedTuple):
  """Where a clip came from and which spooled frames it is."""
  file: str  # relative to the folder, with forward slashes
  video_id: int  # place of the file in sorted order
  start: int
  stop: int


def prepare(
    path: str | os.PathLike, *, data_dir: str | os.PathLike, height: int,
    width: int, frame_stride: int = 1, clip_frames: int,
    min_frames: int) -> pathlib.Path:
  """Decodes the videos in a folder into records, unless that has been done.

  Each video is thinned to every `frame_stride`-th frame, cropped about its
  centre, resized, and cut into consecutive clips of `clip_frames` frames; a
  rest of at least `min_frames` frames is a shorter clip. Every 20th clip over
  the whole folder, beginning with the first, goes to the split 'test' and the
  others to 'train'; a clip that is alone goes to both.

  Files that cannot be used are skipped with a warning. The finished directory
  holds, beside the records, report.json with the fields
    files: video files found in the folder, usable or not,
    clips, frames: numbers of both in the records, over both splits,
    skipped: a list of {file, reason}.

  The directory's name is a digest of the settings and of the names, sizes and
  times of the files, and the directory appears only when it is complete. So a
  second call returns at once, a changed folder is prepared afresh, and a
  preparation that was killed is done again; what that one left in the folder
  'incomplete...' beside it can be deleted.

  Args:
    path: folder of video files, searched through all its subfolders.
    data_dir: local folder for prepared data, made where absent. While
      preparing it needs about twice the space of the frames, uncompressed.
    height: rows of the stored frames.
    width: columns of the stored frames.
    frame_stride: 1 keeps every frame, 2 every second, and so on.
    clip_frames: frames of a clip; the longest window that can be read.
    min_frames: frames of the shortest clip worth keeping; a video with fewer
      frames left after thinning is skipped.

  Returns:
    `data_dir`/video_folder/<digest>/<version>, a prepared TFDS data set.

  Raises:
    ValueError: a setting is out of range, or the folder is missing or holds
      no video that can be used.
  """
  settings = dict(
      height=height, width=width, frame_stride=frame_stride,
      clip_frames=clip_frames, min_frames=min_frames)
  for name, value in settings.items():
    if value < 1:
      raise ValueError(f'{name} must be at least 1, not {value}')
  if clip_frames < min_frames:
    raise ValueError(
        f'clip_frames = {clip_frames} must be at least min_frames = '
        f'{min_frames}')
  folder = pathlib.Path(path)
  if not folder.is_dir():
    what = 'a file' if folder.exists() else 'missing'
    raise ValueError(f'{folder} is {what}: give a folder of video files')
  files = video.find_videos(folder)
  if not files:
    raise ValueError(
        f'the folder {folder} holds no video file: it should hold files that '
        f'end in {", ".join(video.VIDEO_SUFFIXES)}')

  data_dir = pathlib.Path(data_dir)
  key = _content_key(folder, files, settings)
  directory = data_dir / NAME / key / VERSION
  if directory.exists():
    return directory
  data_dir.mkdir(parents=True, exist_ok=True)
  # The spool has no name: it goes with the process, however that ends.
  with tempfile.TemporaryFile(dir=data_dir) as spool:
    clips, skipped = _spool_videos(folder, files, spool, **settings)
    if not clips:
      raise ValueError(
          f'the folder {folder} holds no usable video: all {len(skipped)} '
          f'were skipped, the first of them, {skipped[0]["file"]}, because: '
          f'{skipped[0]["reason"]}')
    num_frames = sum(clip.stop - clip.start for clip in clips)
    report = dict(
        files=len(files), clips=len(clips), frames=num_frames, skipped=skipped)
    frames = np.memmap(
        spool, np.uint8, 'r', shape=(num_frames, height, width, 3))
    _write_records(data_dir, key, frames, clips, report)
  return directory


def _content_key(
    folder: pathlib.Path, files: Sequence[pathlib.Path],
    settings: dict[str, int]) -> str:
  """Digest of the settings and of all that can be told without decoding."""
  listing = [
      (file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)
      for file in files for stat in [file.stat()]]
  content = json.dumps([settings, listing], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def _spool_videos(
    folder: pathlib.Path, files: Sequence[pathlib.Path], spool: BinaryIO, *,
    height: int, width: int, frame_stride: int, clip_frames: int,
    min_frames: int) -> tuple[list[Clip], list[dict[str, str]]]:
  """Decodes each file once; its small frames go to the spool, back to back.

  The spool is on disk: long films do not fit in memory even at a small size,
  and a film counts only once its last frame was decoded.

  Returns:
    All clips in order, whose frames fill the spool without a gap, and {file,
    reason} of each file that was skipped.
  """
  import tqdm

  clips, skipped, total = [], [], 0
  with tqdm.tqdm(files, desc='decoding videos', unit='file') as progress:
    for video_id, file in enumerate(progress):
      name = file.relative_to(folder).as_posix()
      spool.seek(total * height * width * 3)  # over what a broken film left
      count = 0
      try:
        # Frame by frame: full-size frames are large and may change in size.
        for frame in itertools.islice(
            video.read_frames(file), 0, None, frame_stride):
          spool.write(video.resize_and_crop(
              frame[None], height=height, width=width))
          count += 1
        if count < min_frames:
          raise video.VideoError(file, f'shorter than {min_frames} frames')
      except video.VideoError as error:
        progress.clear()
        logging.warning('skipped %s: %s', name, error.reason)
        skipped.append({'file': name, 'reason': error.reason})
        continue
      for start, stop in cut(count, clip_frames, min_frames):
        clips.append(Clip(name, video_id, total + start, total + stop))
      total = clips[-1].stop  # a rest that is too short is written over
  spool.flush()
  return clips, skipped


def cut(
    num_frames: int, clip_frames: int,
    min_frames: int) -> list[tuple[int, int]]:
  """Cuts a video into (start, stop) of consecutive clips.

  All have `clip_frames` frames but the last, which has what is left; it is
  dropped if that is less than `min_frames`.
  """
  cuts = [(start, min(start + clip_frames, num_frames))
          for start in range(0, num_frames, clip_frames)]
  return [(start, stop) for start, stop in cuts if stop - start >= min_frames]


def split_clips(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
  """Deals clips to 'train' and 'test'; neither is empty."""
  train = [clip for i, clip in enumerate(clips) if i % TEST_EVERY]
  return {'train': train or list(clips), 'test': list(clips[::TEST_EVERY])}


def _write_records(
    data_dir: pathlib.Path, key: str, frames: np.ndarray,
    clips: Sequence[Clip], report: dict) -> None:
  """Writes data set `data_dir`/video_folder/`key`/VERSION, whole or not at all.

  `clips` index `frames`, uint8 [all frames of all clips, height, width, 3].
  """
  _, height, width, _ = frames.shape
  splits = split_clips(clips)
  with records.quiet_tfds() as tfds:

    # Not registered: the class is defined anew in each call.
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      """Writes clips that are decoded already."""
      name = NAME
      VERSION = tfds.core.Version(VERSION)

      def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description='Clips of the video files in a folder.',
            features=tfds.features.FeaturesDict({
                'video': tfds.features.Tensor(
                    shape=(None, height, width, 3), dtype=np.uint8,
                    encoding='bytes'),
                'file': tfds.features.Text(),
                'video_id': np.int32,
            }),
            disable_shuffling=True)  # record i is clip i of its split

      def _split_generators(self, dl_manager):
        # TFDS renames its directory when all is written: so these files
        # come into being together with the records.
        directory = pathlib.Path(self.data_dir)
        np.savez(directory / 'video_ids.npz', **{
            split: np.array([clip.video_id for clip in members], np.int32)
            for split, members in splits.items()})
        (directory / 'report.json').write_text(json.dumps(report, indent=2))
        return {split: self._generate_examples(members)
                for split, members in splits.items()}

      def _generate_examples(self, members):
        # Beyond 1 GB TFDS sorts on disk, in 1000 buckets of equal ranges of
        # the key's 128 bits, each read into memory whole. Small keys would
        # all be in the first.
        step = 2**128 // len(members)
        for i, clip in enumerate(members):
          yield i * step, {
              'video': np.asarray(frames[clip.start:clip.stop]),
              'file': os.fsencode(clip.file),
              'video_id': clip.video_id,
          }

    builder = Builder(
        data_dir=data_dir, config=tfds.core.BuilderConfig(name=key))
    # Nothing is downloaded, yet TFDS makes the folder for it.
    with tempfile.TemporaryDirectory() as downloads:
      try:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False,
                compute_stats=tfds.download.ComputeStatsMode.SKIP),
            file_format='array_record')
      except OSError:
        # Another process prepared the same folder meanwhile and was faster.
        if not (data_dir / NAME / key / VERSION).exists():
          raise
