"""The training clips that are nearest to samples: has a model learned by heart?

Held-out clips of the same data are as near to training clips as clips are that
nobody has copied; samples that are much nearer are copies.
"""
from etils import epath
import numpy as np

from video_diffusion.evaluation import clip_sets
from video_diffusion.evaluation import extractors
from video_diffusion.evaluation import feature_files
from video_diffusion.evaluation import folder_figures
from video_diffusion.evaluation import report
from video_diffusion.evaluation import scorer as scorer_lib

COMPARED = 1_024  # samples, and held-out clips, whose distances are measured
HOW = (
    'By the root mean square difference of all frames shrunk to 8x8 pixels, in '
    'units of the whole range of a pixel.'
)


def find(
    samples: clip_sets.ClipSet,
    heldout: clip_sets.ClipSet,
    train: clip_sets.ClipSet,
    folder: epath.Path,
    progress: scorer_lib.Progress = lambda title: None,
    *,
    shown: int,
) -> tuple[report.Table, report.Clips]:
  """Compares the first samples and the first held-out clips with training ones.

  Args:
    samples: the samples.
    heldout: real clips that were not trained on.
    train: training clips, of the same size.
    folder: keeps what is computed of the training clips.
    progress: see `scorer_lib.Scorer`.
    shown: number of samples that are shown with their nearest training clips.

  Returns:
    A table of distances, and the clips that are shown.
  """
  extractor = extractors.Thumbnails()
  known = feature_files.features(
      train, extractor, folder, progress('thumbnails of training clips')
  )
  found = {
      name: folder_figures.nearest(_thumbnails(clips, extractor), known)
      for name, clips in (('samples', samples), ('held-out clips', heldout))
  }
  rows = [
      [name, len(distance), *(
          round(float(np.quantile(distance, share)), 4)
          for share in (0, 0.05, 0.5)
      )]
      for name, (_, distance) in found.items()
  ]
  table = report.Table(
      'Distance to the nearest training clip',
      ['', 'clips', 'least', '5 % are nearer than', 'median'], rows,
      f'The nearest of {len(train)} training clips. {HOW}',
  )
  index, distance = found['samples']
  groups = [
      {
          f'sample {i}': samples.read(i, i + 1)[0],
          f'nearest training clip, {distance[i]:.3f} away':
              train.read(index[i], index[i] + 1)[0],
      }
      for i in range(min(shown, len(index)))
  ]
  return table, report.Clips(
      'Nearest training clips', groups,
      f'The nearest of {len(train)} training clips. {HOW}',
  )


def _thumbnails(clips, extractor):
  """The thumbnails of the first clips, which are read a few at a time."""
  count = min(COMPARED, len(clips))
  return np.concatenate([
      extractor(clips.read(start, min(start + feature_files.CHUNK, count)))
      for start in range(0, count, feature_files.CHUNK)
  ])
