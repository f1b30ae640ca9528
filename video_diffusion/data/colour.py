"""Colours of libav's frames, by their tags, as uint8 RGB of a BT.709 display.

A tag of the frame counts: libav puts those of the container there where the
codec has none. What no tag says is decided as most players do:

- The matrix of large frames, at least HD_WIDTH wide or HD_HEIGHT high, is that
  of BT.709, of smaller ones that of BT.601, of JPEG (full-range formats whose
  name begins with yuvj) always that of BT.601. mpv decides by the same width,
  Chromium by the same height.
- The range is limited, except for these formats.
- Wide primaries are those of BT.2020 with its matrix, or with an HDR transfer.

Standard dynamic range with the primaries of BT.601 or BT.709 is taken as it is.
Wide gamuts are taken to linear light, turned to BT.709's primaries, and what
lies outside is clipped. For SDR the curve is BT.2020's, which is BT.709's too.
HDR is scaled so that its reference white (ITU-R BT.2408: 203 cd/m2, 75 % of
HLG, 58 % of PQ) becomes 255; darker parts keep their light, on a display of
sRGB, and brighter ones, for which no level is left, become white. HLG's system
gamma of 1.2 acts on each channel, as zimg has it, so that pure colours stay
pure (this project's choice; BT.2100 applies it to the luminance).
"""
import functools
from typing import Any, NamedTuple

import numpy as np

HD_WIDTH, HD_HEIGHT = 1280, 720
REFERENCE_WHITE = 203.0  # cd/m2, BT.2408
HLG_PEAK = 1000.0  # cd/m2 of the display for which the system gamma is 1.2
# Rounding to ten bits leaves light in a channel of an HDR frame that should be
# dark: up to this share of the strongest channel. It is taken off; greys stay.
ROUNDING = 0.0015
# Code points of ITU-T H.273, as in libav.
BT709, UNSPECIFIED, BT601, BT2020 = 1, 2, 6, 9
PQ, HLG = 16, 18
LIMITED, FULL = 1, 2
P3 = 12  # primaries of Display P3
# Matrix -> (share of red, share of blue) in luma.
LUMA = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601 of 625 lines
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    BT2020: (0.2627, 0.0593),
}
UNREADABLE = {
    8: 'YCgCo', 10: 'BT.2020 of constant luminance', 11: 'SMPTE 2085',
    12: 'a derived matrix', 13: 'a derived matrix', 14: 'ICtCp',
    15: 'IPT-C2', 16: 'YCgCo-Re', 17: 'YCgCo-Ro',
}
# (x, y) of red, green and blue; white is D65 throughout.
CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
WHITE = (0.3127, 0.3290)
_STRIP = 2**20  # pixels that are taken to linear light at once
_STEPS = 2**18  # of linear light: the first is far below a level


class ColourError(Exception):
  """Colours that cannot be read; the message says which."""


class Colour(NamedTuple):
  """How the samples of a frame are meant, without unspecified values.

  Attributes:
    matrix: key of LUMA; BT601 for RGB and grey, which have none.
    full: full range, else limited.
    primaries: key of CHROMATICITIES.
    transfer: PQ, HLG, or UNSPECIFIED for standard dynamic range.
  """

  matrix: int
  full: bool
  primaries: int
  transfer: int

  @property
  def note(self) -> str:
    """What is done beyond the usual, for the report; '' for nothing."""
    if self.transfer == UNSPECIFIED:
      return ''
    name = 'PQ' if self.transfer == PQ else 'HLG'
    return f'HDR ({name}), shown in standard dynamic range'


def describe(frame: Any) -> Colour:
  """The colour of a libav frame.

  Raises:
    ColourError: its matrix cannot be read.
  """
  matrix, primaries = int(frame.colorspace), int(frame.color_primaries)
  transfer = int(frame.color_trc)
  transfer = transfer if transfer in (PQ, HLG) else UNSPECIFIED
  if has_matrix(frame) and matrix in UNREADABLE:
    raise ColourError(
        f'its colours are coded as {UNREADABLE[matrix]}, which is not read'
    )
  jpeg = frame.format.name.startswith('yuvj')
  wide = matrix == BT2020 or transfer != UNSPECIFIED
  if primaries == UNSPECIFIED and wide:
    primaries = BT2020
  elif primaries not in CHROMATICITIES:
    primaries = BT709
  if matrix not in LUMA:
    hd = frame.width >= HD_WIDTH or frame.height >= HD_HEIGHT
    matrix = BT709 if hd and not jpeg else BT601
    if primaries == BT2020:
      matrix = BT2020
  return Colour(
      matrix, jpeg or int(frame.color_range) == FULL, primaries, transfer
  )


def has_matrix(frame: Any) -> bool:
  """Whether the frame is luma and two differences, not RGB or grey."""
  return not frame.format.is_rgb and len(frame.format.components) > 2


def to_rgb(frame: Any, *, height: int, width: int) -> np.ndarray:
  """libav's frame at a size, uint8 RGB [height, width, 3].

  Raises:
    ColourError: see `describe`.
  """
  colour = describe(frame)
  if colour.transfer != UNSPECIFIED or colour.primaries != BT709:
    return _by_light(frame, colour, height, width)
  rgb = _scaled(frame, colour, 'rgb24', height, width).to_ndarray()
  if (
      len(frame.format.components) < 3 and not frame.format.is_rgb
      and int(frame.color_range) == LIMITED
  ):
    # libav takes grey for full range whatever its tag.
    levels = (np.arange(256) - 16) * (255 / 219)
    rgb = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[rgb]
  return rgb


def to_rgba(frame: Any, *, height: int, width: int) -> np.ndarray:
  """A frame that has opacity: `to_rgb` and that, uint8 [height, width, 4].

  Raises:
    ColourError: see `describe`.
  """
  rgb = to_rgb(frame, height=height, width=width)
  rgba = _scaled(frame, describe(frame), 'rgba', height, width).to_ndarray()
  return np.concatenate([rgb, rgba[..., 3:]], axis=-1)


def _scaled(frame, colour, name, height, width):
  """The frame in another format and size, by swscale."""
  from av.video.reformatter import Interpolation

  if not has_matrix(frame):
    return frame.reformat(width, height, name, threads=1)
  # Without these flags swscale is off by up to three levels, and repeats the
  # colour differences rather than interpolating them.
  precise = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
  return frame.reformat(
      width, height, name, src_colorspace=colour.matrix,
      src_color_range=FULL if colour.full else LIMITED,
      interpolation=Interpolation.BILINEAR | precise, threads=1,
  )


def _by_light(frame, colour, height, width):
  """uint8 RGB through linear light, for wide gamuts and HDR."""
  name = 'yuv444p16le' if has_matrix(frame) else 'gbrp16le'
  # To the same matrix and range: swscale then only shifts and resizes.
  same = FULL if colour.full else LIMITED
  options = dict(src_color_range=same, dst_color_range=same)
  wide = frame.reformat(
      width, height, name, threads=1, **options if has_matrix(frame) else {}
  )
  planes = [
      np.frombuffer(plane, '<u2').reshape(height, -1)[:, :width]
      for plane in wide.planes
  ]
  bits = frame.format.components[0].bits
  out = np.empty((height, width, 3), np.uint8)
  rows = max(1, _STRIP // width)
  for top in range(0, height, rows):
    strip = [plane[top : top + rows].astype(np.float32) for plane in planes]
    if has_matrix(frame):
      signal = _from_luma(*strip, colour, bits)
    else:
      green, blue, red = strip
      signal = np.stack([red, green, blue], -1) / 65535
    out[top : top + rows] = to_display(signal, colour)
  return out


def _from_luma(y, cb, cr, colour, bits):
  """Planes that were shifted to 16 bits -> RGB signal [h, w, 3], about 0..1."""
  if colour.full:
    scale = np.float32(1 / ((2**bits - 1) * 2 ** (16 - bits)))
    y, cb, cr = y * scale, (cb - 32768) * scale, (cr - 32768) * scale
  else:
    y = (y - 16 * 256) * np.float32(1 / (219 * 256))
    cb = (cb - 32768) * np.float32(1 / (224 * 256))
    cr = (cr - 32768) * np.float32(1 / (224 * 256))
  of_red, of_blue = LUMA[colour.matrix]
  red = y + np.float32(2 * (1 - of_red)) * cr
  blue = y + np.float32(2 * (1 - of_blue)) * cb
  green = (y - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
  return np.stack([red, green, blue], -1)


def to_display(signal: np.ndarray, colour: Colour) -> np.ndarray:
  """What an SDR display of BT.709 is to show.

  Args:
    signal: float32 [..., 3], coded RGB; 1 is the nominal peak.
    colour: its transfer and primaries.

  Returns:
    uint8 [..., 3].
  """
  steps = np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)
  light = _light(colour.transfer)[steps]
  light = light @ _to_bt709(colour.primaries).T
  hdr = colour.transfer != UNSPECIFIED
  if hdr:
    light -= ROUNDING * light.max(-1, keepdims=True)
    light /= 1 - ROUNDING
  steps = np.clip(light, 0, 1) * np.float32(_STEPS - 1)
  return _display(hdr)[np.rint(steps).astype(np.int32)]


@functools.lru_cache
def _light(transfer: int) -> np.ndarray:
  """float32 [65536]: signal -> linear light, 1 at the reference white."""
  signal = np.arange(65536) / 65535
  if transfer == PQ:
    light = pq_light(signal) / REFERENCE_WHITE
  elif transfer == HLG:
    light = hlg_light(signal) / REFERENCE_WHITE
  else:
    power = ((signal + 0.099) / 1.099) ** (1 / 0.45)
    light = np.where(signal < 4.5 * 0.018, signal / 4.5, power)
  return light.astype(np.float32)


@functools.lru_cache
def _display(srgb: bool) -> np.ndarray:
  """uint8 [_STEPS]: linear light in [0, 1] -> level by sRGB's or BT.709's."""
  light = np.arange(_STEPS) / (_STEPS - 1)
  if srgb:
    level = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
    )
  else:
    level = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
  return np.rint(255 * level).astype(np.uint8)


def pq_light(signal: np.ndarray) -> np.ndarray:
  """EOTF of PQ (SMPTE ST 2084, BT.2100): [0, 1] -> cd/m2 in [0, 10000]."""
  m1, m2 = 2610 / 16384, 2523 / 4096 * 128
  c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
  power = signal ** (1 / m2)
  return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def hlg_light(signal: np.ndarray) -> np.ndarray:
  """HLG (BT.2100) on a display of HLG_PEAK: [0, 1] -> cd/m2, by channel."""
  a = 0.17883277
  b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
  scene = np.where(
      signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12
  )
  return HLG_PEAK * scene**1.2


@functools.lru_cache
def _to_bt709(primaries: int) -> np.ndarray:
  """float32 [3, 3]: linear RGB of these primaries -> that of BT.709."""
  matrix = np.linalg.solve(rgb_to_xyz(BT709), rgb_to_xyz(primaries))
  return matrix.astype(np.float32)


def rgb_to_xyz(primaries: int) -> np.ndarray:
  """[3, 3]: linear RGB -> CIE XYZ, white at Y = 1."""

  def xyz(x, y):
    return np.array([x / y, 1.0, (1 - x - y) / y])

  columns = np.stack([xyz(*xy) for xy in CHROMATICITIES[primaries]], axis=1)
  return columns * np.linalg.solve(columns, xyz(*WHITE))
