"""CRC-32C (Castagnoli) in the masked form that TensorFlow's files store."""
from video_diffusion.errors import UserError

_DELTA = 0xA282EAD8


def masked(content: bytes) -> int:
  """The masked CRC-32C of some bytes, by a library that takes 5 GB a second.

  Raises:
    UserError: the library is not installed.
  """
  try:
    import google_crc32c
  except ImportError as error:
    raise UserError(
        'Weights of metrics are checked by the package google-crc32c, which is '
        "not installed; run: pip install 'video_diffusion[eval]'."
    ) from error
  crc = google_crc32c.value(content)
  return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF
