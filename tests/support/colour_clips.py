"""Clips whose colours are known, made of planes that float64 formulas give.

The formulas are those of ITU-R BT.601, BT.709, BT.2020, BT.2087, BT.2100 and
BT.2408. libav encodes the planes and writes the tags; it converts nothing.
"""
import fractions

import av
import numpy as np

LUMA = {  # code point of H.273 -> (share of red, share of blue)
    1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}
# BT.2087: linear RGB of BT.709 -> that of BT.2020.
TO_BT2020 = np.array([
    [0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114],
    [0.0164, 0.0880, 0.8956],
])
# Two rows of four flat patches, none like another.
PATCHES = np.array([
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)],
    [(0, 0, 0), (128, 128, 128), (200, 100, 50), (30, 180, 220)],
])


def pq(light):
  """Linear light, 1 at 203 cd/m2 -> PQ signal."""
  y = (light * 203 / 10000) ** 0.1593017578125
  return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg_oetf(scene):
  """Scene light in [0, 1] -> HLG signal."""
  a, b, c = 0.17883277, 0.28466892, 0.55991073
  high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
  return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def hlg(light):
  """Linear light, 1 at 203 cd/m2 -> HLG; the system gamma by channel."""
  return hlg_oetf((light * 0.203) ** (1 / 1.2))


def hlg_luminance(light):
  """The same with the system gamma on the luminance, as BT.2100 has it."""
  luminance = light @ [0.2627, 0.6780, 0.0593] * 0.203
  gain = np.maximum(luminance, 1e-12) ** (1 / 1.2 - 1)
  return hlg_oetf(light * 0.203 * gain[..., None])


def bt709_oetf(light):
  """Linear light -> signal of BT.709, and of BT.2020 in ten bits."""
  return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def bt709_light(signal):
  toe = signal < 0.081
  return np.where(toe, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))


def srgb_light(signal):
  toe = signal < 0.04045
  return np.where(toe, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


# transfer -> (code point of H.273, light of the picture, signal of that light)
WIDE = {
    'bt2020': (14, bt709_light, bt709_oetf),
    'pq': (16, srgb_light, pq),
    'hlg': (18, srgb_light, hlg),
    'hlg_luminance': (18, srgb_light, hlg_luminance),
}


def planes(picture, *, matrix, full, bits, dynamic='sdr'):
  """float [h, w, 3] in 0..255 as it is to be shown -> three integer planes."""
  signal = np.asarray(picture, np.float64) / 255
  if dynamic != 'sdr':
    _, light, coded = WIDE[dynamic]
    signal = coded(light(signal) @ TO_BT2020.T)
  red, green, blue = np.moveaxis(signal, -1, 0)
  of_red, of_blue = LUMA[matrix]
  y = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
  cb, cr = (blue - y) / (2 * (1 - of_blue)), (red - y) / (2 * (1 - of_red))
  most, step = 2**bits - 1, 2 ** (bits - 8)
  if full:
    coded = y * most, cb * most + 128 * step, cr * most + 128 * step
  else:
    coded = (
        (16 + 219 * y) * step, (128 + 224 * cb) * step, (128 + 224 * cr) * step
    )
  return [np.clip(np.rint(plane), 0, most).astype(int) for plane in coded]


def flat_patches(height, width, turns=0):
  """PATCHES as a picture, turned against the clock by quarters."""
  patches = np.rot90(PATCHES, turns)
  rows, columns, _ = patches.shape
  return patches.repeat(height // rows, 0).repeat(width // columns, 1)


def frame(coded, *, bits, subsampled=True):
  """libav's frame of three planes, or of four, the last of which is opacity."""
  name = 'yuva' if len(coded) == 4 else 'yuv'
  name += ('420p' if subsampled else '444p') + ('10le' if bits > 8 else '')
  height, width = coded[0].shape
  made = av.VideoFrame(width, height, name)
  for i, (plane, values) in enumerate(zip(made.planes, coded, strict=True)):
    if i in (1, 2) and subsampled:
      values = values[::2, ::2]
    kind = np.dtype('u1' if bits == 8 else '<u2')
    rows = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
    rows[:, : values.shape[1]] = values
    plane.update(rows.tobytes())
  return made


def write(
    path, frames, *, codec='ffv1', rate=10, full=False, matrix=None,
    primaries=None, transfer=None, aspect=None, rotation=0, tag_range=True,
    **options,
):
  """Writes frames with tags; None leaves one out."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height = frames[0].width, frames[0].height
    stream.pix_fmt = frames[0].format.name
    context = stream.codec_context
    if tag_range:
      context.color_range = 2 if full else 1
    for name, value in (
        ('colorspace', matrix), ('color_primaries', primaries),
        ('color_trc', transfer),
    ):
      if value is not None:
        setattr(context, name, value)
    if aspect:
      context.sample_aspect_ratio = fractions.Fraction(aspect)
    if rotation:
      stream.set_display_rotation(rotation)
    for i, each in enumerate(frames):
      each.pts, each.time_base = i, fractions.Fraction(1, rate)
      each.colorspace = 2 if matrix is None else matrix
      each.color_range = (2 if full else 1) if tag_range else 0
      container.mux(stream.encode(each))
    container.mux(stream.encode())


def middles(picture, turns=0):
  """The mean colour of the middle half of each patch, [2, 4, 3]."""
  patches = np.rot90(np.empty((2, 4)), turns).shape
  h, w = (s // n for s, n in zip(picture.shape[:2], patches, strict=True))
  means = [
      [
          picture[i * h + h // 4 : i * h + 3 * h // 4 + 1,
                  j * w + w // 4 : j * w + 3 * w // 4 + 1].mean((0, 1))
          for j in range(patches[1])
      ]
      for i in range(patches[0])
  ]
  return np.rot90(np.array(means), -turns)
