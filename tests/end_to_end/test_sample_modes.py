"""Every way of sampling, from the fields of a call to the files it leaves.

The network is a formula; the runs of other tests are sampled by their own.
"""
import json
import logging
import shutil

from etils import epath
import jax
import numpy as np
import pytest

from tests.support import models
from video_diffusion import media
from video_diffusion import sample
from video_diffusion.checkpoints import checkpoint
from video_diffusion.checkpoints import weights
from video_diffusion.config import build
from video_diffusion.config import inputs
from video_diffusion.config import run_dir
from video_diffusion.config import saved_config
from video_diffusion.errors import UserError
from video_diffusion.evaluation import shapes_figures


@pytest.fixture
def runs(tiny_config, tmp_path, monkeypatch):
  """Folders of a run of 4 frames of 8x8, and of one of 3 frames of 16x16."""
  monkeypatch.setattr(build, 'make_model', lambda *_: models.Net())
  monkeypatch.setattr(
      build, 'restore_ema', lambda *_: (jax.numpy.float32(1), 1)
  )
  tiny_config.model.cond_dim = 0
  for name, fields in (
      ('base', dict(frames=4, frameskips=(3,))),
      ('fine', dict(frames=3, frameskips=(1,), height=16, width=16)),
  ):
    tiny_config.data.update(fields)
    run_dir.claim(tiny_config, epath.Path(tmp_path / name), '')
  return tmp_path / 'base', tmp_path / 'fine'


def draw(workdir, **fields):
  """uint8 videos of a call in this process."""
  fields = dict(num_videos=1, batch_size=jax.device_count(), **fields)
  sample.sample({f'sample.{k}': v for k, v in fields.items()}, str(workdir))
  folder = workdir / 'samples' / f'step_1_seed_{fields.get("seed", 0)}'
  assert (folder / 'clip_0000.mp4').stat().st_size
  assert (folder / 'grid.gif').stat().st_size
  with np.load(folder / 'samples.npz') as arrays:
    return arrays['video']


def clip(path, side, frames=5):
  """A file of a lossless codec, and its frames."""
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (frames, side, side, 3), np.uint8)
  levels = np.linspace(0, 255, frames).astype(np.uint8)
  video[:] = levels[:, None, None, None]  # GIF keeps grey levels exactly
  media.write_gif(path, video, fps=8)
  return video


def test_64_frames_by_extension(runs):
  video = draw(runs[0], frames=64, seed=1)
  assert video.shape == (1, 64, 8, 8, 3)
  assert np.all(video[0].std(axis=(1, 2, 3)) > 0)


@pytest.mark.parametrize(
    'task, places',
    [('extend', range(5)), ('extend_backwards', range(4, 9)),
     ('interpolate', range(0, 9, 2))],
)
def test_a_clip_is_continued_or_filled_in(runs, tmp_path, task, places):
  given = clip(tmp_path / 'a.gif', 8)
  frames = {} if task == 'interpolate' else dict(frames=9)
  video = draw(
      runs[0], video=str(tmp_path / 'a.gif'), task=task, seed=2, **frames
  )
  assert video.shape[1] == 9
  np.testing.assert_array_equal(video[0, list(places)], given)


def test_a_clip_is_enlarged(runs, tmp_path):
  clip(tmp_path / 'a.gif', 4)
  video = draw(
      runs[0], video=str(tmp_path / 'a.gif'), upscale=2, seed=3,
      sampler='dpmpp_2m', guidance_weight=1.0,
  )
  assert video.shape == (1, 5, 8, 8, 3)


def test_a_cascade_of_two_runs(runs, caplog):
  base, fine = runs
  with caplog.at_level(logging.INFO):
    video = draw(base, refine_workdir=str(fine), stride=3, seed=4)
  assert video.shape == (1, 12, 16, 16, 3)
  # The clips that it is compared with are of its own size and rate.
  config = saved_config.load({}, fine, ())
  source = inputs.make_source(config, 'test')
  examples = inputs.heldout_examples(config, source, 1, frames=3)
  real = shapes_figures.table(video, examples).splitlines()[2]
  assert real.startswith('real clips') and real in caplog.text


def test_a_cascade_that_does_not_fit_is_one_sentence(runs, tmp_path):
  base, fine = runs
  with pytest.raises(ValueError, match='no whole multiple of 16x16'):
    draw(fine, refine_workdir=str(base))
  with pytest.raises(ValueError, match='begins from noise'):
    draw(base, refine_workdir=str(fine), video='a.mp4')
  with pytest.raises(ValueError, match=f'{tmp_path} holds no run'):
    draw(base, refine_workdir=str(tmp_path))
  with pytest.raises(ValueError, match='sample.stride is 2, but the first mod'):
    draw(base, refine_workdir=str(fine), stride=2)


def copy_of(run, folder, **sample_fields):
  """A run's folder, as another person would send it, its config changed."""
  shutil.copytree(run, folder, ignore=shutil.ignore_patterns('samples'))
  path = folder / 'config.json'
  saved = json.loads(path.read_text())
  saved['sample'] |= sample_fields
  path.write_text(json.dumps(saved))
  return folder


def test_files_that_only_a_shared_run_names_are_not_touched(runs, tmp_path):
  clip(tmp_path / 'private.gif', 8)
  other = copy_of(runs[1], tmp_path / 'other')
  shared = copy_of(
      runs[0], tmp_path / 'shared', video=str(tmp_path / 'private.gif'),
      refine_workdir=str(other), prompts=['a secret'], task='extend',
  )
  before = sorted(other.rglob('*'))
  video = draw(shared, seed=6)
  assert video.shape == (1, 4, 8, 8, 3)  # not continued, and not refined
  assert sorted(other.rglob('*')) == before
  video = draw(
      shared, seed=7, video=str(tmp_path / 'private.gif'), frames=9
  )
  assert video.shape[1] == 9  # the person names it


def test_weights_that_are_no_numbers_are_refused(
    copied_run, tmp_path, monkeypatch
):
  config = saved_config.load({}, copied_run, ())
  sizes = build.saved_label_sizes(config, epath.Path(copied_run))
  params, step = build.restore_ema(
      config, epath.Path(copied_run), build.make_model(config, sizes)
  )
  bad = jax.tree.map(np.array, params)
  jax.tree.leaves(bad)[3][..., 0] = np.nan
  shared = copy_of(copied_run, tmp_path / 'shared')
  shutil.rmtree(shared / 'checkpoints')
  weights.save(bad, shared / 'weights', step=step, dtype=np.float32)
  with pytest.raises(UserError, match='shared/weights holds weights that are'):
    draw(shared)
  real = checkpoint.Checkpoints.restore_latest

  def restored(*args, **kwargs):
    state, step = real(*args, **kwargs)
    return state.replace(ema_params=jax.tree.map(jax.numpy.array, bad)), step

  monkeypatch.setattr(checkpoint.Checkpoints, 'restore_latest', restored)
  with pytest.raises(UserError, match='checkpoints/6 holds weights that are'):
    draw(copied_run)
