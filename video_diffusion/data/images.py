"""Reads image files by Pillow, as uint8 RGB of a BT.709 (sRGB) display."""
import io
import os
import warnings

import numpy as np

from video_diffusion.data import limits as limits_lib
from video_diffusion.data.limits import LimitError
from video_diffusion.data.limits import VideoError

# Pillow's names. Its other readers stay off: of PostScript one runs a program.
FORMATS = ('PNG', 'JPEG', 'MPO', 'WEBP', 'BMP', 'DIB', 'TIFF', 'AVIF', 'GIF')


def read(
    path: str | os.PathLike, limits: limits_lib.Limits = limits_lib.DEFAULT
) -> np.ndarray:
  """Reads an image, upright; takes the first frame of an animated one.

  Colours of an embedded profile become those of sRGB. Transparent parts are
  laid over black. 16-bit grey keeps its high bytes.

  Args:
    path: a file in one of FORMATS; its content decides, not its name.
    limits: largest number of pixels, checked before they are decoded.

  Returns:
    uint8 RGB [height, width, 3].

  Raises:
    VideoError: it cannot be opened or decoded, or is too large.
  """
  import PIL.Image
  import PIL.ImageOps

  try:
    file = open(path, 'rb')
  except OSError as error:
    raise VideoError(path, error.strerror) from error
  PIL.Image.init()
  with file, warnings.catch_warnings():
    # The limit here is another one.
    warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
    try:
      image = PIL.Image.open(
          file, formats=[name for name in FORMATS if name in PIL.Image.OPEN]
      )
      limits.check(path, height=image.height, width=image.width)
      image = PIL.ImageOps.exif_transpose(image)
      if image.mode.startswith('I'):
        grey = np.asarray(image) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
      image = _to_srgb(image)
      if image.has_transparency_data:
        return over_black(np.asarray(image.convert('RGBA')))
      return np.asarray(image.convert('RGB'))
    except LimitError:
      raise
    except PIL.Image.DecompressionBombError as error:
      raise LimitError(
          path, f'it has more pixels than data.max_pixels, {limits.pixels}'
      ) from error
    # Pillow's readers fail each in their own way.
    except Exception as error:
      reason = str(error).replace(repr(file), 'it')
      raise VideoError(path, f'Pillow: {reason}') from None


def over_black(rgba: np.ndarray) -> np.ndarray:
  """uint8 [h, w, 4] -> [h, w, 3], each colour weighted by its opacity."""
  colour, opacity = rgba[..., :3], rgba[..., 3:]
  if opacity.min() == 255:
    return np.ascontiguousarray(colour)
  weighted = colour.astype(np.uint16) * opacity
  return ((weighted + 127) // 255).astype(np.uint8)


def _to_srgb(image):
  """The image without its profile, which a broken one does not prevent."""
  import PIL.ImageCms

  profile = image.info.get('icc_profile')
  if not profile or image.mode not in ('RGB', 'RGBA', 'CMYK', 'L'):
    return image
  try:
    return PIL.ImageCms.profileToProfile(
        image, PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        PIL.ImageCms.createProfile('sRGB'),
        outputMode='RGBA' if image.mode == 'RGBA' else 'RGB',
    )
  except (PIL.ImageCms.PyCMSError, OSError):
    return image
