"""Which windows of a video a config trains on, now and with epochs over clips.

  python -m benchmarks.windows

Draws windows of one video as the config does, so many that each start is drawn
200 times on average. Prints how many different starts were drawn, and how
probable counts as uneven as these are (chi-square) if all starts are equally
likely. The columns 'before' are for the clips in which the config stored videos
before windows reached over several of them.
"""
import argparse
from typing import NamedTuple

import numpy as np
import scipy.stats

from benchmarks import cases
from video_diffusion.data import packing
from video_diffusion.data import stretches as stretches_lib
from video_diffusion.data import windows
from video_diffusion.training import writers

DRAWS = 200


class Case(NamedTuple):
  """A video of a config.

  Attributes:
    config: name of the config.
    variant: its variant.
    length: frames of the video.
    clip_frames: frames of the clips in which the config once stored it.
  """

  config: str
  variant: str
  length: int
  clip_frames: int


# Ten seconds of 30 frames a second; UCF101's mean; all clips of the other sets.
CASES = (
    Case('text_64', 'frameskip_1', 300, 64),
    Case('text_64', 'frameskip_4', 300, 64),
    Case('text_64_small', 'paper', 300, 32),
    Case('text_128', 'paper', 300, 32),
    Case('kinetics', 'paper', 300, 32),
    Case('ucf101', 'paper', 180, 64),
    Case('video_folder', 'accelerator', 300, 32),
    Case('video_folder', 'laptop', 300, 32),
    Case('bair', 'paper', 30, 30),
    Case('moving_mnist', 'accelerator', 20, 20),
    Case('moving_mnist', 'laptop', 20, 20),
    Case('moving_shapes', 'laptop', 8, 8),
)


def counts(
    length: int,
    *,
    clip_frames: int,
    epoch: str,
    num_frames: int,
    frameskip: int,
) -> np.ndarray:
  """Returns how often each start of a video is drawn, int [number of starts].

  Args:
    length: frames of the video.
    clip_frames: frames of the clips in which it is stored.
    epoch: what an epoch runs over.
    num_frames: frames of a window.
    frameskip: distance of its frames.
  """
  span = windows.span(num_frames, frameskip)
  collector, clips = stretches_lib.Collector(), packing.cut_clips(
      length, clip_frames=clip_frames, min_frames=span, short_clips='refuse'
  )
  for i, clip in enumerate(clips):
    collector.add(0, i * clip_frames, len(clip))
  stretches = stretches_lib.from_table(collector.table(), len(clips))
  if epoch == 'clips':
    stretches = stretches.clips(span)
  examples = windows.Examples(stretches, epoch=epoch, min_frames=span)
  found = np.zeros(length - span + 1, int)
  rng = np.random.default_rng(0)
  for i in range(DRAWS * len(found)):
    window = examples.window(
        i % examples.num_examples, rng, num_frames, (frameskip,)
    )
    found[window.frames[0]] += 1
  return found


def row(case: Case) -> dict[str, object]:
  """Returns a row of the table; a single start has p nan."""
  data = cases.load_config(case.config, case.variant).data
  # moving_shapes has neither option: it makes clips, each a video of its own.
  epoch = data.get('epoch', 'videos')
  frameskip, = data.frameskips
  sizes = dict(num_frames=data.frames, frameskip=frameskip)
  before = counts(
      case.length, clip_frames=case.clip_frames, epoch='clips', **sizes
  )
  now = counts(
      case.length, clip_frames=data.get('clip_frames', case.length),
      epoch=epoch, **sizes,
  )
  return {
      'config': f'{case.config}:{case.variant}',
      'epochs': epoch,
      'frames': case.length,
      'window': windows.span(**sizes),
      'starts': len(now),
      'before': int((before > 0).sum()),
      'now': int((now > 0).sum()),
      'p before': scipy.stats.chisquare(before).pvalue,
      'p now': scipy.stats.chisquare(now).pvalue,
  }


def main(argv: list[str] | None = None) -> None:
  """Prints the table."""
  argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  ).parse_args(argv)
  table = [row(case) for case in CASES]
  print(writers.table(list(table[0]), [
      [f'{x:.2g}' if isinstance(x, float) else str(x) for x in cells.values()]
      for cells in table
  ]))


if __name__ == '__main__':
  main()
