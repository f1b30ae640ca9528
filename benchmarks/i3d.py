"""The FVD network beside everything that is published of it.

  python -m benchmarks.i3d [--data ../shared/data/i3d] [--weights PATH]
      [--only oracle series random] [--batch_size 8]

`oracle`: the FVD of two synthetic sets of 24 clips, by weights made by a rule
(`rule_weights`), beside what the original TensorFlow graph gave; with the
reference resize and with the half-pixel one, which moves the score by 2.3 %.
`series`: 8 videos of zeros against 8 of ones, n = 10 to 30 frames, by the real
weights, beside JunyaoHu/common_metrics_on_video_quality @5f75173. All videos of
a set are equal, so each is given to the network once.
`random`: RandomState(1) against RandomState(2), 128 clips of 16x224x224 in
[0, 1) each, fed as they are, beside universome/fvd-comparison @33a5552.

Prints a table of what was found, expected, their relative difference and the
tolerance; exits with 1 where one is exceeded. `series` and `random` need
nothing but the installed weights; `oracle` needs the folder --data with
i3d_fixed_weights_expected.npz. A clip of 16 frames takes some 2 seconds on two
CPU cores, and there are 256 in `random`, 96 in `oracle` and 42 in `series`.
"""
import argparse
from collections.abc import Iterator
import pathlib
import sys
import time
import zlib

import flax.traverse_util
import jax
import numpy as np

from video_diffusion.checkpoints import metric_networks
from video_diffusion.evaluation import features
from video_diffusion.evaluation import fvd
from video_diffusion.models import i3d
from video_diffusion.training import writers

ORACLE = 'i3d_fixed_weights_expected.npz'
# Frames -> FVD of zeros against ones, and how far ours may be off.
SERIES = dict(zip(range(10, 31), (
    569.2296293622766, 486.3584254441098, 551.9610501807822,
    146.36638178542628, 172.85453222258292, 133.70311962583372,
    152.91750309134142, 357.7402855012116, 382.4668646785276,
    306.73840379649727, 338.4151811780684, 78.17255931098194,
    82.33446642508818, 64.5885972265882, 66.06281151704604,
    314.4803706985065, 316.6870909853734, 288.97196946254184,
    287.7805184515251, 152.1524775765185, 151.2564750365302,
), strict=True))
SERIES_TOLERANCE = 0.01
TENSORFLOW_30 = 151.39244  # by the original graph: the last of the series
TENSORFLOW_TOLERANCE = 1e-5
RANDOM = 10.13808536529541
RANDOM_TOLERANCE = 1e-4
HALF_PIXEL = 107.32  # of the oracle's sets; four digits are known
_PREFIX = 'RGB/inception_i3d/'


# ---- Weights and sets by rule ------------------------------------------------
def rule_weights() -> metric_networks.NetworkWeights:
  """Weights that any implementation can make: random, seeded by their names."""
  shape = (1, i3d.MIN_FRAMES, i3d.SIZE, i3d.SIZE, 3)
  abstract = jax.eval_shape(
      i3d.I3D().init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32)
  )['params']
  flat = {}
  for path, leaf in flax.traverse_util.flatten_dict(abstract).items():
    name = _PREFIX + '/'.join(path)
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    n = leaf.size
    if name.endswith('conv_3d/w'):
      value = rng.standard_normal(n) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    elif name.endswith('moving_variance'):
      value = rng.uniform(0.5, 1.5, n)
    else:
      value = 0.1 * rng.standard_normal(n)
    flat[path] = value.reshape(leaf.shape).astype(np.float32)
  params = flax.traverse_util.unflatten_dict(flat)
  return metric_networks.NetworkWeights(params, 'by rule', 'by rule')


def weights_crc32(params) -> int:
  """zlib.crc32 over the arrays in the order of their names."""
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  crc = 0
  for name in sorted(flat):
    crc = zlib.crc32(flat[name].astype('<f4').tobytes(), crc)
  return crc


def squares(seed: int, *, speed: int, noise: int, num_videos: int = 24):
  """A set of the oracle: squares that move over a torus, with noise or without.

  Returns:
    uint8 [num_videos, 16, 64, 64, 3]; the noise depends on num_videos.
  """
  rng = np.random.RandomState(seed)
  y, x = np.mgrid[:64, :64]
  videos = np.empty((num_videos, 16, 64, 64, 3), np.uint8)
  for video in videos:
    background, colour = rng.randint(0, 256, 3), rng.randint(0, 256, 3)
    side = rng.randint(8, 25)
    top, left = rng.randint(0, 64, 2)
    down, right = rng.randint(-speed, speed + 1, 2)
    for t, frame in enumerate(video):
      inside = ((y - top - down * t) % 64 < side) & (
          (x - left - right * t) % 64 < side
      )
      frame[:] = np.where(inside[..., None], colour, background)
  if noise:
    added = videos + rng.randint(-noise, noise + 1, videos.shape)
    videos = added.clip(0, 255).astype(np.uint8)
  return videos


def oracle_sets() -> tuple[np.ndarray, np.ndarray]:
  """The sets A and B, uint8 [24, 16, 64, 64, 3] each."""
  return squares(1, speed=3, noise=0), squares(2, speed=6, noise=20)


def noise(frames: int) -> np.ndarray:
  """The two clips of noise of the oracle, float32 [2, frames, 224, 224, 3]."""
  shape = 2, frames, i3d.SIZE, i3d.SIZE, 3
  rng = np.random.RandomState(1000 + frames)
  return rng.uniform(-1, 1, shape).astype(np.float32)


def zeros_against_ones(network: features.I3DFeatures, frames: int) -> float:
  """The FVD of 8 black videos and 8 white ones of 64x64 pixels."""
  videos = np.zeros((2, frames, 64, 64, 3), np.uint8)
  videos[1] = 255
  black, white = np.repeat(network(videos)[:, None], 8, 1)
  return fvd.fvd(black, white)


# ---- The table ---------------------------------------------------------------
def oracle(args) -> Iterator[tuple]:
  """Rows (what, found, expected, tolerance)."""
  expected = np.load(pathlib.Path(args.data, ORACLE))
  weights, sets = rule_weights(), oracle_sets()
  if weights_crc32(weights.params) != int(expected['weights_crc32_sorted']):
    raise RuntimeError('the weights by rule are not those of the oracle.')
  for resize, want, tolerance in (
      ('reference', float(expected['fvd64_AB']), 1e-4),
      ('half_pixel', HALF_PIXEL, 1e-3),
  ):
    network = features.I3DFeatures(
        weights, resize=resize, batch_size=args.batch_size
    )
    found = fvd.fvd(*(network(x) for x in sets))
    yield f'sets A and B, {resize} resize', found, want, tolerance


def series(args) -> Iterator[tuple]:
  """Likewise."""
  network = features.I3DFeatures(args.weights, batch_size=args.batch_size)
  for frames, want in SERIES.items():
    found = zeros_against_ones(network, frames)
    yield f'zeros and ones, {frames} frames', found, want, SERIES_TOLERANCE
  yield 'the last by TensorFlow', found, TENSORFLOW_30, TENSORFLOW_TOLERANCE


def random(args) -> Iterator[tuple]:
  """Likewise."""
  network = features.I3DFeatures(args.weights, batch_size=args.batch_size)

  def clips(seed):
    # One clip after the other: the numbers of a RandomState do not depend on
    # how many are taken at once, and all would be 2.5 GB in float64.
    rng = np.random.RandomState(seed)
    for _ in range(128):
      yield rng.rand(16, i3d.SIZE, i3d.SIZE, 3).astype(np.float32)

  found = fvd.fvd(*(network.of_clips(clips(seed)) for seed in (1, 2)))
  yield 'RandomState(1) and (2), 128 clips', found, RANDOM, RANDOM_TOLERANCE


PARTS = {'oracle': oracle, 'series': series, 'random': random}


def main(argv=None) -> int:
  """Prints the table; returns 1 if a figure is off."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--data', default='../shared/data/i3d')
  parser.add_argument('--weights', default=None)
  parser.add_argument(
      '--only', nargs='+', choices=PARTS, default=list(PARTS)
  )
  parser.add_argument('--batch_size', type=int, default=features.BATCH_SIZE)
  args = parser.parse_args(argv)
  device = jax.local_devices()[0].device_kind
  print(f'I3D on {jax.local_device_count()} x {device}, jax {jax.__version__}')
  if set(args.only) != {'oracle'}:
    loaded = metric_networks.load_i3d(args.weights)
    print(f'weights {loaded.source}, SHA-256 {loaded.sha256}')
    args.weights = loaded
  rows, off = [], False
  for part in args.only:
    began = time.perf_counter()
    for what, found, want, tolerance in PARTS[part](args):
      error = abs(found / want - 1)
      off |= not error <= tolerance
      seconds, began = time.perf_counter() - began, time.perf_counter()
      row = [what, f'{found:.6f}', f'{want:.6f}', f'{error:.1e}',
             f'{tolerance:.0e}', f'{seconds:.1f}']
      print('  '.join(row), file=sys.stderr, flush=True)
      rows.append(row)
  print(writers.table(
      ['what', 'found', 'expected', 'relative', 'tolerance', 'seconds'], rows
  ))
  return int(off)


if __name__ == '__main__':
  sys.exit(main())
