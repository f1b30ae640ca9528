"""The evaluator of Moving-MNIST, on digits of seven segments and on MNIST's."""
import json
import types

import jax
import numpy as np
import pytest

from tests.support import glyphs
from tests.support import models
from tests.support.paths import DATA
from video_diffusion.data import mixture as mixture_lib
from video_diffusion.data.builders import mnist
from video_diffusion.data.builders import moving_mnist
from video_diffusion.errors import UserError
from video_diffusion.evaluation import beside_real
from video_diffusion.evaluation import digits as digits_lib
from video_diffusion.evaluation import evaluators as evaluators_lib
from video_diffusion.metrics import digit_clips
from video_diffusion.metrics import digit_reader
from video_diffusion.metrics import flicker

MNIST = DATA / 'mnist'
BATCH = 8 * jax.device_count()
CLIPS = 4 * BATCH
NAMES = ['flicker', 'ink_spread', 'displacement', 'identity', 'judged',
         'steady', 'apart', 'parts']


class Clips:
  """A source of clips of the digits of a folder."""

  def __init__(self, folder, size=64, num_examples=CLIPS):
    self.num_examples, self._size = num_examples, size
    self._digits = mnist.read_idx(folder / mnist.FILES['test'])

  def example(self, index, rng, num_frames, frameskips=(1,)):
    del rng, frameskips
    return {'video': moving_mnist.draw(
        self._digits, num_frames=num_frames, seed=0, split='test', index=index,
        size=self._size,
    )}


@pytest.fixture(name='folder')
def folder_of_glyphs(tmp_path):
  return glyphs.write_mnist(tmp_path)


def model(folder, side=64, frames=4):
  run = models.make(side=side, frames=frames, num_steps=1, fields=[
      ('data', 'name', 'moving_mnist_stochastic'),
      ('eval', 'evaluators', ('digits',)),
      ('eval', 'num_clips', CLIPS),
      ('eval', 'batch_size', BATCH),
  ])
  run.config.data.update(path=str(folder), dir='')
  return run


def make(run, source):
  return evaluators_lib.make(models.run_of(run, source))['digits']


def test_a_model_is_measured_beside_real_clips(folder):
  run = model(folder)
  measure = make(run, Clips(folder))
  results = evaluators_lib.run({'digits': measure}, {'ema': run})
  values = results['digits']['ema']
  assert [*values] == [
      f'{kind}{name}' for kind in ('', 'real_', 'unrelated_') for name in NAMES
  ]
  assert json.loads(json.dumps(values)) == values
  assert values['real_identity'] == values['real_steady'] == 1.0
  assert values['real_flicker'] < 0.05 < values['unrelated_flicker']
  assert values['unrelated_identity'] < 0.2
  assert 1 < values['real_displacement'] < 5 < values['unrelated_displacement']
  # The stand-in samples noise, in which there are no digits.
  assert values['identity'] is None and values['judged'] == 0.0
  curves = evaluators_lib.as_curves({'digits': measure}, results)
  assert curves['digits_real_identity/ema'] == 1.0
  assert 'digits_identity/ema' not in curves


def test_samples_like_real_clips_have_their_figures(folder, monkeypatch):
  source = Clips(folder)
  monkeypatch.setattr(beside_real, 'samples', lambda model: np.stack([
      source.example(500 + i, None, 4)['video'] for i in range(CLIPS)
  ]))
  run = model(folder)
  values = dict(make(run, source)(run))
  assert values['identity'] == 1.0
  for name in ('ink_spread', 'displacement'):
    assert values[name] == pytest.approx(values[f'real_{name}'], rel=0.4)


def test_digits_of_the_first_moving_mnist_are_smaller(folder, monkeypatch):
  """They are not enlarged: 28 of 64 pixels."""
  learned = mnist.labelled(folder, data_dir='', count=300)
  monkeypatch.setattr(mnist, 'labelled', lambda path, **kwargs: learned)
  run = model('')
  config = run.config.data
  config.name = 'moving_mnist'
  del config['path']
  figures = digits_lib.make_figures(run.config, Clips(folder))
  images, _ = glyphs.glyphs(8, seed=3)
  video = np.zeros((4, 5, 64, 64, 3), np.uint8)
  for clip, a, b in zip(video, images[:4], images[4:], strict=True):
    for t, frame in enumerate(clip):
      frame[t : t + 28, :28] = a[..., None]
      frame[30:58, 34 - t : 62 - t] = b[..., None]
  found = figures(video)
  assert found['identity'] == found['apart'] == 1.0
  assert found['displacement'] == pytest.approx(1.0)


def test_a_run_that_cannot_be_read_is_one_sentence(folder, tmp_path):
  begin = "^eval.evaluators holds 'digits', which "
  source = Clips(folder)
  run = model(folder)
  two = mixture_lib.Mixture([source, source], [1, 1])
  with pytest.raises(UserError, match=f'{begin}reads clips of .* further data'):
    make(run, two)
  with pytest.raises(UserError, match=f'{begin}needs frames of .* are 16 and'):
    make(model(folder, side=16), source)
  with pytest.raises(UserError, match=f'{begin}compares .* data.frames is 1'):
    make(model(folder, frames=1), source)
  run.config.data.name = 'video_folder'
  with pytest.raises(UserError, match=f"{begin}.*data.name is 'video_folder'"):
    make(run, types.SimpleNamespace(num_examples=1))
  (tmp_path / mnist.LABELS).unlink()
  with pytest.raises(UserError, match='^data.path is .*no file train-labels'):
    make(model(folder), source)


@pytest.fixture(name='mnist', scope='module')
def real_digits():
  """A reader, clips of held-out digits, and the classes of these."""
  if not (MNIST / mnist.LABELS).is_file():
    pytest.skip(f'{MNIST} does not hold the digits of MNIST')
  reader = digit_reader.DigitReader(
      *mnist.labelled(MNIST, data_dir='', count=15_000)
  )
  images = mnist.read_idx(MNIST / mnist.FILES['test'])
  labels = mnist.read_idx(MNIST / 't10k-labels-idx1-ubyte.gz', axes=1)
  videos, classes = {64: [], 32: []}, []
  for kind in range(10):
    for index in range(20):
      for size, clips in videos.items():
        # Both digits are of one class, so that it is known.
        clips.append(moving_mnist.draw(
            images[labels == kind], num_frames=16, seed=0, split='test',
            index=index + 1000 * kind, size=size,
        ))
      classes.append(kind)
  return (
      reader, {size: np.stack(clips) for size, clips in videos.items()},
      np.array(classes),
  )


@pytest.mark.parametrize('size, kept', [(64, 1.0), (32, 0.98)])
def test_digits_of_mnist_are_read_in_real_frames(mnist, size, kept):
  reader, videos, classes = mnist
  found = digit_clips.read(videos[size], reader)
  wanted = np.broadcast_to(classes[:, None, None], found.classes.shape)
  right = found.classes[found.apart] == wanted[found.apart]
  assert right.size > 1500 and right.mean() > 0.98
  identity, judged = digit_clips.identity(found)
  assert judged.mean() > 0.7 and identity[judged].mean() >= kept
  # Noise and levels of grey as samples have them change little.
  noise = np.random.default_rng(0).normal(0, 12, videos[size].shape)
  noisy = (0.9 * videos[size] + noise).clip(0, 255).astype(np.uint8)
  identity, judged = digit_clips.identity(digit_clips.read(noisy, reader))
  assert identity[judged].mean() > 0.95


def test_flicker_of_real_clips_is_that_of_the_data_set(mnist):
  videos = mnist[1][64]
  assert 0.013 < flicker.ink_flicker(videos).mean() < 0.021
  mixed = flicker.unrelated_frames(videos, seed=0)
  assert flicker.ink_flicker(mixed).mean() > 0.2
