"""Packs data sets of TFDS, videos or images, once at the training size.

TFDS downloads and prepares the original as it always does, or finds it in the
data directory. `prepare` makes records of the original, which `data.records`
reads. From then on neither the original nor TensorFlow is needed.
"""
from collections.abc import Iterator
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from video_diffusion.data import packing
from video_diffusion.data import video
from video_diffusion.data.builders import tfds_originals
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError


class Mapping(NamedTuple):
  """Names in a TFDS data set; {x} stands for the option x.

  Attributes:
    tfds_name: 'name/config:version'.
    feature: the video [n, h, w, c] or image [h, w, c], uint8, c 1 or 3.
    label: its ClassLabel, '' for none.
    train_split: TFDS's name for what is trained on.
    test_split: and for what is held out.
    longest: frames of the longest video; 1 for a set of images.
  """

  tfds_name: str
  feature: str
  label: str
  train_split: str
  test_split: str
  longest: int


SETS = {
    # The paper trains on all 13,320 videos; the held-out part of them serves
    # to look at, not to measure generalisation. 71.04 s at 25 frames/s is the
    # longest (Soomro et al. 2012, table 1).
    'ucf101': Mapping(
        'ucf101/{tfds_config}:2.0.0', 'video', 'label', 'train+test', 'test',
        1776,
    ),
    # Its test split has the 256 evaluation videos.
    'bair_robot_pushing_small': Mapping(
        'bair_robot_pushing_small:2.0.0', '{camera}', '', 'train', 'test', 30
    ),
    # TFDS has the 10,000 clips of the benchmark's test set alone.
    'moving_mnist': Mapping(
        'moving_mnist:1.0.0', 'image_sequence', '', 'test[256:]', 'test[:256]',
        20,
    ),
    'mnist': Mapping('mnist:3.0.1', 'image', 'label', 'train', 'test', 1),
    'tfds_images': Mapping(
        '{tfds_name}', '{image_field}', '{label_field}', 'train', 'test', 1
    ),
}


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike,
    height: int,
    width: int,
    clip_frames: int = 1,
    min_frames: int = 1,
    short_clips: str = 'drop',
    train_split: str = '',
    test_split: str = '',
    **fields: str,
) -> pathlib.Path:
  """Packs a TFDS data set, unless that has been done.

  Frames are cropped to the target's aspect ratio about their centre and
  resized by the area mean; grey is repeated to RGB. Videos are cut by
  `packing.cut_clips`; an image is a clip of one frame. What TFDS cannot decode
  is skipped with a warning.

  report.json has, besides what `packing` adds,
    tfds: 'name/config:version' of the original,
    videos: {split: number in the original},
    skipped: a list of {file, reason}, where file is 'split[number]',
    sizes: {'height x width' of the original: number of videos},
    seconds: null, since TFDS keeps no frame rate.

  Args:
    name: one of SETS.
    data_dir: folder of the records and of the original, which is prepared
      there if need be.
    height: rows of the stored frames.
    width: columns of the stored frames.
    clip_frames: frames of a clip, which are stored together.
    min_frames: frames of the shortest window.
    short_clips: what becomes of shorter videos; see `packing.cut_clips`.
    train_split: TFDS's split to train on; '' takes the one in SETS.
    test_split: TFDS's split that is held out; '' takes the one in SETS.
    **fields: values of the options that the mapping has in braces.

  Returns:
    The directory of the records. It is named by the settings, so that a second
    call returns at once.

  Raises:
    UserError: a wrong setting, or an original that TFDS cannot prepare or
      that has no such feature.
    StorageError: data_dir cannot be written.
  """
  if short_clips not in packing.SHORT_CLIPS:
    raise ArgumentError(
        Argument('short_clips'), f' is {short_clips!r}; it must be one of '
        f'{packing.SHORT_CLIPS}.',
    )
  mapping = SETS[name]
  mapping = mapping._replace(
      tfds_name=mapping.tfds_name.format(**fields),
      feature=mapping.feature.format(**fields),
      label=mapping.label.format(**fields),
      train_split=train_split or mapping.train_split,
      test_split=test_split or mapping.test_split,
  )
  if not mapping.tfds_name:
    raise ArgumentError(
        Argument('tfds_name'), ' is empty; it must name a TFDS set of images, '
        "such as 'cifar10'.",
    )
  settings = dict(
      mapping._asdict(),
      height=height,
      width=width,
      clip_frames=clip_frames,
      min_frames=min_frames,
      short_clips=short_clips,
  )
  key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
  # Not `name`: that folder is the original's.
  packed_name = f'{name}_clips'
  directory = packing.directory(data_dir, packed_name, key)
  if directory.exists():
    return directory

  builder = tfds_originals.open_original(mapping.tfds_name, data_dir)
  report = {
      'tfds': builder.info.full_name,
      'videos': {},
      'skipped': [],
      'sizes': {},
      'seconds': None,
  }
  splits = {}
  for split, tfds_split in [
      ('train', mapping.train_split), ('test', mapping.test_split)
  ]:
    data = _resized(builder, tfds_split, mapping, height, width)
    first_id = sum(report['videos'].values())
    report['videos'][split] = len(data)
    splits[split] = packing.Split(
        _clips(
            data,
            f'{name} {tfds_split}',
            first_id,
            report,
            clip_frames=clip_frames,
            min_frames=min_frames,
            short_clips=short_clips,
        ),
        at_most=len(data) * math.ceil(mapping.longest / clip_frames),
    )
  class_names = ()
  if mapping.label:
    class_names = tuple(builder.info.features[mapping.label].names)
  return packing.pack(
      splits,
      data_dir=data_dir,
      name=packed_name,
      key=key,
      height=height,
      width=width,
      min_frames=min_frames,
      class_names=class_names,
      report=report,
  )


def _resized(builder, split, mapping, height, width):
  """A tf.data.Dataset of (uint8 [n, height, width, 3], size, label)."""
  import tensorflow as tf

  features = [mapping.feature, mapping.label] if mapping.label else [
      mapping.feature
  ]
  data = tfds_originals.read(builder, split, features)
  spec = data.element_spec[mapping.feature]
  rank = 3 if mapping.longest == 1 else 4
  if (
      len(spec.shape) != rank
      or spec.shape[-1] not in (1, 3)
      or spec.dtype != tf.uint8
  ):
    raise UserError(
        f'The feature {mapping.feature!r} of the TFDS data set '
        f'{builder.info.full_name} is {spec.dtype.name} {spec.shape}; it must '
        f'be uint8 of {rank} axes, the last of 1 or 3 channels.'
    )

  def shrink(frames):
    frames = frames if frames.ndim == 4 else frames[None]
    frames = np.broadcast_to(frames, (*frames.shape[:3], 3))
    small = np.empty((len(frames), height, width, 3), np.uint8)
    # In pieces: the means are taken in float32.
    for i in range(0, len(frames), 32):
      small[i : i + 32] = video.resize_and_crop(
          frames[i : i + 32], height=height, width=width
      )
    return small, np.array(frames.shape[1:3])

  def convert(example):
    small, size = tf.numpy_function(
        shrink, [example[mapping.feature]], (tf.uint8, tf.int64)
    )
    return small, size, example[mapping.label] if mapping.label else -1

  return data.map(convert, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _clips(
    data: Any,
    name: str,
    first_id: int,
    report: dict[str, Any],
    *,
    clip_frames: int,
    **cutting: Any,
) -> Iterator[packing.Clip]:
  """The clips of what `_resized` returned; `report` grows meanwhile."""
  import tensorflow as tf
  import tqdm

  videos = data.as_numpy_iterator()
  with tqdm.tqdm(total=len(data), desc=f'packing {name}', unit='video') as bar:
    for i in range(len(data)):
      bar.update()
      source = f'{name}[{i}]'
      try:
        frames, size, label = next(videos)
      except tf.errors.InvalidArgumentError as error:
        pieces, reason = [], f'TFDS cannot decode it: {error.message}'
      else:
        size = ' x '.join(map(str, size))
        report['sizes'][size] = report['sizes'].get(size, 0) + 1
        try:
          pieces = packing.cut_clips(
              len(frames), clip_frames=clip_frames, **cutting
          )
        except UserError as error:
          raise UserError(f'{source}: {error}') from error
        reason = f'shorter than {cutting["min_frames"]} frames'
      if not pieces:
        bar.clear()
        logging.warning('skipped %s: %s', source, reason)
        report['skipped'].append({'file': source, 'reason': reason})
      for number, piece in enumerate(pieces):
        yield packing.Clip(
            functools.partial(np.take, frames, piece, 0),
            first_id + i,
            source,
            int(label),
            start=number * clip_frames,
        )
