"""Data sets as TFDS has them: downloaded, prepared and decoded by TFDS."""
from collections.abc import Sequence
import os
from typing import Any

from video_diffusion.data import storage
from video_diffusion.errors import Argument
from video_diffusion.errors import ArgumentError
from video_diffusion.errors import UserError


def open_original(tfds_name: str, data_dir: str | os.PathLike) -> Any:
  """Returns the builder of a TFDS data set; prepares the set if need be.

  A set that is already prepared is taken as it is, in any file format.

  Raises:
    UserError: TFDS does not know the set or cannot prepare it.
  """
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder(tfds_name, data_dir=os.fspath(data_dir))
    if not builder.is_prepared():
      tfds.enable_progress_bar()
      # Other errors of files are of what the set needs, and its page says it.
      with storage.writing_to(data_dir, errors=storage.FULL):
        builder.download_and_prepare(file_format='array_record')
  except UserError:
    raise
  # Downloads, archives, ffmpeg and optional packages fail each in their own
  # way, and TFDS passes that on.
  except Exception as error:
    reason = str(error).strip().partition('\n')[0] or type(error).__name__
    raise ArgumentError(
        f'The TFDS data set {tfds_name!r} is not prepared in ', Argument('dir'),
        f', {data_dir}, and TFDS could not prepare it there ({reason}); its '
        'page in the TFDS catalogue says which files and programs it needs.',
    ) from error
  return builder


def read(builder: Any, split: str, features: Sequence[str]) -> Any:
  """Returns the decoded examples of a TFDS split, in the order of its files.

  Args:
    builder: what `open_original` returned.
    split: name of the split, such as 'train+test' or 'test[:256]'.
    features: names of the features to decode.

  Returns:
    A tf.data.Dataset of {feature: tensor}, of known length.

  Raises:
    UserError: the data set has no such feature or split.
  """
  import tensorflow as tf
  import tensorflow_datasets as tfds

  tf.config.set_visible_devices([], 'GPU')  # the GPU belongs to JAX
  # BAIR is a sequence of frames that have the features.
  known = getattr(builder.info.features, 'feature', builder.info.features)
  for feature in features:
    if feature not in known:
      raise UserError(
          f'The TFDS data set {builder.info.full_name} has no feature '
          f'{feature!r}; it has {", ".join(known)}.'
      )
  wanted = tfds.decode.PartialDecoding({name: True for name in features})
  try:
    if builder.info.file_format.value != 'array_record':
      return builder.as_dataset(
          split=split,
          decoders=wanted,
          read_config=tfds.ReadConfig(
              interleave_cycle_length=1, try_autocache=False
          ),
      )
    # TFDS has no tf.data.Dataset for this format.
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
  except ValueError:
    _require_split(builder, split)
    raise
  parser = wanted.extract_features(builder.info.features)

  def load(index):
    record = tf.numpy_function(lambda i: records[i], [index], tf.string)
    return parser.deserialize_example(tf.ensure_shape(record, ()))

  data = tf.data.Dataset.range(len(records))
  return data.map(load, num_parallel_calls=tf.data.AUTOTUNE)


def _require_split(builder, split):
  """Raises UserError if the set has no such split."""
  try:
    builder.info.splits[split]
  except (ValueError, KeyError) as error:
    reason = str(error).partition('\n')[0]
    raise UserError(
        f'The TFDS data set {builder.info.full_name} has no split {split!r} '
        f'({reason}).'
    ) from error
