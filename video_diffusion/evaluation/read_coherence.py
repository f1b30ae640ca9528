"""Whether sampled clips hold together, of files that --mode=sample wrote.

The evaluators `coherence` and `digits` sample by themselves.
"""
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
import numpy as np

from video_diffusion.config import inputs
from video_diffusion.config import saved_config
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import coherence
from video_diffusion.evaluation import digits
from video_diffusion.evaluation import read_samples
from video_diffusion.filesystem import files


def read(
    folders: Sequence[epath.PathLike], overrides: Mapping[str, Any] = ()
) -> dict[str, dict[str, float | None]]:
  """Measures the clips of some folders, as of several seeds, as one set.

  Args:
    folders: each is WORKDIR/samples/step_N_seed_M of a run. The run of the
      first one says what the clips show.
    overrides: fields of the config of that run, as {'data.path': ...}.

  Returns:
    The figures of the 'samples'; of as many 'real' held-out clips of the run's
    own length; and of 'unrelated', real clips whose frames are of different
    clips. See `coherence` and `digits`.

  Raises:
    UserError: a folder has no samples, the run has clips that cannot be read,
      or there are no data.
  """
  paths = [
      epath.Path(files.expand(folder, 'FOLDER', bucket=True))
      for folder in folders
  ]
  videos = np.concatenate([read_samples.load_videos(path) for path in paths])
  config = saved_config.load(dict(overrides), paths[0].parent.parent, ())
  return measure(videos, config)


def measure(videos: np.ndarray, config) -> dict[str, dict[str, float | None]]:
  """Measures clips as of a run, beside its held-out ones; see `read`.

  Args:
    videos: uint8 [n, frames, height, width, 3].
    config: of the run. Its eval.num_clips becomes n.

  Raises:
    UserError: the run has clips that cannot be read, or there are no data.
  """
  config.eval.num_clips = len(videos)
  source = inputs.make_source(config, 'test')
  shows_digits = config.data.name in digits.SHARES
  make = digits.make_figures if shows_digits else coherence.make_figures
  figures = make(config, source)
  beside = beside_real.BesideReal('figures', source, figures)
  return {'samples': figures(videos)} | beside_real.by_kind(beside.real(config))
